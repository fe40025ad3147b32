from celery import chain

from retries.stand_in import Server
from retries.tasks import report_end, update_titles

esi = Server(502, 200)
chain(update_titles.si(98000001, esi.url), report_end.si(98000001)).delay()
