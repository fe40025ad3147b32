from celery import chain

from queue_once.tasks import update_corporation

chain(update_corporation.si(number) for number in (98000001, 98000002)).delay()
