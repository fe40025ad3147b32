from allianceauth.eveonline.models import EveCorporationInfo
from django.db import transaction

from when_to_use.tasks import welcome

with transaction.atomic():
    EveCorporationInfo.objects.create(
        corporation_id=98000003,
        corporation_name="Gallente Traders",
        member_count=1,
    )
    welcome.delay_on_commit(98000003)
