from django.http import HttpResponse
from django.views.decorators.http import require_POST

from .tasks import update_members


@require_POST
def update_inline(request, corporation_id):
    update_members(corporation_id)
    return HttpResponse("The corporation is updated.")


@require_POST
def update_by_task(request, corporation_id):
    update_members.delay(corporation_id)
    return HttpResponse("The update is on its way.")
