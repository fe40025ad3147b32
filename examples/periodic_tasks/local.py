from celery.schedules import crontab

CELERYBEAT_SCHEDULE["periodic_tasks_remind_users_without_main"] = {
    "task": "periodic_tasks.tasks.remind_users_without_main",
    "schedule": crontab(hour=11, minute=15),
}

CELERYBEAT_SCHEDULE["periodic_tasks_update_market_orders"] = {
    "task": "periodic_tasks.tasks.update_market_orders",
    "schedule": crontab(minute="20,50"),
    "kwargs": {"region": "The Forge"},
    "options": {"priority": 7, "expire_seconds": 1800},
}
