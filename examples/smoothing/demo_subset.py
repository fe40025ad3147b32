from allianceauth.eveonline.models import EveCorporationInfo

from smoothing.tasks import update_subset

EveCorporationInfo.objects.bulk_create(
    [EveCorporationInfo(corporation_id=98000000 + number, member_count=1) for number in range(5)],
    ignore_conflicts=True,
)
update_subset.delay(parts=5)
