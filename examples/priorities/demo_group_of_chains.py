from celery import chain, group

from priorities.tasks import update_members

first = [update_members.si(number) for number in range(98000001, 98000003)]
second = [update_members.si(number) for number in range(98000011, 98000013)]
group(chain(first), chain(second)).apply_async(priority=7)
