from allianceauth.crontab.utils import offset_cron
from celery.schedules import crontab

hourly = offset_cron(crontab(minute=0))
half_hourly = offset_cron(crontab(minute="*/30"))
four_hourly = offset_cron(crontab(minute=0, hour="*/4"))
weekly = offset_cron(crontab(minute=50, hour=22, day_of_week="mon"))
monthly = offset_cron(crontab(minute=50, hour=22, day_of_month=1, month_of_year="*/3"))
print(hourly, half_hourly, four_hourly, weekly, monthly, sep="\n")
