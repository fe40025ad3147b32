from first_task.models import Roster
from first_task.tasks import count_members

Roster.objects.get_or_create(corporation_id=98000001)
count_members.delay(98000001)
