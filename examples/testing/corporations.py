from allianceauth.eveonline.models import EveCorporationInfo
from django.db import transaction

from testing.tasks import count_members


def add(corporation_id):
    with transaction.atomic():
        _create(corporation_id)
        count_members.delay_on_commit(corporation_id)


def add_too_early(corporation_id):
    with transaction.atomic():
        _create(corporation_id)
        count_members.delay(corporation_id)


def _create(corporation_id):
    EveCorporationInfo.objects.create(
        corporation_id=corporation_id,
        corporation_name=f"Corporation {corporation_id}",
        corporation_ticker=corporation_id,
        member_count=1,
    )
