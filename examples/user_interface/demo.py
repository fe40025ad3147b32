from allianceauth.eveonline.models import EveCorporationInfo
from allianceauth.tests.auth_utils import AuthUtils
from django.contrib.messages import get_messages
from django.test import Client

user = AuthUtils.create_user("Kaia_Tennen")
AuthUtils.add_main_character_2(user, "Kaia Tennen", 95000001, corp_id=98000001)
corporation = {
    "corporation_name": "Perimeter Mining",
    "member_count": 12,
}
EveCorporationInfo.objects.get_or_create(corporation_id=98000001, defaults=corporation)

client = Client(SERVER_NAME="127.0.0.1")
client.force_login(user)
response = client.post("/user_interface/audit/98000001/")
print(*get_messages(response.wsgi_request))
