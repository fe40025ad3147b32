from celery_once import AlreadyQueued

from queue_once.tasks import update_corporation

update_corporation.apply_async([98000001], once={"timeout": 7200})
try:
    update_corporation.apply_async([98000001], once={"graceful": False})
except AlreadyQueued as error:
    minutes = round(error.countdown / 60)
    print("AlreadyQueued: the lock ends in", minutes, "minutes at the latest")
