from celery_once import AlreadyQueued

from queue_once.tasks import update_corporation

update_corporation.apply_async([98000001], once={"timeout": 600})
try:
    update_corporation.apply_async([98000001], once={"graceful": False})
except AlreadyQueued as error:
    print("AlreadyQueued: the lock ends in", round(error.countdown / 60), "minutes at the latest")
