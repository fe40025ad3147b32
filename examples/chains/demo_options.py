from celery import chain

from chains.tasks import show_options

links = [show_options.si(corporation_id) for corporation_id in (98000001, 98000002, 98000003)]
chain(links).apply_async(priority=7, countdown=0.5)
