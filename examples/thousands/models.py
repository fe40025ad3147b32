from math import ceil

from django.db import models
from django.db.models import F


class Member(models.Model):
    """A member of a corporation, of whom there are thousands."""

    character_id = models.PositiveIntegerField(primary_key=True)
    asked_at = models.DateTimeField(null=True, db_index=True)
    updated_at = models.DateTimeField(null=True)

    @classmethod
    def stalest(cls, parts):
        """Return the ids of those who have waited longest, one of so many parts."""
        count = ceil(cls.objects.count() / parts)
        waiting = cls.objects.order_by(F("asked_at").asc(nulls_first=True), "pk")
        return list(waiting.values_list("pk", flat=True)[:count])
