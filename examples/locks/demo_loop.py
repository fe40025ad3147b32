from celery_once import AlreadyQueued

from locks.tasks import update_structures

update_structures.apply_async([98000002], countdown=1)
try:
    for corporation_id in (98000001, 98000002, 98000003):
        update_structures.delay(corporation_id)
        print(corporation_id, "started")
except AlreadyQueued:
    print("AlreadyQueued: the loop ends")
