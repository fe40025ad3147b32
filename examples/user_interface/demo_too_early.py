from allianceauth.eveonline.models import EveCorporationInfo
from django.contrib.auth.models import User
from django.db import transaction

from user_interface.tasks import audit_members

user, _ = User.objects.get_or_create(username="Kaia_Tennen")
with transaction.atomic():
    EveCorporationInfo.objects.create(corporation_id=98000003, member_count=7)
    audit_members.delay(98000003, user.pk)
