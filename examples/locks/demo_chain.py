from celery import chain
from django.core.cache import cache

from locks.tasks import update_or_skip

# As if another task were updating this corporation.
cache.set("locks_98000002", "another", timeout=20)
chain(update_or_skip.si(number) for number in (98000001, 98000002, 98000003)).delay()
