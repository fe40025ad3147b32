from celery.schedules import crontab

CELERYBEAT_SCHEDULE["smoothing_update_subset"] = {
    "task": "smoothing.tasks.update_subset",
    "schedule": crontab(minute="*/6"),
    "apply_offset": True,
}
CELERYBEAT_SCHEDULE["smoothing_scatter_corporations"] = {
    "task": "smoothing.tasks.scatter_corporations",
    "schedule": crontab(minute=28),
}
