from celery import chain

from queue_once.tasks import update_corporation

chain(update_corporation.si(98000001), update_corporation.si(98000001)).delay()
