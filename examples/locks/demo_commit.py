from allianceauth.eveonline.models import EveCorporationInfo
from django.db import transaction

from locks.tasks import update_wallet

with transaction.atomic():
    EveCorporationInfo.objects.get_or_create(
        corporation_id=98000001,
        defaults={"corporation_name": "Jita Logistics"},
    )
    for _ in range(2):
        update_wallet.apply_async_on_commit([98000001], countdown=1)
