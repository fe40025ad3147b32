"""The bench a test stands on: the `lab` fixture's object."""

import contextlib
import importlib
import os
import re
import runpy
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import redis

from lab import figure, heartbeat, processes, project
from lab.events import ENDS, TaskRun
from lab.hold import hold
from lab.queues import queue_keys
from lab.stage import Stage, Stages, WorkerSpec


class Lab:
    """What a claim's test can do: look at events, Redis and logs, wait with a deadline, add workers and beat."""

    def __init__(self, stages: Stages, stage: Stage, chapter: str) -> None:
        """Stand on `stage`, for a claim of `chapter`."""
        self._stages = stages
        self._chapter = chapter
        self._stage = stage
        self._recorder = stage.recorder
        self.charts: dict[str, Any] = {}
        self._stopped: list[processes.Process] = []
        self._logs = {path: path.stat().st_size for path in self._log_folder.glob("*.log")}
        self._printed = {process.name: len(process.output()) for process in stage.processes}
        self._recorder.begin()
        self._began = time.monotonic()

    @property
    def _log_folder(self) -> Path:
        return project.log_folder()

    def demo(self, name: str = "demo.py", **given: Any) -> dict[str, Any]:
        """Run the chapter's file `name`, a script of calls, and return its names; `given` are there before it runs."""
        (folder,) = importlib.import_module(self._chapter).__path__
        return runpy.run_path(str(Path(folder) / name), init_globals=given)

    @property
    def redis(self) -> Any:
        """A redis-py client on the broker's database."""
        return self._stage.redis

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
        self._recorder.pump()
        return self._recorder.events

    def runs(self, name: str | None = None) -> list[TaskRun]:
        """Return the tasks seen since the claim began, in order of their start. Times in seconds."""
        self._recorder.pump()
        return self._recorder.runs(name)

    def wait(self, condition: Callable[[], Any], what: str, timeout: float = 10.0) -> Any:
        """Wait until `condition()` is true and return its value; a failure that names `what` after `timeout` s.

        They count from the last event, as `lab.events.Recorder.wait` says.
        """
        return self._recorder.wait(condition, timeout, what)

    def finished(self, name: str | None = None, count: int = 1, timeout: float = 10.0) -> list[TaskRun]:
        """Wait until `count` tasks called `name` have ended, in whatever way, and return those that did."""

        def ended() -> list[TaskRun]:
            done = [run for run in self._recorder.runs(name) if f"task-{run.state}" in ENDS]
            return done if len(done) >= count else []

        found: list[TaskRun] = self.wait(ended, f"the end of {count} x {name or 'any task'}", timeout)
        return found

    def started(self, name: str, count: int = 1, timeout: float = 10.0) -> list[TaskRun]:
        """Wait until `count` tasks called `name` have started and return those."""

        def running() -> list[TaskRun]:
            found = [run for run in self._recorder.runs(name) if run.started is not None]
            return found if len(found) >= count else []

        found: list[TaskRun] = self.wait(running, f"the start of {count} x {name}", timeout)
        return found

    def hold(self, name: str) -> contextlib.AbstractContextManager[None]:
        """Hold each task called `name` that starts while the context lasts: it runs, but before its first line."""
        return hold(name)

    @contextlib.contextmanager
    def refused(self, *, cache: bool) -> Iterator[None]:
        """Let Alliance Auth's broker, and with `cache` its cache too, refuse this process while the context lasts."""
        with socket.socket() as nobody:
            # Taken, but not listened at.
            nobody.bind(("127.0.0.1", 0))
            nowhere = f"redis://127.0.0.1:{nobody.getsockname()[1]}/0"
            project.point(nowhere, nowhere if cache else self._stage.url)
            try:
                yield
            finally:
                project.point(self._stage.url)

    def settle(self, timeout: float = 10.0) -> list[TaskRun]:
        """Wait until all that was sent has ended and nothing waits in the broker; return every task seen.

        A task's end is told after its chain's next link and its callbacks were sent, so what has not been sent by
        then never will be.
        """

        def quiet() -> bool:
            runs = self._recorder.runs()
            ended = all(f"task-{run.state}" in ENDS for run in runs)
            return ended and self._stage.idle()

        self.wait(quiet, "quiet", timeout)
        return self.runs()

    def waiting(self) -> dict[str, int]:
        """Return how many messages wait in each of the broker's lists."""
        return {key: self.redis.llen(key) for key in sorted(queue_keys(self.redis))}

    def resume(self, worker: int | None = None) -> None:
        """Let the workers that were started paused, or one of them, consume the queue `celery`."""
        from myauth.celery import app

        chosen = self.workers if worker is None else [self.workers[worker]]
        nodes = [_node(process) for process in chosen]
        replies = app.control.add_consumer("celery", destination=nodes, reply=True, timeout=60, limit=len(nodes))
        assert len(replies or []) == len(nodes), f"not every worker took up the queue: {replies}"
        # The worker still asks Redis for what it asked before; it would look again within a second.
        with contextlib.suppress(redis.ResponseError):
            for client in self.redis.client_list():
                if client["cmd"] == "brpop" and client["db"] == str(self.redis.get_connection_kwargs()["db"]):
                    self.redis.client_unblock(int(client["id"]))

    def start_worker(self, **spec: Any) -> processes.Process:
        """Start another worker (see the `workers` marker for `spec`) and wait until it answers."""
        project.point(self._stage.url)
        process = self._stages.add_worker(self._stage, WorkerSpec(**spec))
        self._stages.wait_for(process)
        return process

    def start_beat(self) -> processes.Process:
        """Start beat as supervisor.conf does."""
        project.point(self._stage.url)
        return self._stages.add_beat(self._stage)

    def kill(self, process: processes.Process) -> None:
        """End a process and its children with -9."""
        process.kill()
        self._gone(process)

    def stop(self, process: processes.Process, timeout: float = 60.0) -> None:
        """End a process the way supervisor does, with SIGTERM, and wait for it."""
        process.signal(signal.SIGTERM)
        assert process.join(timeout), f"{process.name} did not stop within {timeout:g} s"
        self._gone(process)

    def _gone(self, process: processes.Process) -> None:
        if process in self._stage.extras:
            # Without it the stage is what the claim was given, and the next one can stand on it.
            self._stage.extras.remove(process)
            self._stopped.append(process)

    def printed(self, process: processes.Process) -> str:
        """Return what `process` has printed and logged since the claim began."""
        return process.output()[self._printed.get(process.name, 0) :]

    def log_file(self, name: str) -> str:
        """Return what was added to Alliance Auth's log file `name` since the claim began."""
        path = self._log_folder / name
        if not path.exists():
            return ""
        with path.open(errors="replace") as file:
            file.seek(self._logs.get(path, 0))
            return file.read()

    def busy(self) -> float:
        """Return for how many seconds of the claim some worker held a task: it ran, or was not due yet."""
        return self._recorder.busy()

    def late(self) -> float:
        """Return by how many seconds, at most, the machine kept a process of the claim from working so far."""
        groups = {process.pid for process in [*self._stage.processes, *self._stopped]}
        return heartbeat.late(self._stages.run.folder, self._began, {os.getpgrp(), *groups})

    def chart(
        self, name: str, kind: str, rows: Sequence[Sequence[Any]], values: Mapping[str, int | str], **more: Any
    ) -> None:
        """Record the chart `name` of the chapter's page as data; claims that give the same name each add their rows.

        What the rows of a `kind` are, and what `more` it takes, `lab.figure` says: all of it is what JSON can hold.
        `values` are what the chart's caption may name, where an int has a comma for the thousands.
        """
        figure.draw(kind, rows, **more)
        self.charts[name] = {"kind": kind, "rows": rows, "more": more, "values": values}

    def logs(self) -> str:
        """Return the last of what every process of the stage printed, for a failure's report."""
        parts = []
        for process in [*self._stage.processes, *self._stopped]:
            text = re.sub(r"\A.*?\[tasks\]", "…", self.printed(process), flags=re.DOTALL)
            parts.append(f"--- {process.name}: {' '.join(process.argv)}\n{text[-3000:]}")
        return "\n".join(parts)


def _node(process: processes.Process) -> str:
    return f"celery@{process.argv[process.argv.index('-n') + 1]}"
