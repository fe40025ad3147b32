"""Celery's own event stream, recorded: what was sent, received, started and how it ended."""

import contextlib
import socket
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

from kombu.messaging import Consumer

from lab.address import for_celery
from lab.errors import TimedOut
from lab.waiting import T, wait_until

_MACHINE = socket.gethostname()
# How long what still runs at the end of a claim may take, in seconds.
_REST = 1.0
_ENDS = {"succeeded", "failed", "rejected", "revoked"}


@dataclass
class TaskRun:
    """One task as the events tell it. Times are seconds since the claim began; None where it did not happen.

    `parent` is the id of the task that sent it, `root` that of the first of them all.
    """

    id: str
    name: str = ""
    args: str = ""
    kwargs: str = ""
    worker: str = ""
    parent: str = ""
    root: str = ""
    sent: float | None = None
    received: float | None = None
    started: float | None = None
    ended: float | None = None
    state: str = "sent"
    exception: str = ""
    retries: list[float] = field(default_factory=list)

    @property
    def over(self) -> bool:
        """Whether the task has ended, in whatever way."""
        return self.state in _ENDS


def runs(events: Iterable[dict[str, Any]], began: float) -> list[TaskRun]:
    """Return every task that `events` tell of, in the order in which they started, then were sent.

    `began` is the time from which a run's times count.
    """
    found: dict[str, TaskRun] = {}
    for event in events:
        if not event["type"].startswith("task-"):
            continue
        run = found.setdefault(event["uuid"], TaskRun(event["uuid"]))
        at = event["timestamp"] - began
        run.name = event.get("name") or run.name
        run.args = event.get("args") or run.args
        run.kwargs = event.get("kwargs") or run.kwargs
        # A task that is retried is sent by itself.
        if event.get("parent_id") != run.id:
            run.parent = event.get("parent_id") or run.parent
        run.root = event.get("root_id") or run.root
        kind = event["type"].removeprefix("task-")
        if kind == "sent":
            run.sent = at if run.sent is None else run.sent
            continue
        node = event["hostname"].partition("@")[2]
        # A worker inside a test is called after the machine, which no evidence names.
        run.worker = "test" if node == _MACHINE else node
        # On a busy machine the first attempt may tell of its retry when the second has ended already.
        if kind != "retried" or run.ended is None:
            run.state = kind
        if kind == "received":
            run.received = at
        elif kind == "started":
            run.started = at if run.started is None else run.started
        elif kind == "retried":
            run.retries.append(at)
        else:
            run.ended = at
            # A prefork pool tells of a start when its child has told it, which may be late. Where Celery has taken a
            # task for one that has succeeded already, there is no such time.
            if run.started is not None:
                run.started = min(run.started, at - (event.get("runtime") or 0))
            run.exception = event.get("exception", "")
    late = float("inf")
    return sorted(found.values(), key=lambda run: (late if run.started is None else run.started, run.sent or 0))


def record(those: list[TaskRun]) -> list[dict[str, Any]]:
    """Return runs for the evidence, in JSON's types: ids as small numbers, without what is empty."""
    numbers: dict[str, int] = {}
    found = []
    for run in those:
        entry = {name: value for name, value in asdict(run).items() if value not in (None, "", [])}
        for name in ("id", "parent", "root"):
            if name in entry:
                entry[name] = numbers.setdefault(entry[name], len(numbers) + 1)
        for name in ("sent", "received", "started", "ended"):
            if name in entry:
                entry[name] = round(entry[name], 4)
        entry["retries"] = [round(at, 4) for at in run.retries]
        found.append(entry)
    return found


