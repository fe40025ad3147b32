from celery import current_app

current_app.send_task("first_task.tasks.count_pilots", args=[98000001])
