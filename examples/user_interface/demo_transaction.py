from allianceauth.eveonline.models import EveCorporationInfo
from django.contrib.auth.models import User
from django.db import transaction

from user_interface.tasks import audit_new_corporation

user, _ = User.objects.get_or_create(username="Kaia_Tennen")
with transaction.atomic():
    EveCorporationInfo.objects.create(
        corporation_id=98000002,
        corporation_name="Amarr Haulers",
        member_count=7,
    )
    audit_new_corporation.delay_on_commit(98000002, user_pk=user.pk)
