from celery import current_app

name = "smoothing.tasks.update_corporation_history"
for reply in current_app.control.rate_limit(name, "60/m", reply=True):
    print(reply)
