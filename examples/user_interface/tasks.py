from allianceauth.eveonline.models import EveCharacter, EveCorporationInfo
from allianceauth.notifications import notify
from allianceauth.services.hooks import get_extension_logger
from celery import shared_task
from celery.contrib.django.task import DjangoTask
from django.contrib.auth.models import User

logger = get_extension_logger(__name__)
REASON = "An admin finds the reason in the log."


@shared_task
def audit_members(corporation_id, user_pk):
    user = User.objects.get(pk=user_pk)
    try:
        corporation = EveCorporationInfo.objects.get(corporation_id=corporation_id)
        known = EveCharacter.objects.filter(corporation_id=corporation_id).count()
    except Exception:
        logger.warning("The audit of corporation %d failed", corporation_id)
        notify.danger(user, f"Audit of corporation {corporation_id} failed", REASON)
        raise
    members = corporation.member_count
    logger.info("Auth knows %d of %d members", known, members)
    notify.success(user, f"Audit of {corporation}: {known} of {members} members are in Auth")


class TellsOfFailure(DjangoTask):
    """Tells the user named in `user_pk` of a failure, after the last retry."""

    def on_failure(self, exc, task_id, args, kwargs, einfo):
        user = User.objects.get(pk=kwargs["user_pk"])
        notify.danger(user, "Audit of your new corporation failed", REASON)


@shared_task(
    base=TellsOfFailure,
    autoretry_for=(EveCorporationInfo.DoesNotExist,),
    max_retries=2,
    default_retry_delay=1,
)
def audit_new_corporation(corporation_id, *, user_pk):
    corporation = EveCorporationInfo.objects.get(corporation_id=corporation_id)
    result = f"{corporation} has {corporation.member_count} members"
    logger.info(result)
    notify.success(User.objects.get(pk=user_pk), result)
