from contextlib import contextmanager

from django.core.cache import cache


@contextmanager
def exclusive(name, timeout=10 * 60):
    """Hold the lock `name` while the block runs, if nobody else does; say whether you have it."""
    lock = cache.lock(f"locks_{name}", timeout=timeout)
    mine = lock.acquire(blocking=False)
    try:
        yield mine
    finally:
        if mine:
            lock.release()
