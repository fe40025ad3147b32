from time import sleep

from allianceauth.services.hooks import get_extension_logger
from celery import chain, shared_task

logger = get_extension_logger(__name__)


@shared_task
def update_corporation(corporation_id):
    # Stands for what ESI would be asked for.
    sleep(0.25)
    logger.info("Updated corporation %d", corporation_id)


@shared_task
def update_in_a_loop(corporation_ids):
    for corporation_id in corporation_ids:
        update_corporation.delay(corporation_id)


@shared_task
def update_in_a_chain(corporation_ids):
    links = [update_corporation.si(corporation_id) for corporation_id in corporation_ids]
    chain(links).delay()


@shared_task
def update_wallet(corporation_id):
    if corporation_id < 98_000_000:
        raise ValueError(f"{corporation_id} is no corporation of players")
    logger.info("Updated the wallet of %d", corporation_id)


@shared_task
def fetch_structures(corporation_id):
    # Stands for the answer of ESI.
    return [1035466617946, 1038457641673]


@shared_task
def update_structures(structure_ids, corporation_id):
    logger.info("Updated the structures %s of %d", structure_ids, corporation_id)


@shared_task
def report_end():
    logger.info("All are updated")


@shared_task
def note_failure(task_id):
    logger.warning("A link failed")


@shared_task
def note_reason(request, exc, traceback):
    logger.warning("%s failed: %s", request.task, exc)


@shared_task(bind=True, autoretry_for=(ConnectionError,), default_retry_delay=0.5)
def update_contracts(self, corporation_id):
    # Stands for ESI that can't be reached at the first attempt.
    if self.request.retries == 0:
        raise ConnectionError("ESI is down")
    logger.info("Updated the contracts of %d", corporation_id)


@shared_task(bind=True)
def show_options(self, corporation_id):
    priority = self.request.delivery_info["priority"]
    when = "later" if self.request.eta else "at once"
    logger.info("Corporation %d: priority %d, %s", corporation_id, priority, when)
