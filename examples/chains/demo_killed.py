from celery import chain

from chains.tasks import report_end, update_corporation

chain(update_corporation.si(98000001, pages=20), report_end.si()).delay()
