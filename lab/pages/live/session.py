"""A session whose worker can be ended, replaced, and given new definitions of its tasks."""

import contextlib
import os
import signal
import time
from typing import Any

import psutil
from celery.worker.control import control_command

from lab.errors import LabError
from lab.pages.live.nursery import Nursery
from lab.pages.live.redefine import defined, replace_tasks
from lab.pages.session import Session
from lab.processes import lives
from lab.queues import queue_keys
from lab.stage import Stages
from lab.waiting import wait_until

_START = 60.0
# So long after the last event a task that nobody has received never will be: its message was thrown away.
_LOST = 3.0
# After so long without an event a reader wants to know what is waited for. The examples' own tasks take two seconds.
_QUIET = 4.0


class LiveSession(Session):
    """A session whose worker can be replaced. Its log may be read by another thread."""

    def __init__(self, stages: Stages) -> None:
        """Take the stage; start the nursery."""
        from myauth.celery import app

        self._app = app
        super().__init__(stages)
        self.worker = psutil.Process(self.stage.workers[0].pid)
        self._nursery = Nursery(stages, self.stage)
        self._defined: dict[tuple[str, tuple[str, ...]], str] = {}
        self._events = 0
        self._moved = 0.0

    def begin(self) -> None:
        """Lay everything out for the next cell."""
        # Else the other thread could take a line of the last cell for one of this.
        with self.log.lock:
            super().begin()
        self._events, self._moved = 0, time.monotonic()

    def worker_alive(self) -> bool:
        """Whether the worker runs."""
        return lives(self.worker)

    def define(self, module: str, source: str) -> None:
        """Replace tasks of `module` by those in `source`, here and in the worker."""
        module = module.strip()
        replace_tasks(self._app, module, source)
        key = module, defined(source)
        # The latest stands last, as a new worker gets them in this order.
        self._defined.pop(key, None)
        self._defined[key] = source
        self._hand_over(module, source)

    def _hand_over(self, module: str, source: str) -> None:
        replies = self._app.control.broadcast(
            "redefine", {"module": module, "source": source}, reply=True, timeout=60, limit=1
        )
        for reply in (replies or [{"worker": {"error": "no answer"}}])[0].values():
            if "error" in reply:
                raise LabError(f"the worker did not take the new {module}: {reply['error']}")

    def replace_worker(self) -> None:
        """End the worker, drop all that waits, start a new worker with the definitions made so far."""
        with contextlib.suppress(ProcessLookupError):
            # Once it has ended, its number may be another's.
            if self.worker_alive():
                os.killpg(self.worker.pid, signal.SIGKILL)
        # The broker is this kernel's own.
        self.stage.redis.delete(*queue_keys(self.stage.redis), "unacked", "unacked_index", "unacked_mutex")
        self.worker = psutil.Process(self._nursery.worker())

        def answers() -> bool:
            if not self.worker_alive():
                raise LabError("the new worker ended at once: reload the page")
            return bool(self._app.control.ping(timeout=0.2, limit=1))

        wait_until(answers, _START, "the new worker's first answer")
        for (module, _), source in self._defined.items():
            self._hand_over(module, source)

    def running(self) -> bool:
        """Whether something that was sent has not ended."""
        recorder, idle = self.stage.recorder, self.stage.idle()
        # Only now, as in Stage.quiet.
        recorder.pump(0.01)
        if len(recorder.events) != self._events:
            self._events, self._moved = len(recorder.events), time.monotonic()
        if not idle:
            return True
        left = self.left()
        lost = all(task.state == "sent" for task in left) and time.monotonic() - self._moved > _LOST
        return bool(left) and not lost

    def waits_for(self) -> int:
        """Return how many tasks have not ended, where nothing has happened for some seconds; else 0."""
        return len(self.left()) if time.monotonic() - self._moved > _QUIET else 0


@control_command(args=[("module", str), ("source", str)])  # type: ignore[untyped-decorator, unused-ignore]
def redefine(state: Any, module: str, source: str) -> dict[str, str]:
    """Worker command: take over new definitions of a module's tasks."""
    replace_tasks(state.app, module, source)
    state.consumer.update_strategies()
    return {"ok": module}
