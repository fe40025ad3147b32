from allianceauth.services.hooks import get_extension_logger
from celery import shared_task

from .models import Roster

logger = get_extension_logger(__name__)


@shared_task
def count_members(corporation_id):
    roster = Roster.objects.get(corporation_id=corporation_id)
    roster.count()
    logger.info("Corporation %d has %d members in Auth", corporation_id, roster.members)
    return roster.members


@shared_task
def count_members_or_tell(corporation_id):
    try:
        count_members(corporation_id)
    except Exception:
        logger.exception("Can't count the members of corporation %d", corporation_id)
        raise


@shared_task
def show_arguments(*given):
    for value in given:
        logger.info("%s: %s", type(value).__name__, value)


# The worker finds tasks of other modules where this one imports them.
from .loggers import compare_loggers
