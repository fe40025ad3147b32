from django_celery_beat.models import PeriodicTask

PeriodicTask.objects.filter(name="periodic_tasks_remind_users_without_main").delete()
