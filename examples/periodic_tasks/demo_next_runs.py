from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from celery.schedules import crontab

at = datetime(2026, 3, 7, 13, 0, tzinfo=UTC)
schedule = crontab(minute=15, hour="*/12", nowfun=lambda: at)
for _ in range(4):
    at += schedule.remaining_estimate(at)
    print(f"{at:%a %d %b %H:%M} UTC, {at.astimezone(ZoneInfo('America/New_York')):%H:%M} in New York")
