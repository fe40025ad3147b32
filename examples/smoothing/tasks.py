from allianceauth.eveonline.models import EveCorporationInfo
from allianceauth.services.hooks import get_extension_logger
from celery import shared_task
from django.core.cache import cache
from django.db.models import F

logger = get_extension_logger(__name__)


@shared_task
def update_corporation(corporation_id):
    # Your manager asks ESI here.
    logger.info("Updated corporation %d", corporation_id)


@shared_task
def update_all_corporations():
    corporations = EveCorporationInfo.objects.values_list("corporation_id", flat=True)
    for corporation_id in corporations:
        update_corporation.apply_async(args=[corporation_id], priority=7)


@shared_task
def update_subset(parts=10):
    cache.add("smoothing_part", 0, timeout=None)
    part = cache.incr("smoothing_part") % parts
    part_of_each = F("corporation_id") % parts
    corporations = EveCorporationInfo.objects.annotate(part=part_of_each).filter(part=part)
    for corporation_id in corporations.values_list("corporation_id", flat=True):
        update_corporation.apply_async(args=[corporation_id], priority=7)


@shared_task
def scatter_corporations(seconds=600):
    ids = EveCorporationInfo.objects.values_list("corporation_id", flat=True)
    for number, corporation_id in enumerate(ids):
        update_corporation.apply_async(
            args=[corporation_id],
            priority=7,
            countdown=number * seconds / len(ids),
        )


@shared_task
def trickle_corporations(corporation_ids, seconds):
    first, *rest = corporation_ids
    if rest:
        trickle_corporations.apply_async(args=[rest, seconds], priority=7, countdown=seconds)
    update_corporation.apply_async(args=[first], priority=7)


@shared_task(rate_limit="4/s")
def update_corporation_history(character_id):
    # Your manager asks ESI here.
    logger.info("Updated corporation history of character %d", character_id)
