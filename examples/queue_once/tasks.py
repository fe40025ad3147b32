import time

import celery_once
from allianceauth.eveonline.models import EveCorporationInfo
from allianceauth.services.hooks import get_extension_logger
from allianceauth.services.tasks import QueueOnce
from celery import shared_task

logger = get_extension_logger(__name__)


@shared_task(bind=True, name="queue_once.update_corporation", base=QueueOnce)
def update_corporation(self, corporation_id, force=False):
    logger.info("Corporation %s: update begins", corporation_id)
    time.sleep(0.3)  # stands for the requests to ESI
    logger.info("Corporation %s: update ends", corporation_id)


@shared_task(base=QueueOnce, once={"keys": ["corporation_id"], "graceful": True})
def update_structures(corporation_id, force):
    time.sleep(0.3)  # stands for the requests to ESI
    logger.info("Structures of corporation %s updated", corporation_id)


@shared_task(base=QueueOnce, once={"keys": [], "graceful": True})
def update_prices(region_id):
    time.sleep(0.3)  # stands for the requests to ESI
    logger.info("Prices in region %s updated", region_id)


@shared_task(base=QueueOnce, once={"timeout": 2 * 60 * 60})
def update_members(corporation_id):
    corporation = EveCorporationInfo.objects.get(corporation_id=corporation_id)
    logger.info("Members of %s updated", corporation)


@shared_task(base=QueueOnce, once={"unlock_before_run": True, "graceful": True})
def recount_fleets(corporation_id):
    logger.info("Fleets of corporation %s: count begins", corporation_id)
    time.sleep(0.3)  # stands for slow queries
    logger.info("Fleets of corporation %s: count ends", corporation_id)


@shared_task(bind=True, base=QueueOnce, max_retries=1)
def update_wallet(self, corporation_id):
    logger.info("Wallet of corporation %s: attempt %d", corporation_id, self.request.retries + 1)
    try:
        corporation = EveCorporationInfo.objects.get(corporation_id=corporation_id)
    except EveCorporationInfo.DoesNotExist as error:
        raise self.retry(countdown=1, exc=error) from error
    logger.info("Wallet of %s updated", corporation)


@shared_task(bind=True, base=QueueOnce, once={"unlock_before_run": True, "graceful": True}, max_retries=1)
def recount_pilots(self, corporation_id):
    try:
        corporation = EveCorporationInfo.objects.get(corporation_id=corporation_id)
    except EveCorporationInfo.DoesNotExist as error:
        raise self.retry(countdown=1, exc=error) from error
    logger.info("Pilots of %s counted", corporation)


@shared_task(base=QueueOnce)
def update_characters(character_ids):
    logger.info("%d characters updated", len(character_ids))


@shared_task(base=QueueOnce, once={"keys": ["corporation_id", "page"], "graceful": True})
def update_killmails(corporation_id, page=1):
    logger.info("Page %s of the kills of corporation %s updated", page, corporation_id)


@shared_task(base=celery_once.QueueOnce)
def update_standings(corporation_id):
    logger.info("Standings of corporation %s updated", corporation_id)
