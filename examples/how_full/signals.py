import time

from django.core.cache import cache

DAY = 24 * 60 * 60


def note_time(headers, **kwargs):
    headers["sent_at"] = time.time()


def count_failure(sender, **kwargs):
    key = f"how_full:failed:{sender.name}"
    cache.add(key, 0, timeout=DAY)
    cache.incr(key)
