from celery import chain
from django.core.cache import cache

from locks.tasks import update_or_skip

# As if another task were updating this corporation.
cache.lock("locks_98000002", timeout=20).acquire()
chain(update_or_skip.si(number) for number in (98000001, 98000002, 98000003)).delay()
