from celery import chain

from chains.tasks import show_options

links = [show_options.si(number).set(priority=7) for number in range(98000001, 98000004)]
chain(links).delay()
