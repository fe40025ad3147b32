import time

from allianceauth.eveonline.models import EveCorporationInfo
from allianceauth.services.hooks import get_extension_logger
from celery import shared_task
from django.db import OperationalError, connection, transaction

logger = get_extension_logger(__name__)


def ask_esi(corporation_id, pages):
    time.sleep(pages)
    return corporation_id % 1000


@shared_task
def count_members(corporation_id, pages):
    corporation = EveCorporationInfo.objects.get(corporation_id=corporation_id)
    corporation.member_count = ask_esi(corporation_id, pages)
    corporation.save()
    logger.info("%s has %d members", corporation, corporation.member_count)


@shared_task
def count_members_apart(corporation_id, pages):
    corporation = EveCorporationInfo.objects.get(corporation_id=corporation_id)
    connection.close()
    corporation.member_count = ask_esi(corporation_id, pages)
    corporation.save()
    logger.info("%s has %d members", corporation, corporation.member_count)


@shared_task(autoretry_for=(OperationalError,), retry_backoff=True, max_retries=10)
def count_members_again(corporation_id, pages):
    count_members(corporation_id, pages)


def locked(corporation_id):
    return EveCorporationInfo.objects.select_for_update().get(corporation_id=corporation_id)


@shared_task
def move_members(source_id, target_id, count):
    with transaction.atomic():
        source = locked(source_id)
        target = locked(target_id)
        source.member_count -= count
        target.member_count += count
        source.save()
        target.save()


@shared_task
def move_members_in_order(source_id, target_id, count):
    with transaction.atomic():
        both = {one: locked(one) for one in sorted([source_id, target_id])}
        both[source_id].member_count -= count
        both[target_id].member_count += count
        both[source_id].save()
        both[target_id].save()


@shared_task(autoretry_for=(OperationalError,), retry_backoff=True, max_retries=10)
def move_members_again(source_id, target_id, count):
    move_members(source_id, target_id, count)
