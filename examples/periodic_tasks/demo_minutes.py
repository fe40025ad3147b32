from celery.schedules import crontab

careless = crontab(hour=11)
careful = crontab(hour=11, minute=15)
print(len(careless.minute), "runs a day without a minute,", len(careful.minute), "with one")
