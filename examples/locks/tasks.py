from allianceauth.eveonline.models import EveCorporationInfo
from allianceauth.services.hooks import get_extension_logger
from allianceauth.services.tasks import QueueOnce
from celery import shared_task
from celery.exceptions import Ignore
from django.core.cache import cache

from locks.exclusive import exclusive
from locks.once import AtMostOnce, Once

logger = get_extension_logger(__name__)


@shared_task(base=QueueOnce)
def update_corporation(corporation_id):
    logger.info("Corporation %s updated", corporation_id)


@shared_task(base=QueueOnce)
def update_corporation_assets(corporation_id):
    logger.info("Assets of corporation %s updated", corporation_id)


@shared_task(base=Once)
def update_wallet(corporation_id):
    logger.info("Wallet of corporation %s updated", corporation_id)


@shared_task(base=QueueOnce, once={"timeout": 2 * 60 * 60})
def update_structures(corporation_id):
    logger.info("Structures of corporation %s updated", corporation_id)


@shared_task(base=QueueOnce)
def update_if_known(corporation_id):
    if not EveCorporationInfo.objects.filter(corporation_id=corporation_id).exists():
        raise Ignore


@shared_task(base=QueueOnce)
def update_batch(corporation_ids):
    while corporation_ids:
        logger.info("Corporation %s updated", corporation_ids.pop())


@shared_task(bind=True, base=QueueOnce)
def update_pages(self, corporation_id, page=1):
    if page == 1:
        raise self.retry(args=(corporation_id, 2), countdown=0)
    logger.info("%s pages of corporation %s updated", page, corporation_id)


@shared_task
def update_or_skip(corporation_id):
    with exclusive(corporation_id) as mine:
        logger.info("Corporation %s %s", corporation_id, "updated" if mine else "skipped")


@shared_task(bind=True, max_retries=None)
def update_members(self, corporation_id):
    with exclusive(corporation_id) as mine:
        if not mine:
            raise self.retry(countdown=1)
        logger.info("Members of corporation %s: update begins", corporation_id)
        logger.info("Members of corporation %s: update ends", corporation_id)


@shared_task(bind=True, max_retries=None)
def update_roles(self, corporation_id):
    with exclusive(corporation_id) as mine:
        if not mine:
            raise self.retry(countdown=1)
        logger.info("Roles of corporation %s: update begins", corporation_id)
        logger.info("Roles of corporation %s: update ends", corporation_id)


@shared_task
def update_and_wait(corporation_id):
    with cache.lock(f"locks_{corporation_id}", timeout=10 * 60):
        logger.info("Corporation %s updated", corporation_id)


@shared_task(base=Once)
def report_members(corporation_id):
    corporation = EveCorporationInfo.objects.get(corporation_id=corporation_id)
    logger.info("%s has %s members", corporation, corporation.member_count)


@shared_task(base=Once, once={"unlock_before_run": True, "graceful": True})
def recount_members(corporation_id):
    corporation = EveCorporationInfo.objects.get(corporation_id=corporation_id)
    logger.info("%s has %s members", corporation, corporation.member_count)


@shared_task(base=AtMostOnce, once={"timeout": 10 * 60, "graceful": True})
def update_prices(region_id):
    logger.info("Prices in region %s updated", region_id)
