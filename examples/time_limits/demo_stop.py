from django.core.cache import cache

from time_limits.tasks import STOP

cache.set(STOP, True, timeout=None)
