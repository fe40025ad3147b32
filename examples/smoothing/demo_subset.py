from allianceauth.eveonline.models import EveCorporationInfo

from smoothing.tasks import update_subset

fleets = [(98000000 + number, f"Fleet {number}") for number in range(5)]
EveCorporationInfo.objects.bulk_create(
    [EveCorporationInfo(corporation_id=key, corporation_name=name) for key, name in fleets],
    ignore_conflicts=True,
)
update_subset.delay(parts=5)
