from django.urls import path

from . import views

app_name = "how_full"

urlpatterns = [
    path("", views.index, name="index"),
    path("start/", views.start, name="start"),
    path("queue/", views.queue, name="queue"),
]
