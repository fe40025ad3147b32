from allianceauth.eveonline.models import EveCorporationInfo
from django.contrib.auth.models import User

from user_interface.tasks import audit_members

user, _ = User.objects.get_or_create(username="Kaia_Tennen")
corporation = {"corporation_name": "Perimeter Mining", "corporation_ticker": "PERI", "member_count": 12}
EveCorporationInfo.objects.get_or_create(corporation_id=98000001, defaults=corporation)
audit_members.delay(98000001, user.pk)
