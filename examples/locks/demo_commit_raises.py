from functools import partial

from celery_once import AlreadyQueued
from django.db import transaction

from locks.tasks import update_corporation, update_structures

update_structures.apply_async([98000001], countdown=1)
try:
    with transaction.atomic():
        transaction.on_commit(partial(update_structures.delay, 98000001))
        transaction.on_commit(partial(update_corporation.delay, 98000001))
except AlreadyQueued:
    print("AlreadyQueued, after the commit")
