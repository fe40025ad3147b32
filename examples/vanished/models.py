from datetime import timedelta

from django.db import models
from django.utils import timezone


class Report(models.Model):
    """A report that somebody asked for."""

    corporation_id = models.PositiveIntegerField(primary_key=True)
    asked_at = models.DateTimeField(default=timezone.now)
    written_at = models.DateTimeField(null=True)

    @classmethod
    def overdue(cls):
        """Return the reports that were asked for a quarter of an hour ago, and are not written."""
        asked = timezone.now() - timedelta(minutes=15)
        return cls.objects.filter(asked_at__lte=asked, written_at=None)
