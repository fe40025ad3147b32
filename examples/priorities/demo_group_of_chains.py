from celery import chain, group

from priorities.tasks import update_members

first = chain(update_members.si(98000001), update_members.si(98000002))
second = chain(update_members.si(98000003), update_members.si(98000004))
group(first, second).apply_async(priority=7)
