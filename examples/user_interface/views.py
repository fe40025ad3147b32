from allianceauth.eveonline.models import EveCorporationInfo
from django.contrib import messages
from django.shortcuts import redirect, render
from django.views.decorators.http import require_POST

from .tasks import audit_members


def index(request):
    corporations = EveCorporationInfo.objects.all()
    return render(request, "user_interface/index.html", {"corporations": corporations})


@require_POST
def start_audit(request, corporation_id):
    audit_members.delay_on_commit(corporation_id, request.user.pk)
    messages.info(request, "The audit has started. You will be notified of its result.")
    return redirect("user_interface:index")
