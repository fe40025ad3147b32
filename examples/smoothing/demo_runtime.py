from celery import current_app

name = "smoothing.tasks.update_corporation_history"
print(current_app.control.rate_limit(name, "60/m", reply=True))
