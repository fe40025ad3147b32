from celery import chain

from chains.tasks import report_end, update_corporation

chain(update_corporation.si(98000001), report_end.si()).delay()
