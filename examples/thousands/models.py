from django.db import models


class Member(models.Model):
    """A member of a corporation, of whom there are thousands."""

    character_id = models.PositiveIntegerField(primary_key=True)
    asked_at = models.DateTimeField(null=True, db_index=True)
    updated_at = models.DateTimeField(null=True)
