from allianceauth.eveonline.models import EveCharacter
from allianceauth.services.hooks import get_extension_logger
from allianceauth.services.tasks import QueueOnce
from celery import shared_task
from django.core.cache import cache
from django.db import transaction

from .models import Loss, Payment, Wallet

logger = get_extension_logger(__name__)


def withdraw(loss):
    loss.withdraw()
    logger.info("Paid for loss %d", loss.killmail_id)


@shared_task
def pay(killmail_id):
    unpaid = Loss.objects.filter(killmail_id=killmail_id, paid=False)
    with transaction.atomic():
        if unpaid.update(paid=True):
            withdraw(Loss.objects.get(killmail_id=killmail_id))


@shared_task
def pay_locked(killmail_id):
    with transaction.atomic():
        loss = Loss.objects.select_for_update().get(killmail_id=killmail_id)
        if not loss.paid:
            withdraw(loss)
            loss.paid = True
            loss.save()


@shared_task
def pay_recorded(killmail_id):
    loss = Loss.objects.get(killmail_id=killmail_id)
    with transaction.atomic():
        _, created = Payment.objects.get_or_create(killmail_id=killmail_id)
        if created:
            withdraw(loss)


@shared_task
def update_wallet(corporation_id, balance):
    Wallet.objects.update_or_create(corporation_id=corporation_id, defaults={"balance": balance})


@shared_task
def store_losses(corporation_id, values):
    losses = [
        Loss(killmail_id=killmail_id, corporation_id=corporation_id, value=value) for killmail_id, value in values
    ]
    Loss.objects.bulk_create(losses, ignore_conflicts=True)


@shared_task(bind=True)
def announce(self, killmail_id):
    mark = f"ran_twice-announce-{self.request.id}-{self.request.retries}"
    if cache.add(mark, 1, timeout=24 * 60 * 60):
        loss = Loss.objects.get(killmail_id=killmail_id)
        # Your request to Discord stands here.
        logger.info("Announced loss %d", loss.killmail_id)


@shared_task(autoretry_for=(EveCharacter.DoesNotExist,), max_retries=1, default_retry_delay=1)
def pay_and_tell(killmail_id, character_id):
    with transaction.atomic():
        withdraw(Loss.objects.get(killmail_id=killmail_id))
        pilot = EveCharacter.objects.get(character_id=character_id)
    logger.info("Told %s of loss %d", pilot, killmail_id)


# What goes wrong, and what a worker holds.


@shared_task
def pay_carelessly(killmail_id):
    withdraw(Loss.objects.get(killmail_id=killmail_id))


@shared_task
def pay_if_unpaid(killmail_id):
    loss = Loss.objects.get(killmail_id=killmail_id)
    if not loss.paid:
        logger.info("Loss %d is not paid yet", killmail_id)
        withdraw(loss)
        loss.paid = True
        loss.save()


@shared_task(autoretry_for=(EveCharacter.DoesNotExist,), max_retries=1, default_retry_delay=1)
def pay_and_tell_carelessly(killmail_id, character_id):
    withdraw(Loss.objects.get(killmail_id=killmail_id))
    pilot = EveCharacter.objects.get(character_id=character_id)
    logger.info("Told %s of loss %d", pilot, killmail_id)


@shared_task
def update_structures(alliance_id):
    # Stands for what lasts for hours.
    logger.info("Updated the structures of alliance %d", alliance_id)


@shared_task(rate_limit="4/h")
def update_history(character_id):
    logger.info("Updated the history of character %d", character_id)


@shared_task(bind=True)
def update_contracts(self, corporation_id):
    # Stands for an answer of ESI that it is down.
    raise self.retry(countdown=2 * 60 * 60)


@shared_task(base=QueueOnce)
def update_orders(region_id):
    logger.info("Updated the orders in region %d", region_id)


@shared_task(acks_late=True)
def update_assets(character_id):
    logger.info("Updated the assets of character %d", character_id)


def why(request):
    """Tell what runs of the same cause have in common."""
    return (
        f"id {request.id}, retry {request.retries}, redelivered {request.delivery_info['redelivered']}, "
        f"sent by {request.origin}, in task {request.parent_id}, for entry {request.get('periodic_task_name')}"
    )


@shared_task(bind=True, autoretry_for=(Loss.DoesNotExist,), max_retries=1, default_retry_delay=1)
def update_loss(self, killmail_id):
    logger.info("Loss %d: %s", killmail_id, why(self.request))
    loss = Loss.objects.get(killmail_id=killmail_id)
    logger.info("Updated loss %d", loss.killmail_id)


@shared_task
def update_losses(killmail_ids):
    for killmail_id in killmail_ids:
        update_loss.delay(killmail_id)
