from allianceauth.eveonline.models import EveCorporationInfo
from allianceauth.services.hooks import get_extension_logger
from celery import shared_task
from celery.signals import before_task_publish, task_failure
from django.core.cache import cache
from django.db import transaction

from how_full.progress import step
from how_full.signals import count_failure, note_time

logger = get_extension_logger(__name__)
before_task_publish.connect(note_time)
task_failure.connect(count_failure)


@shared_task
def update_corporation(corporation_id):
    logger.info("Updated %d", corporation_id)


@shared_task(acks_late=True)
def update_structures(corporation_id):
    logger.info("Updated the structures of %d", corporation_id)


@shared_task
def update_wallet(corporation_id):
    # Stands for ESI that answers with an error.
    raise ConnectionError(f"ESI has no wallet of {corporation_id}")


@shared_task(autoretry_for=(ConnectionError,), default_retry_delay=0, max_retries=1)
def update_orders(corporation_id):
    raise ConnectionError(f"ESI has no orders of {corporation_id}")


@shared_task
def import_assets(corporation_id, job):
    try:
        if not corporation_id:
            raise ValueError("no corporation")
        logger.info("Imported the assets of %d", corporation_id)
    finally:
        step(job)


@shared_task
def import_carelessly(corporation_id, job):
    done = cache.get(f"{job}:done")
    logger.info("Imported the assets of %d", corporation_id)
    cache.set(f"{job}:done", done + 1)


@shared_task
def import_members(corporation_id, job):
    with transaction.atomic():
        EveCorporationInfo.objects.filter(corporation_id=corporation_id).update(member_count=1)
        step(job)
        logger.info("Imported one member of %d", corporation_id)
