from time import perf_counter

from allianceauth.eveonline.models import EveCorporationInfo
from allianceauth.tests.auth_utils import AuthUtils
from django.test import Client
from django.urls import reverse

user = AuthUtils.create_user("Aiko")
AuthUtils.add_main_character_2(user, "Aiko Danuja", 90000001)
corporation = {"corporation_id": 98000001, "corporation_name": "Amarr Haulers"}
EveCorporationInfo.objects.get_or_create(**corporation)

client = Client(SERVER_NAME="127.0.0.1")
client.force_login(user)
for view in ("update_inline", "update_by_task"):
    began = perf_counter()
    response = client.post(reverse(f"when_to_use:{view}", args=[98000001]))
    took = "2 s or more" if perf_counter() - began >= 2 else "less than 2 s"
    print(f"{view}: {response.content.decode()} It took {took}.")
