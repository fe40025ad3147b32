from celery import chain

from priorities.tasks import update_members

links = [update_members.si(corporation_id).set(priority=2) for corporation_id in (98000001, 98000002, 98000003)]
chain(links).apply_async(priority=7)
