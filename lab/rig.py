"""What a test stands on: the `rig` fixture's object."""

import contextlib
import importlib
import io
import os
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import redis
from celery import current_app
from django.db import connection
from django.test.utils import CaptureQueriesContext

from lab import figure, heartbeat, lines, processes, project, spec
from lab.errors import LabError, Unequal
from lab.events import TaskRun
from lab.hold import hold
from lab.queues import queue_keys
from lab.stage import READY, Stage, Stages
from lab.told import Told
from lab.waiting import wait_until


class Rig:
    """What a claim's test can do: look at events, Redis and logs, wait with a deadline, add workers and beat."""

    def __init__(self, stages: Stages, stage: Stage, chapter: str) -> None:
        """Stand on `stage`, for a claim of `chapter`."""
        self._stages, self._stage, self._chapter = stages, stage, chapter
        self.charts: dict[str, Any] = {}
        self._stopped: list[processes.Process] = []
        self._logs = {path: path.stat().st_size for path in project.log_folder().glob("*.log")}
        self._printed = {process.name: len(process.output()) for process in stage.processes}
        self._told = Told(stages.run.folder)
        self._stage.recorder.begin()
        self._began = time.monotonic()

    def demo(self, name: str = "demo.py", **given: Any) -> dict[str, Any]:
        """Run the chapter's file `name`, a script of calls, and return its names; `given` are there before it runs."""
        (folder,) = importlib.import_module(self._chapter).__path__
        with self._told.noted(name):
            return lines.run(Path(folder) / name, {"__name__": "<demo>", **given})

    def prints(self, name: str, wanted: str) -> dict[str, Any]:
        """Run the chapter's file `name` as `demo` does, and demand that it prints `wanted`."""
        __tracebackhide__ = True
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            names = self.demo(name)
        self.same(printed.getvalue(), wanted, "printed {!r}")
        return names

    def savepoints(self, name: str) -> list[str]:
        """Run the chapter's file `name` inside a transaction; return how it begins and ends others, without names."""
        with CaptureQueriesContext(connection) as queries:
            self.demo(name)
        return [re.split('["`]', query["sql"])[0].rstrip() for query in queries if "SAVEPOINT" in query["sql"]]

    def send(self, task: Any, count: int, first: int, **options: Any) -> None:
        """Start `task` for `count` ids, from `first` on, each with the options of `apply_async` that are given."""
        for number in range(first, first + count):
            task.apply_async((number,), **options)

    @property
    def redis(self) -> Any:
        """A redis-py client on the broker's database."""
        return self._stage.redis

    @property
    def server(self) -> Any:
        """The claim's own broker or database, a `Server`, of a claim with the marker `server` or `mariadb`."""
        return getattr(self._stage.database, "server", self._stage.server)

    @property
    def url(self) -> str:
        """The address of the web server."""
        return self._stage.web_url

    @property
    def workers(self) -> list[processes.Process]:
        """The workers' processes, in the order in which they were asked for."""
        return self._stage.workers

    @property
    def events(self) -> list[dict[str, Any]]:
        """Celery's events since the claim began, as the workers and this process sent them."""
        self._stage.recorder.pump()
        return self._stage.recorder.events

    def runs(self, name: str | None = None) -> list[TaskRun]:
        """Return the tasks seen since the claim began, in order of their start. Times in seconds."""
        self._stage.recorder.pump()
        return self._stage.recorder.runs(name)

    def wait(self, condition: Callable[[], Any], what: str, timeout: float = 10.0) -> Any:
        """Wait until `condition()` is true, return its value; fail `timeout` s after the last event, naming `what`."""
        return self._stage.recorder.wait(condition, timeout, what)

    def finished(
        self, name: str | None = None, count: int = 1, timeout: float = 10.0, after: str = ""
    ) -> list[TaskRun]:
        """Run the chapter's file `after`, if any; return the tasks called `name` that ended, once they are `count`."""
        if after:
            self.demo(after)
        return self._stage.recorder.those(count, name, lambda run: run.over, "end", timeout)

    def same(self, found: object, wanted: object, words: str) -> None:
        """Demand that two values are equal; if not, the failure says `words`, with what was found for their `{}`."""
        __tracebackhide__ = True
        if found != wanted:
            raise Unequal(words.format(found))

    def started(self, name: str, count: int = 1, timeout: float = 10.0) -> list[TaskRun]:
        """Wait until `count` tasks called `name` have started and return those."""
        return self._stage.recorder.those(count, name, lambda run: run.started is not None, "start", timeout)

    def hold(self, name: str) -> contextlib.AbstractContextManager[None]:
        """Hold each task called `name` that starts while the context lasts: it runs, but before its first line."""
        return hold(name)

    @contextlib.contextmanager
    def refused(self, *, cache: bool) -> Iterator[None]:
        """Let Alliance Auth's broker, and with `cache` its cache too, refuse this process while the context lasts."""
        with socket.socket() as nobody, contextlib.ExitStack() as after:
            nobody.bind(("127.0.0.1", 0))  # Taken, but not listened at.
            nowhere = f"redis://127.0.0.1:{nobody.getsockname()[1]}/0"
            after.callback(project.point, self._stage.url)
            project.point(nowhere, nowhere if cache else self._stage.url)
            yield

    def settle(self, timeout: float = 10.0, after: str = "") -> list[TaskRun]:
        """Wait until all that was sent has ended and nothing waits in the broker; return every task seen.

        A task's end is told after all that it sends. The chapter's file `after` is run first, where one is named.
        """
        if after:
            self.demo(after)
        self.wait(self._stage.quiet, "quiet", timeout)
        return self.runs()

    def waiting(self) -> dict[str, int]:
        """Return how many messages wait in each of the broker's lists."""
        return {key: self.redis.llen(key) for key in sorted(queue_keys(self.redis))}

    def resume(self, worker: int | None = None) -> None:
        """Let the workers that were started paused, or one of them, consume the queue `celery`."""
        nodes = [process.node for process in (self.workers if worker is None else [self.workers[worker]])]
        replies = current_app.control.add_consumer(
            "celery", destination=nodes, reply=True, timeout=60, limit=len(nodes)
        )
        if len(replies or []) != len(nodes):
            raise LabError(f"Not every worker took up the queue, the replies are {replies}: run the claim again.")
        # The worker still asks Redis for what it asked before; it would look again within a second.
        with contextlib.suppress(redis.ResponseError):
            for client in self.redis.client_list():
                if client["cmd"] == "brpop" and client["db"] == str(self.redis.get_connection_kwargs()["db"]):
                    self.redis.client_unblock(int(client["id"]))

    def start_worker(self, **wanted: Any) -> processes.Process:
        """Start another worker (see the `workers` marker for `wanted`) and wait until it answers."""
        project.point(self._stage.url)
        process = self._stages.add_worker(self._stage, spec.WorkerSpec(**wanted))
        self._stages.wait_for(process)
        return process

    def start(self, *argv: str, role: str = "suite") -> processes.Process:
        """Start `celery …`, `manage.py …` or `pytest …` in a process of its own, with the settings as they are here."""
        project.point(self._stage.url)
        return self._stages.add(self._stage, role, list(argv))

    def start_beat(self) -> processes.Process:
        """Start beat as supervisor.conf does."""
        return self.start(*project.command(self._stages.run.project, "beat"), role="beat")

    def run(self, *argv: str) -> processes.Process:
        """Start `argv` as `start` does, and wait for its end."""
        self._gone(process := self.start(*argv), READY)
        return process

    def kill(self, process: processes.Process) -> None:
        """End a process and its children with -9."""
        process.kill()
        self._gone(process)

    def stop(self, process: processes.Process, timeout: float = 60.0) -> None:
        """End a process the way supervisor does, with SIGTERM, and wait for it."""
        process.signal(signal.SIGTERM)
        self._gone(process, timeout)

    def _gone(self, process: processes.Process, timeout: float = 60.0) -> None:
        wait_until(lambda: not process.alive, timeout, f"the end of {process.name}")
        if process in self._stage.extras:
            # Without it the stage is what the claim was given, and the next one can stand on it.
            self._stage.extras.remove(process)
            self._stopped.append(process)

    def printed(self, process: processes.Process) -> str:
        """Return what `process` has printed and logged since the claim began."""
        return process.output()[self._printed.get(process.name, 0) :]

    def logged(self) -> list[str]:
        """Return what the tasks have logged for extensions since the claim began: each line's level and text."""
        lines = re.finditer(r"^\[.*?\] (\w+) \[.*?\] (.*)$", self.log_file("extensions.log"), re.MULTILINE)
        return [f"{line[1]} {line[2]}" for line in lines]

    def log_file(self, name: str) -> str:
        """Return what was added to Alliance Auth's log file `name` since the claim began."""
        path = project.log_folder() / name
        with contextlib.suppress(FileNotFoundError), path.open(errors="replace") as file:
            file.seek(self._logs.get(path, 0))
            return file.read()
        return ""

    def busy(self) -> float:
        """Return for how many seconds of the claim some worker held a task: it ran, or was not due yet."""
        return self._stage.recorder.busy()

    def late(self) -> float:
        """Return by how many seconds, at most, the machine kept a process of the claim from working so far."""
        groups = {os.getpgrp(), *(process.pid for process in [*self._stage.processes, *self._stopped])}
        return heartbeat.late(self._stages.run.folder, self._began, groups)

    def chart(
        self, name: str, kind: str, rows: Sequence[Sequence[Any]], values: Mapping[str, int | str], **more: Any
    ) -> None:
        """Record the chart `name` of the chapter's page as data; claims that give the same name each add their rows.

        What the rows of a `kind` are, and what `more` it takes, `lab.figure` says: all of it is what JSON can hold.
        `values` are what the chart's caption may name, where an int has a comma for the thousands.
        """
        figure.draw(kind, rows, **more)
        self.charts[name] = {"kind": kind, "rows": rows, "more": more, "values": values}

    def outputs(self) -> dict[str, str]:
        """Return by file of calls what it printed, and what the workers have logged since, as a page shows it."""
        return self._told.outputs(self._stage.recorder.runs(), self._stage.recorder.began)

    def logs(self) -> str:
        """Return the last of what every process of the stage printed, for a failure's report."""
        parts = []
        for process in [*self._stage.processes, *self._stopped]:
            text = re.sub(r"\A.*?\[tasks\]", "…", self.printed(process), flags=re.DOTALL)
            parts.append(f"--- {process.name}: {' '.join(process.argv)}\n{text[-3000:]}")
        return "\n".join(parts)
