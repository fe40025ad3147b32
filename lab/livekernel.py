"""The kernel behind live pages: what it runs streams, can be stopped, and survives the end of its worker.

Beside Jupyter's own messages a page gets `display_data` of four kinds: `LOG`, lines of the worker as they come; `WAIT`,
how many tasks have not ended where nothing happens any more; `RUN`, when a cell and all that it sent has ended, its
lines in order and a timeline of its tasks; `BROKER`, what the broker holds, whenever that changes.
"""

import contextlib
import json
import os
import signal
import sys
import threading
import time
from typing import Any

import psutil
import redis
from kombu.exceptions import OperationalError
from redis.backoff import NoBackoff
from redis.retry import Retry

from lab import figure, project, run, worker_log
from lab.events import TaskRun
from lab.kernel import NAME, Session, serve
from lab.nursery import Nursery
from lab.processes import lives
from lab.stage import Stage, Stages, StageSpec, queue_keys

LOG = "application/vnd.celery-faq.log+json"
WAIT = "application/vnd.celery-faq.wait+json"
RUN = "application/vnd.celery-faq.run+json"
BROKER = "application/vnd.celery-faq.broker+json"
_TICK = 0.03
_LOOK = 0.25
_START = 60.0
# So long after the last event a task that nobody has received never will be: its message was thrown away.
_LOST = 3.0
# After so long without an event a reader wants to know what is waited for. The examples' own tasks take two seconds.
_QUIET = 4.0
# A timeline of more tasks could not be read.
_DRAWN = 30


class Live(Session):
    """A session whose worker can be replaced."""

    def __init__(self, standing: run.Run, stages: Stages, stage: Stage) -> None:
        """Stand on `stage`; start the nursery."""
        super().__init__(standing, stage)
        self.worker = psutil.Process(stage.workers[0].pid)
        self._nursery = Nursery(stages, stage)
        self._defined: dict[tuple[str, tuple[str, ...]], str] = {}
        self._seen = (0, 0.0)

    def begin(self) -> None:
        """Lay everything out for the next cell."""
        super().begin()
        self._seen = (0, time.monotonic())

    def worker_alive(self) -> bool:
        """Whether the worker runs."""
        return lives(self.worker)

    def define(self, module: str, source: str) -> None:
        """Replace tasks of `module` by those in `source`, here and in the worker."""
        from myauth.celery import app

        worker_log.replace_tasks(app, module, source)
        key = module, worker_log.defined(source)
        # The latest stands last, as a new worker gets them in this order.
        self._defined.pop(key, None)
        self._defined[key] = source
        self._tell(module, source)

    def _tell(self, module: str, source: str) -> None:
        from myauth.celery import app

        replies = app.control.broadcast(
            "redefine", {"module": module, "source": source}, reply=True, timeout=60, limit=1
        )
        for reply in (replies or [{"worker": {"error": "no answer"}}])[0].values():
            if "error" in reply:
                raise RuntimeError(f"the worker did not take the new {module}: {reply['error']}")

    def replace_worker(self) -> None:
        """End the worker, drop all that waits, start a new worker with the definitions made so far."""
        from myauth.celery import app

        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.worker.pid, signal.SIGKILL)
        # The broker is this kernel's own.
        self.stage.redis.delete(*queue_keys(self.stage.redis), "unacked", "unacked_index", "unacked_mutex")
        self.worker = psutil.Process(self._nursery.worker())
        until = time.monotonic() + _START
        while not app.control.ping(timeout=0.2, limit=1):
            if time.monotonic() > until or not self.worker_alive():
                raise RuntimeError("the new worker did not start: reload the page")
        for (module, _), source in self._defined.items():
            self._tell(module, source)

    def running(self) -> bool:
        """Whether something that was sent has not ended."""
        recorder = self.stage.recorder
        recorder.pump(0.01)
        if len(recorder.events) != self._seen[0]:
            self._seen = len(recorder.events), time.monotonic()
        if not self.stage.idle():
            return True
        left = [task for task in recorder.runs() if not task.over]
        lost = all(task.state == "sent" for task in left) and time.monotonic() - self._seen[1] > _LOST
        return bool(left) and not lost

    def waits_for(self) -> int:
        """Return how many tasks have not ended, where nothing has happened for some seconds; else 0."""
        if time.monotonic() - self._seen[1] < _QUIET:
            return 0
        return sum(not task.over for task in self.stage.recorder.runs())

    def lines(self) -> list[dict[str, Any]]:
        """Return the worker's log records since the last call."""
        return self._log.read()


def held(client: redis.Redis) -> dict[str, Any]:
    """Return what the broker's database holds: messages per priority, taken, scheduled, QueueOnce's locks."""
    waiting: dict[str, int] = {}
    for key in queue_keys(client):
        name, _, priority = key.partition("\x06\x16")
        if name == "celery":
            waiting[priority or "0"] = int(client.llen(key))
    taken = scheduled = 0
    for raw in client.hvals("unacked"):
        if json.loads(raw)[0].get("headers", {}).get("eta"):
            scheduled += 1
        else:
            taken += 1
    locks = sorted(key.decode().split(":", 2)[2] for key in client.scan_iter(match=":1:qo_*"))
    return {"waiting": waiting, "taken": taken, "scheduled": scheduled, "locks": locks}


