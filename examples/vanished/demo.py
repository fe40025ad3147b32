from datetime import timedelta

from django.utils import timezone

from vanished.models import Report
from vanished.tasks import write_missing_reports

an_hour_ago = timezone.now() - timedelta(hours=1)
for corporation_id in (98000001, 98000002):
    Report.objects.update_or_create(
        corporation_id=corporation_id, defaults={"asked_at": an_hour_ago, "written_at": None}
    )
write_missing_reports.delay()
