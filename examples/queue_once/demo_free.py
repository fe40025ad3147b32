from django.core.cache import cache

from queue_once.tasks import update_corporation

cache.delete(update_corporation.get_key([98000001]))