def timeline(runs: list[TaskRun], name: str, seconds: float) -> str:
    """Return the figure of what waited and what ran when; empty where no task was seen to start."""
    ran = [task for task in runs if task.started is not None]
    if not ran:
        return ""
    bars = []
    for number, task in enumerate(ran[:_DRAWN], 1):
        label = f"{number} {task.name.rpartition('.')[2]}{task.args}"
        sent, started = task.sent or 0.0, task.started or 0.0
        received = min(task.received or started, started)
        bars.append(figure.Bar("in the queue", label, sent, received, "wait"))
        bars.append(figure.Bar("held by the worker", label, received, started, "three"))
        bars.append(figure.Bar("runs in a thread", label, started, task.ended or seconds))
    bars.sort(key=lambda bar: ("in the queue", "held by the worker", "runs in a thread").index(bar.group))
    part = f"The first {_DRAWN} of {len(ran)} tasks" if len(ran) > _DRAWN else f"{len(ran)} task{'s' * (len(ran) > 1)}"
    return figure.timeline(bars).markup(name, f"{part} of your run: where each was, and when. The table has the names.")


def _kernel_class(live: Live) -> type[Any]:
    # Imported late: ipykernel starts threads, and worker and nursery are forked before there are any.
    from ipykernel.ipkernel import IPythonKernel

    class LiveKernel(IPythonKernel):  # type: ignore[misc, unused-ignore]
        """IPython's kernel with a live session around each cell."""

        implementation = NAME
        _parent: dict[str, Any] | None = None
        _shown: list[dict[str, Any]] = []  # noqa: RUF012
        _count = 0

        def publish(self, kind: str, data: object) -> None:
            """Send the page something of ours; from any thread."""
            content = {"data": {kind: data}, "metadata": {}, "transient": {}}
            self.session.send(self.iopub_socket, "display_data", content, parent=self._parent)

        def take_tasks(self, module: str, source: str) -> None:
            """Cell magic: replace the module's tasks by those in the cell: `%%tasks chains.tasks`."""
            live.define(module.strip(), source)

        def watch(self) -> None:
            """Send log lines and the broker's state as they come, for as long as the process lives."""
            # Without a retry: that the broker is gone is told at once, not after redis-py's four seconds.
            client = redis.Redis.from_url(live.stage.url, retry=Retry(NoBackoff(), 0))
            last: object = None
            look = 0.0
            while True:
                time.sleep(_TICK)
                self.stream()
                if time.monotonic() < look:
                    continue
                look = time.monotonic() + _LOOK
                try:
                    now: dict[str, Any] = {"broker": "up", **held(client)}
                except redis.RedisError:
                    now = {"broker": "gone"}
                now["worker"] = "up" if live.worker_alive() else "gone"
                if now != last:
                    last = now
                    self.publish(BROKER, now)

        def stream(self) -> None:
            """Send the worker's new lines."""
            with _lock:
                new = live.lines()
                self._shown.extend(new)
            if new:
                self.publish(LOG, worker_log.lines(new, []))

        async def do_execute(self, code: str, silent: bool, *args: Any, **kwargs: Any) -> dict[str, Any]:
            """Run a cell; see it through to the end of all that it sent."""
            self._parent = self.get_parent()
            began = time.monotonic()
            try:
                reply, stopped = await self._through(code, silent, *args, **kwargs)
            except (redis.RedisError, OperationalError, OSError):
                reply, stopped = self._problem({}, "BrokerGone", "the broker ended; Run starts it anew"), False
            except RuntimeError as error:
                reply, stopped = self._problem({}, "WorkerGone", str(error)), False
            # What the cell printed comes before the message that ends it.
            sys.stdout.flush()
            sys.stderr.flush()
            self.stream()
            seconds = time.monotonic() - began
            runs = live.stage.recorder.runs()
            with _lock:
                lines = worker_log.report(self._shown, runs)
            self._count += 1
            drawn = timeline(runs, f"live-{self._count}", seconds)
            self.publish(RUN, {"lines": lines, "figure": drawn, "seconds": round(seconds, 3), "stopped": stopped})
            return reply

        async def _through(self, code: str, silent: bool, *args: Any, **kwargs: Any) -> tuple[dict[str, Any], bool]:
            """Return the cell's reply, and whether it was stopped, when all that it sent has ended."""
            if not live.worker_alive():
                self.publish(LOG, ["The worker had ended; a new one starts."])
                live.replace_worker()
            with _lock:
                live.begin()
                self._shown.clear()
            reply: dict[str, Any] = await super().do_execute(code, silent, *args, **kwargs)
            stopped = reply.get("ename") == "KeyboardInterrupt"
            told = 0
            try:
                while not stopped and live.running():
                    if live.waits_for() != told:
                        told = live.waits_for()
                        self.publish(WAIT, told)
                    if not live.worker_alive():
                        reply = self._problem(reply, "WorkerGone", "the worker ended while tasks were left; run again")
                        break
            except KeyboardInterrupt:
                stopped = True
            if stopped:
                live.replace_worker()
            return reply, stopped

        def _problem(self, reply: dict[str, Any], name: str, text: str) -> dict[str, Any]:
            told = {"ename": name, "evalue": text, "traceback": [text]}
            self.send_response(self.iopub_socket, "error", told)
            return {"execution_count": 0, "user_expressions": {}, "payload": [], **reply, **told, "status": "error"}

    return LiveKernel


_lock = threading.RLock()


def main() -> int:
    """Serve the cells of a live page; start the nursery before any thread."""

    def kernel_class(standing: run.Run, stages: Stages) -> type[Any]:
        return _kernel_class(Live(standing, stages, stages.take(StageSpec())))

    def ready(app: Any) -> None:
        app.shell.register_magic_function(app.kernel.take_tasks, "cell", "tasks")
        threading.Thread(target=app.kernel.watch, daemon=True).start()
        # What the page's first Run would otherwise spend on first imports.
        project.reset_database()

    return serve(kernel_class, ready)


if __name__ == "__main__":
    sys.exit(main())
