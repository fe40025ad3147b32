from allianceauth.eveonline.models import EveCorporationInfo
from django.contrib.auth.decorators import user_passes_test
from django.http import JsonResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_POST

from .progress import begin, progress
from .state import state
from .tasks import import_assets


@user_passes_test(lambda user: user.is_superuser)
def queue(request):
    return JsonResponse(state())


@require_POST
def start(request):
    corporations = EveCorporationInfo.objects.values_list("corporation_id", flat=True)
    job = request.session["how_full"] = begin(len(corporations))
    for corporation_id in corporations:
        import_assets.delay_on_commit(corporation_id, job)
    return redirect("how_full:index")


def index(request):
    found = progress(request.session.get("how_full"))
    response = render(request, "how_full/index.html", {"progress": found})
    if found and found["done"] < found["total"]:
        # The browser asks again after two seconds.
        response.headers["Refresh"] = "2"
    return response
