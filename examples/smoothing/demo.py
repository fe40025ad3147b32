from allianceauth.eveonline.models import EveCorporationInfo

from smoothing.tasks import scatter_corporations

fleets = [(98000000 + number, f"Fleet {number}") for number in range(5)]
EveCorporationInfo.objects.bulk_create(
    [EveCorporationInfo(corporation_id=key, corporation_name=name) for key, name in fleets],
    ignore_conflicts=True,
)
scatter_corporations.delay(seconds=1)
