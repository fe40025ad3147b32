from celery import chain

from priorities.tasks import update_members

links = [update_members.si(number).set(priority=7) for number in range(98000001, 98000004)]
chain(links).apply_async()
