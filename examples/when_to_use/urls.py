from django.urls import path

from . import views

app_name = "when_to_use"

urlpatterns = [
    path("<int:corporation_id>/inline/", views.update_inline, name="update_inline"),
    path("<int:corporation_id>/by-task/", views.update_by_task, name="update_by_task"),
]
