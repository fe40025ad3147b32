from django.urls import path

from . import views

app_name = "user_interface"

urlpatterns = [
    path("", views.index, name="index"),
    path("audit/<int:corporation_id>/", views.start_audit, name="start_audit"),
]
