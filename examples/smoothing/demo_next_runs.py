from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from allianceauth.crontab.models import CronOffset
from allianceauth.crontab.utils import offset_cron
from celery.schedules import crontab
from django.db import transaction

at = datetime(2026, 4, 4, 12, 0, tzinfo=UTC)
with transaction.atomic():
    CronOffset.objects.update_or_create(pk=CronOffset.get_solo().pk, defaults={"minute": 6 / 60, "hour": 5 / 24})
    schedule = offset_cron(crontab(minute=0, hour="*/6"))
    # Your installation keeps its own offset.
    transaction.set_rollback(True)
print(schedule)
schedule.nowfun = lambda: at
for _ in range(4):
    at += schedule.remaining_estimate(at)
    print(f"{at:%a %d %b %H:%M} UTC, {at.astimezone(ZoneInfo('Australia/Sydney')):%H:%M} in Sydney")
