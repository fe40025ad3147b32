"""`nox -s load`: send 100,000 tasks over the ten priorities to 1, 2 and 4 workers, and count what became of each.

Half of them wait in Redis before the workers begin, the other half is sent while they work. Settings and command lines
are Alliance Auth's, but workers send no events. The figures go to `docs/recorded/load.json`, with the hashes of all
that they depend on.
"""

import argparse
import hashlib
import json
import sys
import time
from collections import Counter
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

import psutil
import redis

from lab import broker, run
from lab.errors import LabError, told
from lab.paths import ROOT
from lab.processes import Process
from lab.spec import StageSpec, WorkerSpec
from lab.stage import Stage, Stages
from lab.waiting import wait_until

RECORD = ROOT / "docs" / "recorded" / "load.json"
TASKS = 100_000
WORKERS = (1, 2, 4)
LINKS = 1000
# What decides on the figures: this program, with its task, what it runs on, and the locked versions.
_DECIDE = {
    "program": ("lab/load.py",),
    "settings": ("lab/settings.py", "lab/spec.py", "lab/stage.py"),
    "lock": ("requirements.txt",),
}
_DONE = "load-done"
_SHARES = 10
# Without a task that ends for so many seconds, something is stuck.
_PATIENCE = 300.0


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Raise the message as one sentence."""
        raise LabError(f"nox -s load: {message}; nox -s load -- --help lists the options.")


def main(argv: list[str]) -> int:
    """Run it and write the record, or with `--tasks` only print the figures; 0 when nothing was lost or doubled."""
    parser = _Parser(usage="nox -s load -- [options]", description=__doc__, allow_abbrev=False)
    parser.add_argument("--tasks", type=int, default=TASKS, help="a trial with so many tasks, which records nothing")
    parser.add_argument(
        "--broker", metavar="embedded|path", choices=("embedded", "path"), help="which Redis or Valkey to use"
    )
    known = parser.parse_args(argv)
    if known.tasks < _SHARES:
        parser.error(f"--tasks {known.tasks} is too few for ten priorities, take 10 or more")
    with run.standing(known.broker or broker.own()) as standing:
        # Nobody asks which lines are executed, and noting them takes time.
        standing.lines.end()
        stages = Stages(standing)
        try:
            rounds = [_round(stages, known.tasks, workers) for workers in WORKERS]
            links = min(LINKS, known.tasks)
            moved = {kind: _traffic(stages, links, kind) for kind in ("tasks", "chain")}
        except KeyboardInterrupt:
            raise LabError("Stopped: nothing is recorded, and nothing is left running.") from None
        finally:
            stages.close()
        found: dict[str, Any] = {
            "recorded": date.today().isoformat(),
            "versions": standing.versions(),
            "marks": marks(),
        }
    found |= {"tasks": known.tasks, "rounds": rounds, "links": links, "moved": moved}
    times = moved["chain"]["bytes"] / moved["tasks"]["bytes"]
    print(f"A chain of {links:,} links moved {times:.0f} times the bytes of {links:,} tasks.")
    if known.tasks == TASKS:
        RECORD.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
        print(f"The figures are in {RECORD.relative_to(ROOT)}.")
    return 0


def decisive() -> list[Path]:
    """Return the files that decide on the figures."""
    return [ROOT / path for paths in _DECIDE.values() for path in paths]


def marks() -> dict[str, str]:
    """Return the hashes of all that decides on the figures."""
    return {
        name: hashlib.sha256(b"\0".join((ROOT / path).read_bytes() for path in paths)).hexdigest()[:16]
        for name, paths in _DECIDE.items()
    }


def judge(done: Counter[int], tasks: int) -> dict[str, int]:
    """Return how many of the tasks 0, 1, 2, … never ran, and how many ran more than once; `done` counts the runs."""
    return {
        "lost": sum(done[number] == 0 for number in range(tasks)),
        "doubled": sum(times > 1 for times in done.values()),
    }


@cache
def _task() -> Any:
    """Make the task, which does little: it notes in Redis that it ran. The workers are forked with it."""
    from django.conf import settings
    from myauth.celery import app

    app.conf.update(worker_send_task_events=False, task_send_sent_event=False)

    @cache
    def client(url: str) -> redis.Redis:
        return redis.Redis.from_url(url)

    @app.task(name="load.note")  # type: ignore[untyped-decorator]
    def note(number: int) -> None:
        client(settings.CACHES["default"]["LOCATION"]).hincrby(_DONE, str(number), 1)

    return note


def _stage(stages: Stages, workers: int) -> Stage:
    _task()
    return stages.take(StageSpec((WorkerSpec(paused=True),) * workers, fresh=True))


def _begin(stage: Stage) -> None:
    """Let the paused workers take tasks."""
    from myauth.celery import app

    nodes = [worker.node for worker in stage.workers]
    told = app.control.add_consumer("celery", destination=nodes, reply=True, timeout=_PATIENCE, limit=len(nodes))
    if len(told or []) != len(nodes):
        raise LabError(f"Of {len(nodes)} workers {len(told or [])} took up the queue: run nox -s load again.")


def _ended(stage: Stage, count: int) -> None:
    """Wait until `count` tasks have run, then until nothing is left; a worker that has ended is an error."""

    def all_ran() -> bool:
        for worker in stage.workers:
            worker.see_alive()
        return stage.redis.hlen(_DONE) >= count and stage.idle()

    def progress() -> object:
        _tell(f"{len(stage.workers)} x worker: {stage.redis.hlen(_DONE):,} of {count:,} have run")
        return stage.redis.hlen(_DONE)

    wait_until(all_ran, _PATIENCE, "the end of all tasks", progress=progress)


def _tell(words: str, *, end: bool = False) -> None:
    """Show how far it is: on a terminal in one line, elsewhere only the last word."""
    if sys.stdout.isatty():
        print(f"\r\033[K{words}", end="\n" if end else "", flush=True)
    elif end:
        print(words, flush=True)


def _megabytes(process: Process) -> int:
    return int(psutil.Process(process.pid).memory_full_info().uss) >> 20


def _round(stages: Stages, tasks: int, workers: int) -> dict[str, Any]:
    """Send and count `tasks` tasks with so many workers; `LabError` where one was lost or doubled."""
    stage, note = _stage(stages, workers), _task()
    empty = stage.redis.info("memory")["used_memory"]
    began = time.monotonic()
    for number in range(tasks // 2):
        note.apply_async((number,), priority=number % 10)
        if number % 500 == 0:
            _tell(f"{workers} x worker: {number:,} of {tasks:,} are sent")
    waiting = (stage.redis.info("memory")["used_memory"] - empty) / (tasks // 2)
    sent = time.monotonic() - began
    first = _megabytes(stage.workers[0])
    _begin(stage)
    for number in range(tasks // 2, tasks):
        note.apply_async((number,), priority=number % 10)
        if number % 500 == 0:
            _tell(f"{workers} x worker: {number:,} of {tasks:,} are sent, {stage.redis.hlen(_DONE):,} have run")
    _ended(stage, tasks)
    seconds = time.monotonic() - began - sent
    done = Counter({int(number): int(times) for number, times in stage.redis.hgetall(_DONE).items()})
    stage.redis.delete(_DONE)
    verdict = judge(done, tasks)
    _tell(
        f"{workers} x worker: {tasks:,} tasks, {verdict['lost']} lost, {verdict['doubled']} doubled, {seconds:.0f} s",
        end=True,
    )
    if any(verdict.values()):
        raise LabError(
            f"With {workers} of Alliance Auth's workers {verdict['lost']} of {tasks:,} tasks were lost and "
            f"{verdict['doubled']} ran more than once: see what the workers logged with nox -s examples -- vanished."
        )
    memory = {"first": first, "last": _megabytes(stage.workers[0])}
    return {"workers": workers, "seconds": round(seconds, 1), "bytes": round(waiting), "memory": memory} | verdict


def _traffic(stages: Stages, count: int, kind: str) -> dict[str, int]:
    """Let one worker run `count` tasks, or a chain of so many links.

    Return the bytes that Redis got for it, and the megabytes by which the worker grew.
    """
    from celery import chain

    stage, note = _stage(stages, 1), _task()
    before, size = stage.redis.info("stats")["total_net_input_bytes"], _megabytes(stage.workers[0])
    _begin(stage)
    if kind == "chain":
        chain(note.si(number) for number in range(count)).delay()
    else:
        for number in range(count):
            note.delay(number)
    _ended(stage, count)
    after = stage.redis.info("stats")["total_net_input_bytes"]
    stage.redis.delete(_DONE)
    return {"bytes": after - before, "megabytes": _megabytes(stage.workers[0]) - size}


if __name__ == "__main__":
    sys.exit(told(main))
