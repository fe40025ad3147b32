"""Lanes: forks of a run that stand side by side, each with its own databases, folder and log files.

Most of a claim is waiting, so a few lanes on two cores end sooner than one.
"""

import contextlib
import gc
import json
import multiprocessing
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from multiprocessing import connection
from pathlib import Path
from typing import Any

import psutil

from lab import errors, project, worker_log
from lab.broker import Broker, Watch
from lab.guard import Guard
from lab.lines import Lines
from lab.run import Run

_fork = multiprocessing.get_context("fork")
# What lanes print can be shown so often, in seconds.
_SHOWN = 0.1
# So many processes that want to run, over a minute: beside more, claims were late that nothing was wrong with.
_CROWDED = 4.0 * (os.cpu_count() or 1)


class _Registry(Guard):
    """The run's guard as a fork may use it: to register processes, no more."""

    def __init__(self, guard: Guard) -> None:
        self.folder = guard.folder


class Lane:
    """One fork that does `work(own)`, where `own` is its part of the run.

    `result` is what `work` returned, JSON values, or None if the fork ended before. `folder` is its own until
    `remove()`; what it printed is in `output()`.
    """

    def __init__(
        self, standing: Run, number: int, seat: int, databases: int, work: Callable[[Run], Any], *, lines: bool
    ) -> None:
        """Fork. `number` tells lanes of one run apart, and `seat` those that run at the same time.

        Each takes `databases` of the broker's, and notes `lines`.
        """
        self.seat = seat
        self.folder = standing.folder / f"lane-{number}"
        self.folder.mkdir()
        self.began = time.monotonic()
        args = (standing, seat, databases, self.folder, work, lines, os.getpid())
        self._process = _fork.Process(target=_enter, args=args)
        self._process.start()

    @property
    def alive(self) -> bool:
        """Whether the lane's process runs."""
        return self._process.is_alive()

    @property
    def sentinel(self) -> int:
        """What becomes ready when the process ends."""
        return self._process.sentinel

    @property
    def result(self) -> Any:
        """What the work returned."""
        with contextlib.suppress(FileNotFoundError):
            return json.loads((self.folder / "result.json").read_text())
        return None

    def output(self) -> str:
        """Return what the lane has printed so far."""
        with contextlib.suppress(FileNotFoundError):
            return (self.folder / "output").read_text(errors="replace")
        return ""

    def end(self) -> None:
        """End the process, if it still runs, with all that it has started, and wait for it."""
        # Once it has ended, its number may be another's.
        if self.alive:
            for child in psutil.Process(self._process.pid).children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()
        self._process.kill()
        self._process.join()

    def remove(self) -> None:
        """Remove the lane's folder."""
        shutil.rmtree(self.folder, ignore_errors=True)


def share(broker: Broker, seat: int, databases: int) -> Broker:
    """Return the part of the broker that the lane in `seat` may use while it runs."""
    if broker.databases == 1:
        return broker
    return replace(broker, first=1 + seat * databases, databases=databases, server=None)


def _enter(
    standing: Run,
    seat: int,
    databases: int,
    folder: Path,
    work: Callable[[Run], Any],
    lines_wanted: bool,
    parent: int,
) -> None:
    standing.guard.part(parent)
    (folder / "lines").mkdir()
    out = os.open(folder / "output", os.O_WRONLY | os.O_CREAT)
    os.dup2(out, 1)
    os.dup2(out, 2)
    worker_log.capture(folder)
    lines = Lines("test", folder, wanted=lines_wanted)
    project.move(folder, standing.database, seat)
    broker = share(standing.broker, seat, databases)
    # Of a lent one the run sees to that; of its own, the lane that had the seat before has left what it left.
    if broker is not standing.broker:
        broker.empty()
    own = replace(standing, folder=folder, broker=broker, guard=_Registry(standing.guard), lines=lines)
    result = work(own)
    lines.end()
    scratch = folder / "result.part"
    scratch.write_text(json.dumps(result))
    scratch.rename(folder / "result.json")


def each(
    standing: Run,
    count: int,
    databases: int,
    works: Sequence[Callable[[Run], Any]],
    patience: float,
    *,
    few: int | None = None,
    lines: bool = False,
) -> Iterator[tuple[int, Lane, bool]]:
    """Do `works` in `count` lanes at a time; yield the index, the lane and True once for each that has ended.

    The lanes that run are yielded too, with False, ten times a second, so that their output can be shown. A lane that
    takes longer than `patience` seconds is ended. Where `few` run, none is added while the machine is crowded. With
    `lines`, each notes what it executes of the examples. `Gone` where the broker is; no lane is left then, nor where
    the caller looks no further.
    """
    # A lane would walk through all that it shares with us before it starts a process.
    gc.collect()
    gc.freeze()
    todo = list(enumerate(works))
    lanes: list[tuple[int, Lane]] = []
    with contextlib.closing(Watch(standing.broker)) as watch, contextlib.ExitStack() as ending:
        ending.callback(_end, lanes)
        while todo or lanes:
            if errors.interrupted.is_set():
                raise KeyboardInterrupt
            watch.look()
            while todo and len(lanes) < (few if few and os.getloadavg()[0] > _CROWDED else count):
                number, work = todo.pop(0)
                seat = min(set(range(count)) - {lane.seat for _, lane in lanes})
                lanes.append((number, Lane(standing, number, seat, databases, work, lines=lines)))
            for place, lane in list(lanes):
                if lane.alive and time.monotonic() - lane.began > patience:
                    lane.end()
                # Asked once: a lane that ends while its caller looks at it is told as ended the next time.
                ended = not lane.alive
                if ended:
                    # What it found without a broker is none of its finding.
                    watch.settle()
                    lane.end()
                    lanes.remove((place, lane))
                yield place, lane, ended
            connection.wait([lane.sentinel for _, lane in lanes], _SHOWN)


def _end(lanes: list[tuple[int, Lane]]) -> None:
    for _, lane in lanes:
        lane.end()
