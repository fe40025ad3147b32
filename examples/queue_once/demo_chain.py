from celery import chain

from queue_once.tasks import update_corporation

update_corporation.apply_async([98000002], countdown=1)
chain(update_corporation.si(number) for number in (98000001, 98000002, 98000003)).delay()
