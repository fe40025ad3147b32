"""The nursery: a process without threads that forks workers for one that has some.

A kernel has threads; a fork of it could inherit a lock that nobody will ever release. So the kernel forks the nursery
before it starts any, and asks it for new workers from then on.
"""

import contextlib
import multiprocessing
import os
import signal
from multiprocessing.connection import Connection

from lab.errors import LabError
from lab.spec import WorkerSpec
from lab.stage import Stage, Stages

_fork = multiprocessing.get_context("fork")
_PATIENCE = 60.0


class Nursery:
    """Forks workers for `stage`. Start it before any thread."""

    def __init__(self, stages: Stages, stage: Stage) -> None:
        """Fork the nursery."""
        self._line, other = _fork.Pipe()
        process = _fork.Process(target=_serve, args=(other, stages, stage, os.getpid()), daemon=False)
        process.start()
        other.close()

    def worker(self) -> int:
        """Fork a worker and return its process id; `LabError` if the nursery is gone."""
        with contextlib.suppress(OSError, EOFError):
            self._line.send("worker")
            if self._line.poll(_PATIENCE):
                return int(self._line.recv())
        raise LabError("no new worker can be started: run again after a restart of the page's kernel")


def _serve(line: Connection, stages: Stages, stage: Stage, parent: int) -> None:
    stages.run.guard.part(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Ended workers need no grave.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with contextlib.suppress(EOFError):
        while line.recv():
            stage.workers.clear()
            line.send(stages.add_worker(stage, WorkerSpec()).pid)
