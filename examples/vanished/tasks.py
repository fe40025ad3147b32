from allianceauth.services.hooks import get_extension_logger
from allianceauth.services.tasks import QueueOnce
from celery import shared_task
from django.core.cache import cache
from django.db import transaction
from django.utils import timezone

from vanished.models import Report

logger = get_extension_logger(__name__)


@shared_task
def write_report(corporation_id):
    missing = Report.objects.filter(corporation_id=corporation_id, written_at=None)
    with transaction.atomic():
        if missing.update(written_at=timezone.now()):
            logger.info("Report on corporation %s written", corporation_id)


@shared_task
def write_missing_reports():
    for report in Report.overdue():
        write_report.delay(report.corporation_id)


@shared_task
def update_corporation(corporation_id):
    logger.info("Corporation %s updated", corporation_id)


@shared_task(acks_late=True)
def update_wallet(corporation_id):
    logger.info("Wallet of corporation %s updated", corporation_id)


@shared_task(bind=True, acks_late=True)
def update_orders(self, corporation_id):
    attempts = f"vanished-attempts-{self.request.id}"
    cache.add(attempts, 0, timeout=24 * 60 * 60)
    if cache.incr(attempts) > 2:
        logger.error("Orders of corporation %s given up", corporation_id)
        return
    logger.info("Orders of corporation %s updated", corporation_id)


@shared_task(acks_late=True, reject_on_worker_lost=True)
def update_assets(corporation_id):
    logger.info("Assets of corporation %s updated", corporation_id)


@shared_task(retry_on_worker_lost=True, max_retries=2, default_retry_delay=60)
def update_killmails(corporation_id):
    logger.info("Kills of corporation %s updated", corporation_id)


@shared_task(base=QueueOnce)
def update_structures(corporation_id):
    logger.info("Structures of corporation %s updated", corporation_id)
