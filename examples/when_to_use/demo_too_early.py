from allianceauth.eveonline.models import EveCorporationInfo
from django.db import transaction

from when_to_use.tasks import welcome

with transaction.atomic():
    EveCorporationInfo.objects.create(
        corporation_id=98000002,
        corporation_name="Caldari Miners",
        member_count=1,
    )
    welcome.delay(98000002)
