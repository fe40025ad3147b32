"""Celery's own worker on a stack: its threads pool, its loop, its consumer."""

import threading
from typing import Any

from celery.utils import timer2

# As supervisor.conf starts it.
_CONCURRENCY = 5


class Timer(timer2.Timer):  # type: ignore[misc]
    """Celery's timer thread, woken by a new entry, as every message wakes the event loop of a worker on Redis."""

    def _next_entry(self) -> None:
        with self.not_empty:
            delay, entry = next(self.scheduler)
            if entry is None:
                self.not_empty.wait(1.0 if delay is None else delay)
                return
        self.schedule.apply_entry(entry)


def start(app: Any) -> Any:
    """Start a worker, wait until it consumes, and return it."""
    from celery.signals import worker_ready

    ready = threading.Event()
    made: list[Any] = []

    def told(**_: Any) -> None:
        ready.set()

    def work() -> None:
        # Nobody is there to gossip with.
        alone = dict.fromkeys(("without_gossip", "without_mingle", "without_heartbeat"), True)
        name = "celery@worker_00"
        made.append(
            app.Worker(pool="threads", concurrency=_CONCURRENCY, hostname=name, timer_cls=Timer, quiet=True, **alone)
        )
        made[0].start()

    worker_ready.connect(told)
    threading.Thread(target=work, name="worker", daemon=True).start()
    if not ready.wait(60):
        raise RuntimeError("the worker did not start")
    worker_ready.disconnect(told)
    return made[0]
