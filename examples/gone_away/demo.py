from allianceauth.eveonline.models import EveCorporationInfo

from gone_away.tasks import count_members_apart

EveCorporationInfo.objects.get_or_create(
    corporation_id=98000099,
    defaults={"corporation_name": "Perimeter Mining", "corporation_ticker": "PERI", "member_count": 0},
)
count_members_apart.delay(98000099, pages=1)
