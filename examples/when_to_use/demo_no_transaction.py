from allianceauth.eveonline.models import EveCorporationInfo

from when_to_use.tasks import welcome

EveCorporationInfo.objects.create(
    corporation_id=98000004,
    corporation_name="Minmatar Smiths",
    member_count=1,
)
welcome.delay_on_commit(98000004)
