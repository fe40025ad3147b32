from django.db import models
from django.utils import timezone


class Report(models.Model):
    """A report that somebody asked for."""

    corporation_id = models.PositiveIntegerField(primary_key=True)
    asked_at = models.DateTimeField(default=timezone.now)
    written_at = models.DateTimeField(null=True)
