from allianceauth.eveonline.models import EveCorporationInfo

from smoothing.tasks import scatter_corporations

EveCorporationInfo.objects.bulk_create(
    [EveCorporationInfo(corporation_id=98000000 + number, member_count=1) for number in range(5)],
    ignore_conflicts=True,
)
scatter_corporations.delay(seconds=1)
