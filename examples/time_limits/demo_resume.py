from celery import current_app

current_app.control.add_consumer("celery", destination=["celery@worker_00"])
