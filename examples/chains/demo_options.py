from celery import chain

from chains.tasks import show_options

links = [show_options.si(number) for number in range(98000001, 98000004)]
chain(links).apply_async(priority=7, countdown=0.5)
