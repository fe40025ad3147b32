from celery import current_app

current_app.control.cancel_consumer("celery")
