import time
from contextlib import suppress
from uuid import uuid4

from django.core.cache import cache

DAY = 24 * 60 * 60


def begin(total):
    """Note that `total` tasks are about to be started, and return the name under which they count."""
    job = f"how_full:job:{uuid4()}"
    cache.set_many({f"{job}:total": total, f"{job}:done": 0, f"{job}:at": time.time()}, timeout=DAY)
    return job


def step(job):
    """Count one task more; what was noted may be gone by now."""
    with suppress(ValueError):
        cache.incr(f"{job}:done")
        cache.set(f"{job}:at", time.time(), timeout=DAY)


def progress(job):
    """Return how many tasks have ended, of how many, and for how many seconds none has; None if nothing is noted."""
    keys = [f"{job}:{name}" for name in ("done", "total", "at")]
    found = cache.get_many(keys)
    if len(found) < len(keys):
        return None
    done, total, at = (found[key] for key in keys)
    return {"done": done, "total": total, "quiet": round(time.time() - at)}
