"""A run: a private folder, a guard over it, a broker and a copy of the Alliance Auth project."""

import contextlib
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path

from lab import broker, database, project
from lab.errors import LabError
from lab.guard import Guard
from lab.lines import Lines


@dataclass
class Run:
    """The parts that every stage stands on."""

    folder: Path
    guard: Guard
    broker: broker.Broker
    database: database.Database
    project: Path
    lines: Lines

    def versions(self) -> dict[str, str]:
        """Return what runs here: name to version."""
        found = {name: version(name) for name in ("allianceauth", "celery", "kombu", "django", "celery-once")}
        servers = {"broker": self.broker.version, "database": self.database.version}
        return {**found, "python": platform.python_version(), **servers}

    def load(self) -> None:
        """Load once what each worker of each lane would load anew: Django's checks and the tasks of every app."""
        from django.core.checks import run_checks
        from myauth.celery import app

        # Django's checks set its logging up anew; the handlers keep the file, so it stays open.
        log = (self.folder / "load.log").open("w", buffering=1)
        # What can't be loaded, pytest tells of its chapter.
        with contextlib.redirect_stderr(log), contextlib.suppress(Exception):
            # Not as a worker does it: what a worker makes then takes settings that a break changes later.
            app.autodiscover_tasks(force=True)
            run_checks()
            app.finalize()
        os.environ["CELERY_SKIP_CHECKS"] = "1"

    def lanes(self, wanted: int) -> int:
        """Return how many of the lanes that are wanted broker and database carry side by side."""
        return 1 if self.broker.databases == 1 or self.database.alone else wanted


@contextlib.contextmanager
def standing(kind: str | None, data: str | None = None, pool: str | None = None) -> Iterator[Run]:
    """Start a run and set Django up in this process.

    `kind` says on which broker, see `lab.broker.start`, `data` on which database, see `lab.database.start`, and `pool`
    what stands in supervisor.conf in the place of Alliance Auth's own.
    When the context is left, or where a `LabError` keeps it from being entered, all is ended and the folder removed.
    """
    if sys.version_info < (3, 11):  # noqa: UP036
        raise LabError("Python 3.11 or later is needed.")
    folder = Path(tempfile.mkdtemp(prefix="celery-faq-"))
    (folder / "lines").mkdir()
    guard = Guard(folder)
    with contextlib.ExitStack() as ending:
        ending.push(partial(_finish, guard))
        server = broker.start(kind, guard)
        ending.callback(server.stop)
        store = database.start(data, guard)
        ending.callback(store.stop)
        if not (Path(sys.executable).parent / "allianceauth").exists() and not shutil.which("allianceauth"):
            raise LabError("Alliance Auth is not installed here: run this through nox, for example nox -s examples.")
        lines = Lines("test", folder)
        copy = project.copy(folder, pool)
        ending.callback(os.chdir, "/")
        # Alliance Auth's console log of this process is not what a person at the prompt wants to read.
        # Its handlers keep the file, so it stays open.
        log = (folder / "setup.log").open("w", buffering=1)
        with contextlib.redirect_stderr(log):
            project.enter(copy, server.database(0), store)
        yield Run(folder, guard, server, store, copy, lines)


def _finish(guard: Guard, _type: object, error: BaseException | None, _trace: object) -> None:
    if not guard.finish() and not error:
        raise LabError(
            "The broker went away when the run had ended, before what Celery wrote could be removed: "
            "see that the database that you lent is empty."
        )
