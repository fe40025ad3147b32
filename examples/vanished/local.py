from celery.schedules import crontab

CELERYBEAT_SCHEDULE["vanished_write_missing_reports"] = {
    "task": "vanished.tasks.write_missing_reports",
    "schedule": crontab(minute="*/15"),
    "apply_offset": True,
}
