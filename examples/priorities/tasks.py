import time

from allianceauth.services.hooks import get_extension_logger
from celery import shared_task

logger = get_extension_logger(__name__)


@shared_task
def update_structure(structure_id, with_fittings=False):
    logger.info("Updated structure %d, with fittings: %s", structure_id, with_fittings)


@shared_task
def report_attack(structure_id):
    logger.warning("Structure %d is under attack", structure_id)


@shared_task(name="discord.announce_attack")
def announce_attack(structure_id):
    logger.info("Announced the attack on structure %d", structure_id)


@shared_task(bind=True, priority=3)
def update_timers(self, structure_id):
    priority = self.request.delivery_info["priority"]
    logger.info("Timers of %d, with priority %s", structure_id, priority)


@shared_task
def update_assets(character_id):
    # Stands for the answers of ESI.
    time.sleep(0.3)
    logger.info("Updated the assets of %d", character_id)


@shared_task(acks_late=True)
def update_assets_acks_late(character_id):
    update_assets(character_id)


@shared_task
def follow_fleet(fleet_id, rounds):
    # The next round is sent before this one is done, so there is always one waiting.
    if rounds > 1:
        follow_fleet.apply_async(args=[fleet_id, rounds - 1], priority=1)
    time.sleep(0.05)
    logger.info("Fleet %d, %d rounds to go", fleet_id, rounds - 1)


@shared_task(bind=True)
def update_members(self, corporation_id):
    priority = self.request.delivery_info["priority"]
    logger.info("Members of %d, with priority %s", corporation_id, priority)


@shared_task(bind=True)
def update_alliance(self, corporation_ids):
    priority = self.request.delivery_info["priority"]
    logger.info("Update of %d corporations, with priority %s", len(corporation_ids), priority)
    for corporation_id in corporation_ids:
        update_members.delay(corporation_id)


@shared_task(bind=True)
def update_alliance_as_called(self, corporation_ids):
    priority = self.request.delivery_info["priority"]
    for corporation_id in corporation_ids:
        update_members.apply_async(args=[corporation_id], priority=priority)


@shared_task(bind=True, autoretry_for=(ConnectionError,), default_retry_delay=0.2)
def update_contracts(self, corporation_id):
    attempt, priority = self.request.retries + 1, self.request.delivery_info["priority"]
    logger.info(
        "Contracts of %d, attempt %d, with priority %d",
        corporation_id,
        attempt,
        priority,
    )
    # Stands for ESI that can't be reached at the first attempt.
    if attempt == 1:
        raise ConnectionError("ESI is down")
