"""A run: a private folder, a guard over it, a broker and a copy of the Alliance Auth project."""

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from lab import broker, project
from lab.errors import LabError
from lab.guard import Guard
from lab.lines import Lines


@dataclass
class Run:
    """The parts that every stage stands on."""

    folder: Path
    guard: Guard
    broker: broker.Broker
    project: Path
    lines: Lines

    def versions(self) -> dict[str, str]:
        """Return what runs here: name to version."""
        found = {name: version(name) for name in ("allianceauth", "celery", "kombu", "django", "celery-once")}
        python = ".".join(str(part) for part in sys.version_info[:3])
        return {**found, "python": python, "broker": self.broker.version}

    def close(self) -> None:
        """End all that is left and remove the folder."""
        os.chdir("/")
        self.broker.stop()
        self.guard.finish()


@contextlib.contextmanager
def standing(kind: str | None) -> Iterator[Run]:
    """Start a run as `start` does; it is closed when the context is left."""
    run = start(kind)
    try:
        yield run
    finally:
        run.close()


def start(kind: str | None) -> Run:
    """Start a run on the broker `kind` (see `lab.broker.start`) and set Django up in this process.

    Raises `LabError` with nothing left running.
    """
    if sys.version_info < (3, 11):  # noqa: UP036
        raise LabError("Python 3.11 or later is needed.")
    folder = Path(tempfile.mkdtemp(prefix="celery-faq-"))
    (folder / "lines").mkdir()
    guard = Guard(folder)
    try:
        server = broker.start(kind, guard)
        if not (Path(sys.executable).parent / "allianceauth").exists() and not shutil.which("allianceauth"):
            raise LabError("Alliance Auth is not installed here: run this through nox, for example nox -s examples.")
        lines = Lines("test", folder)
        copy = project.copy(folder)
        # Alliance Auth's console log of this process is not what a person at the prompt wants to read.
        # Its handlers keep the file, so it stays open.
        log = (folder / "setup.log").open("w", buffering=1)
        with contextlib.redirect_stderr(log):
            project.enter(copy, server.database(0))
        return Run(folder, guard, server, copy, lines)
    except BaseException:
        with contextlib.suppress(OSError):
            guard.finish()
        raise
