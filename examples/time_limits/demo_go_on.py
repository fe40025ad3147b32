from django.core.cache import cache

from time_limits.tasks import STOP

cache.delete(STOP)
