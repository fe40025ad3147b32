from allianceauth.eveonline.models import EveCharacter, EveCorporationInfo
from allianceauth.services.hooks import get_extension_logger
from allianceauth.services.tasks import QueueOnce
from celery import shared_task

logger = get_extension_logger(__name__)


@shared_task
def count_members(corporation_id):
    corporation = EveCorporationInfo.objects.get(corporation_id=corporation_id)
    corporation.member_count = EveCharacter.objects.filter(corporation_id=corporation_id).count()
    corporation.save()
    logger.info("%s has %d members", corporation, corporation.member_count)
    return corporation.member_count


@shared_task(bind=True, max_retries=2)
def find_ceo(self, corporation_id):
    logger.info("Attempt %d", self.request.retries + 1)
    try:
        return EveCorporationInfo.objects.get(corporation_id=corporation_id).ceo_id
    except EveCorporationInfo.DoesNotExist as error:
        raise self.retry(countdown=60, exc=error) from error


@shared_task(base=QueueOnce)
def update_standings(corporation_id):
    logger.info("Standings of corporation %s updated", corporation_id)


@shared_task
def note(value):
    logger.info("%r arrived", value)
    return value


@shared_task(bind=True)
def tell(self):
    logger.info("eager: %s", self.request.is_eager)
