from allianceauth.eveonline.models import EveCorporationInfo
from celery_once import AlreadyQueued

from queue_once.tasks import update_members

EveCorporationInfo.objects.get_or_create(
    corporation_id=98000001,
    defaults={"corporation_name": "Jita Logistics"},
)
update_members.apply_async([98000001], countdown=1)
try:
    update_members.delay(98000001)
except AlreadyQueued as error:
    minutes = round(error.countdown / 60)
    print("AlreadyQueued: the lock ends in", minutes, "minutes at the latest")
