from celery import chain

from chains.tasks import fetch_structures, update_structures

chain(fetch_structures.s(98000001), update_structures.s(98000001)).delay()
