from celery import current_app

for reply in current_app.control.rate_limit("smoothing.tasks.update_corporation_history", "60/m", reply=True):
    print(reply)