class Recorder:
    """Reads the event stream of one broker database, in the caller's own thread.

    `patience` is the part of each deadline that is waited, and `cut_short` whether a wait has ended for that alone.
    """

    patience = 1.0
    cut_short = False

    def __init__(self, app: Any, url: str) -> None:
        """Subscribe to the events of `app` at broker `url`."""
        self.events: list[dict[str, Any]] = []
        self._earlier: set[str] = set()
        self.began = time.time()
        self._app, self._url = app, url
        self._connection: Any = None
        self.listen()

    def listen(self) -> None:
        """Subscribe, at first or anew."""
        self._connection = self._app.connection_for_read(for_celery(self._url))
        channel = self._connection.default_channel
        receiver = self._app.events.Receiver(channel, handlers={"*": self._note})
        # All are on one machine: where a claim changes the time zone, times of the clock stay what they were.
        receiver.event_from_message = partial(receiver.event_from_message, localize=False)
        (self._consumer,) = receiver.get_consumers(partial(Consumer, channel), channel)
        self._consumer.consume()
        # Only now it subscribes.
        self.pump()

    def _note(self, event: dict[str, Any]) -> None:
        if event["type"] != "worker-heartbeat" and event.get("uuid") not in self._earlier:
            self.events.append(event)

    def pump(self, timeout: float = 0.0) -> None:
        """Take in the events that are there; wait up to `timeout` seconds for the first."""
        if not self._connection:
            time.sleep(timeout)
            return
        try:
            self._connection.drain_events(timeout=timeout or 0.001)
            while True:
                self._connection.drain_events(timeout=0.001)
        except TimeoutError:
            return

    def begin(self) -> None:
        """Start a claim: forget what came before, count time from now."""
        self.pump()
        # What is still told of a task of an earlier claim is no part of this one.
        self._earlier |= {event["uuid"] for event in self.events if "uuid" in event}
        self.events.clear()
        self.began = time.time()

    def wait(self, condition: Callable[[], T], timeout: float, what: str) -> T:
        """Wait as `lab.waiting.wait_until` does; each event that comes in is progress."""

        def seen() -> int:
            self.pump()
            return len(self.events)

        try:
            return wait_until(condition, timeout * self.patience, what, progress=seen, pause=lambda: self.pump(0.05))
        except TimedOut as error:
            Recorder.cut_short = self.patience < 1
            seen_runs = (f"{run.name.rpartition('.')[2]}{run.args} {run.state}" for run in self.runs())
            raise TimedOut(f"{error}; seen: {', '.join(seen_runs) or 'no task'}") from None

    def those(
        self, count: int, name: str | None, chosen: Callable[[TaskRun], bool], what: str, timeout: float
    ) -> list[TaskRun]:
        """Wait until `count` tasks called `name` are `chosen`, and return all that are; `what` says how."""

        def found() -> list[TaskRun]:
            return [run for run in self.runs(name) if chosen(run)]

        self.wait(lambda: len(found()) >= count, timeout, f"the {what} of {count} x {name or 'any task'}")
        return found()

    def runs(self, name: str | None = None) -> list[TaskRun]:
        """Return every task seen, or those called `name`, in the order in which they started, then were sent."""
        return [run for run in runs(self.events, self.began) if name is None or run.name == name]

    def at_rest(self) -> bool:
        """Whether no task is left that runs; one that does gets a moment to end."""

        def ended() -> bool:
            return all(run.started is None or run.ended is not None for run in self.runs())

        with contextlib.suppress(TimedOut):
            return bool(self.wait(ended, _REST / self.patience, "the end of what still runs"))
        return False

    def busy(self) -> float:
        """Return the seconds during which at least one task was in a worker's hands, from its receipt to its end."""
        total, until = 0.0, 0.0
        spans = [(run.received, run.ended) for run in self.runs() if run.received is not None]
        last = max((event["timestamp"] - self.began for event in self.events), default=0.0)
        for received, ended in sorted((max(start, 0.0), last if end is None else end) for start, end in spans):
            total += max(0.0, ended - max(received, until))
            until = max(until, ended)
        return total

    def close(self) -> None:
        """Unsubscribe."""
        if self._connection:
            self._connection.release()
        self._connection = None
