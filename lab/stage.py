"""A stage: one database of the broker with the workers, beat and web server that a claim needs."""

import contextlib
import itertools
import re
import signal
import time
from dataclasses import dataclass, field
from typing import Any, cast

import redis
import requests

from lab import address, lent_broker, processes, project
from lab.errors import LabError
from lab.events import Recorder
from lab.queues import queue_keys
from lab.run import Run
from lab.schemas import Private
from lab.server import Server
from lab.spec import StageSpec, WorkerSpec
from lab.waiting import wait_until

# Only what is broken takes so long: a busy machine may take its time.
READY = 120.0
_LINGER = 30.0
_SERVES = re.compile(r"Starting development server at (http://127\.0\.0\.1:\d+)/")

_numbers = itertools.count(1)


@dataclass
class Stage:
    """What runs for a claim, on broker database `url`."""

    spec: StageSpec
    url: str
    recorder: Recorder
    redis: redis.Redis
    workers: list[processes.Process] = field(default_factory=list)
    extras: list[processes.Process] = field(default_factory=list)
    web_url: str = ""
    server: Server | None = None
    database: Private | None = None

    @property
    def processes(self) -> list[processes.Process]:
        """All of the stage's processes."""
        return [*self.workers, *self.extras]

    def idle(self) -> bool:
        """Whether nothing waits and no worker holds a message."""
        return not self.redis.hlen("unacked") and not any(map(self.redis.llen, queue_keys(self.redis)))

    def quiet(self) -> bool:
        """Whether all that was sent has ended."""
        if not self.idle():
            return False
        # Only now: what was sent just before may have been told after the last look, and be in a worker's hands, where
        # Redis has nothing of it.
        self.recorder.pump()
        return all(run.over for run in self.recorder.runs())

    def reusable(self, spec: StageSpec) -> bool:
        """Whether a claim that asks for `spec` can stand on this stage after the last claim."""
        return (
            self.spec == spec
            and not spec.fresh
            and spec.server is None
            and spec.mariadb is None
            and len(self.workers) == len(spec.workers)
            # A worker that was paused may have been resumed since.
            and not any(worker.paused for worker in spec.workers)
            # A beat that a claim left running would send into the next one.
            and len(self.extras) == int(spec.web)
            and all(process.alive for process in self.processes)
            and self.idle()
            # Its last lines would count for the next claim.
            and self.recorder.at_rest()
        )


