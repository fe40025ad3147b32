from allianceauth.notifications import notify
from allianceauth.services.hooks import get_extension_logger
from allianceauth.services.tasks import QueueOnce
from celery import shared_task
from django.contrib.auth.models import User

logger = get_extension_logger(__name__)


@shared_task
def remind_users_without_main(title="Please choose a main character"):
    users = User.objects.filter(is_active=True, profile__main_character=None)
    for user in users:
        notify.warning(user, title)
    logger.info("Reminded %d users", len(users))


@shared_task(base=QueueOnce)
def update_market_orders(region):
    logger.info("Updating market orders of %s", region)
