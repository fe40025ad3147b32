from celery import current_app

from queue_once.tasks import update_corporation

update_corporation.delay(98000001)
current_app.send_task("queue_once.update_corporation", [98000001])