class Stages:
    """Starts stages, one ahead of its claim where the broker has databases to spare, and ends them."""

    def __init__(self, run: Run) -> None:
        """Serve stages for `run`."""
        self.run = run
        self._ready: list[Stage] = []
        self._ending: list[tuple[float, processes.Process]] = []
        self._free = list(range(run.broker.databases))
        self._servers: list[Server] = []
        # What Django is pointed at when no claim has a database of its own.
        self._usual: dict[str, Any] = {}
        self.current: Stage | None = None

    def prepare(self, spec: StageSpec) -> None:
        """Start what `spec` asks for, without waiting; what can't be had is told when it is taken."""
        with contextlib.suppress(LabError):
            self._ready.append(self._start(spec))

    def prepared(self) -> list[StageSpec]:
        """Return what was prepared and not taken yet."""
        return [stage.spec for stage in self._ready]

    def take(self, spec: StageSpec) -> Stage:
        """Return a stage for `spec` whose workers answer, and make it the one this process talks to."""
        self._reap()
        if self.current and self.current.reusable(spec):
            stage = self.current
        else:
            if self.current:
                self.end(self.current)
                self.current = None
            stage = next((stage for stage in self._ready if stage.spec == spec), None) or self._start(spec)
            if stage in self._ready:
                self._ready.remove(stage)
            # Before it answers: where it does not, its processes are to be ended all the same.
            self.current = stage
            project.point(stage.url)
            project.use(stage.database.settings if stage.database else self._usual)
            self._answer(stage)
        for key in stage.redis.scan_iter(match=":1:*"):
            stage.redis.delete(key)
        (stage.database or self.run.database).reset()
        return stage

    def _start(self, spec: StageSpec) -> Stage:
        from myauth.celery import app

        # Asked first: of a stage that can't be, nothing is started.
        for worker in spec.workers:
            project.command(self.run.project, worker.program)
        server = None
        if spec.server is not None:
            server = Server(self.run.broker.program, self.run.folder, self.run.guard, dict(spec.server))
            self._servers.append(server)
        url = server.url if server else self.run.broker.database(self._free.pop(0))
        # What this process has open must not be torn by the children: they get another database's pools.
        before = address.normal(app.conf.broker_url)
        project.point(url)
        database = None
        if spec.mariadb is not None:
            database = Private(self.run.folder, self.run.guard, *spec.mariadb)
            database.take(self.run.database)
            self._usual = self._usual or project.use({})
        used = project.use(database.settings if database else self._usual)
        client = redis.Redis.from_url(url)
        stage = Stage(spec, url, Recorder(app, url), client, server=server, database=database)
        if server:
            server.recorder = stage.recorder
        for worker in spec.workers:
            self.add_worker(stage, worker)
        if spec.web:
            self.add(stage, "web", ["manage.py", "runserver", "--noreload", "127.0.0.1:0"])
        project.point(before)
        project.use(used)
        return stage

    def _name(self, program: str) -> str:
        # Never the same again in this process, as it names a log file.
        return f"{program}_{next(_numbers):02d}"

    def add_worker(self, stage: Stage, spec: WorkerSpec) -> processes.Process:
        """Start a worker on `stage`, with the command line of supervisor.conf but for what `spec` says otherwise."""
        argv = project.command(self.run.project, spec.program)
        name = f"{spec.program}_{len(stage.workers):02d}"
        argv = [part.replace("%(process_num)02d", f"{len(stage.workers):02d}") for part in argv]
        if spec.concurrency is not None:
            argv = [f"--concurrency={spec.concurrency}" if part.startswith("--concurrency") else part for part in argv]
        if spec.pool is not None:
            argv = [f"--pool={spec.pool}" if part.startswith("--pool") else part for part in argv]
        if spec.paused:
            argv += ["-Q", "gate"]
        elif spec.queues is not None:
            argv += ["-Q", spec.queues]
        if not spec.heartbeat:
            argv.append("--without-heartbeat")
        process = processes.Process("worker", self._name(name), argv, self.run.folder, self.run.guard)
        stage.workers.append(process)
        return process

    def add(self, stage: Stage, role: str, argv: list[str]) -> processes.Process:
        """Start `argv`, which is no worker, on `stage`."""
        process = processes.Process(role, self._name(role), argv, self.run.folder, self.run.guard)
        stage.extras.append(process)
        return process

    def _answer(self, stage: Stage) -> None:
        for worker in stage.workers:
            self.wait_for(worker)
        if stage.spec.web:
            web = stage.extras[0]

            def address() -> re.Match[str] | None:
                web.see_alive()
                return _SERVES.search(web.output())

            stage.web_url = cast(re.Match[str], wait_until(address, READY, "the web server's start"))[1]
            # What it imports for its first answer is no part of a claim's response time.
            requests.get(f"{stage.web_url}/static/none", timeout=READY)

    def wait_for(self, worker: processes.Process) -> None:
        """Wait until `worker` answers a ping."""
        from myauth.celery import app

        def answers() -> bool:
            worker.see_alive()
            return bool(app.control.ping(destination=[worker.node], timeout=0.25, limit=1))

        wait_until(answers, READY, f"a pong of {worker.node}")

    def end(self, stage: Stage) -> None:
        """Tell the stage's processes to stop; they get some seconds, in the background."""
        for process in stage.processes:
            process.signal(signal.SIGTERM)
            if stage.database or (stage.server and not stage.server.alive):
                # It would try to reach its broker, or its database, until it is killed.
                process.kill()
            self._ending.append((time.monotonic() + _LINGER, process))
        if stage.database:
            stage.database.stop()
            project.use(self._usual)
        stage.recorder.close()
        if self.run.broker.databases == 1 and not stage.server:
            # The only database there is must be empty before the next stage begins.
            self._reap(all_of_them=True)
            lent_broker.wipe(stage.redis)
            self._free.append(0)
        stage.redis.close()

    def _reap(self, *, all_of_them: bool = False) -> None:
        left = []
        for deadline, process in self._ending:
            if all_of_them:
                process.join(max(0.0, deadline - time.monotonic()))
            if process.alive and (all_of_them or time.monotonic() > deadline):
                process.kill()
            if process.alive:
                left.append((deadline, process))
        self._ending = left

    def close(self) -> None:
        """End every stage and wait for it."""
        for stage in [*self._ready, *([self.current] if self.current else [])]:
            self.end(stage)
        self._ready, self.current = [], None
        self._reap(all_of_them=True)
        for server in self._servers:
            server.stop()
