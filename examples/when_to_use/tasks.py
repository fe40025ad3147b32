import time

from allianceauth.eveonline.models import EveCorporationInfo
from allianceauth.services.hooks import get_extension_logger
from celery import shared_task

logger = get_extension_logger(__name__)


@shared_task
def update_members(corporation_id):
    corporation = EveCorporationInfo.objects.get(corporation_id=corporation_id)
    # Stands for the pages that ESI would be asked for.
    time.sleep(2)
    corporation.member_count = 42
    corporation.save()
    logger.info("%s has %d members", corporation, corporation.member_count)


@shared_task
def welcome(corporation_id):
    corporation = EveCorporationInfo.objects.get(corporation_id=corporation_id)
    logger.info("Welcome, %s", corporation)
