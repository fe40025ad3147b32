from allianceauth.services.hooks import get_extension_logger
from celery import chain, shared_task
from django.utils import timezone

from thousands.models import Member

logger = get_extension_logger(__name__)


@shared_task
def update_member(character_id):
    # Your manager asks ESI here.
    Member.objects.filter(pk=character_id).update(updated_at=timezone.now())
    logger.info("Updated member %d", character_id)


@shared_task
def update_stalest(parts=12, seconds=3600):
    ids = Member.stalest(parts)
    Member.objects.filter(pk__in=ids).update(asked_at=timezone.now())
    for character_id in ids:
        update_member.apply_async(args=[character_id], priority=7, expires=seconds)


@shared_task
def update_in_a_loop(ids):
    for character_id in ids:
        update_member.apply_async(args=[character_id], priority=7)


@shared_task
def update_in_a_chain(ids):
    chain(update_member.si(one).set(priority=7) for one in ids).delay()


@shared_task
def update_in_chunks(ids, size=50):
    update_member.chunks([(one,) for one in ids], size).apply_async(priority=7)


@shared_task
def update_members(ids):
    for character_id in ids:
        update_member(character_id)


@shared_task
def trickle(ids, seconds):
    first, *rest = ids
    if rest:
        trickle.apply_async(args=[rest, seconds], priority=7, countdown=seconds)
    update_member(first)


@shared_task(rate_limit="83/m")
def update_member_slowly(character_id):
    update_member(character_id)


@shared_task
def report_in_a_list():
    stale = [member for member in list(Member.objects.all()) if member.updated_at is None]
    logger.info("%d members were never updated", len(stale))


@shared_task
def report_one_by_one():
    stale = sum(member.updated_at is None for member in Member.objects.iterator())
    logger.info("%d members were never updated", stale)


@shared_task
def rank_members(rounds):
    # Stands for a calculation in Python.
    return sum(number * number for number in range(rounds))
