from thousands.models import Member
from thousands.tasks import update_stalest

Member.objects.bulk_create(
    [Member(character_id=90000001 + number) for number in range(24)],
    ignore_conflicts=True,
)
update_stalest.delay()
