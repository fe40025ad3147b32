from celery import chain

from queue_once.tasks import update_corporation

link = update_corporation.si(98000001)
chain(link, link).delay()
