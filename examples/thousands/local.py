from celery.schedules import crontab

CELERYBEAT_SCHEDULE["thousands_update_stalest"] = {
    "task": "thousands.tasks.update_stalest",
    "schedule": crontab(minute="*/5"),
    "apply_offset": True,
}
