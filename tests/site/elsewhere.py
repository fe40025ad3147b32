"""A new Alliance Auth project outside this repository, with one app in it as its reader has put it there."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import redis
from celery import Celery

from lab import broker, database, project
from lab.events import Recorder, TaskRun
from lab.guard import Guard
from lab.spec import StageSpec
from lab.stage import Stage
from lab.waiting import wait_until
from tests.bed import PATIENCE

SETTINGS = """
DEBUG = True
ALLOWED_HOSTS = ["127.0.0.1"]
SITE_URL = "http://127.0.0.1"
ESI_USER_CONTACT_EMAIL = "copy@example.com"
# So that a test knows what to wait for.
CELERY_SEND_TASK_SENT_EVENT = True
DATABASES["default"] = {
    "ENGINE": "django.db.backends.sqlite3",
    "NAME": os.path.join(BASE_DIR, "copy.sqlite3"),
    "OPTIONS": {"timeout": 20, "transaction_mode": "IMMEDIATE", "init_command": "PRAGMA journal_mode=WAL;"},
}
"""
# The broker and the cache are two databases of one server, as in Alliance Auth's own settings.
REDIS = """
BROKER_URL = "{}"
CACHES["default"]["LOCATION"] = "{}"
"""
_END = "the end of the call"
# Runs one file after the other, as `manage.py shell < FILE` would, or manage.py's own commands, without starting Django
# anew for each.
_SHELL = f"""
import runpy, sys
from django.core.management import call_command
for line in sys.stdin:
    call, *words = line.split()
    runpy.run_path(call) if call.endswith(".py") else call_command(call, *words)
    print({_END!r}, flush=True)
"""
_UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"


@dataclass
class Called:
    """What came of a call: what it printed and logged, what the worker logged, and the tasks that ran."""

    printed: str
    logged: str
    worker: str
    runs: list[TaskRun]


class Installation:
    """An Alliance Auth that stands and is migrated, before any of our apps is put into it; its Redis server."""

    def __init__(self, base: Path) -> None:
        """Make it in `base`."""
        (base / "guarded").mkdir()
        self.guard = Guard(base / "guarded")
        self.server = broker.start("embedded", self.guard)
        command = Path(sys.executable).parent / "allianceauth"
        subprocess.run([command, "start", "myauth"], cwd=base, check=True, capture_output=True)
        self.folder = base / "myauth"
        self._copies = 0
        self.add(self.folder, SETTINGS + REDIS.format(*self.databases()))
        migrate = [sys.executable, "manage.py", "migrate"]
        subprocess.run(migrate, cwd=self.folder, check=True, capture_output=True)

    def databases(self) -> tuple[str, str]:
        """Return the addresses of two databases of the server that nobody uses."""
        self._copies += 1
        return self.server.database(2 * self._copies), self.server.database(2 * self._copies + 1)

    @staticmethod
    def add(folder: Path, settings: str) -> None:
        """Add to a project's local.py."""
        with (folder / "myauth" / "settings" / "local.py").open("a") as local:
            local.write(settings)

    def close(self) -> None:
        """End the server."""
        self.server.stop()
        self.guard.finish()


class Elsewhere:
    """A project with an app in it, its worker, and a shell that calls."""

    def __init__(self, folder: Path, app: str, guard: Guard, url: str, cache: str, commands: tuple[str, ...]) -> None:
        """Start the shell, run `commands` of manage.py in it, and start the worker as supervisor.conf does."""
        self.folder = folder
        self._app = app
        self._cache = redis.Redis.from_url(cache)
        celery = Celery("elsewhere", broker=url)
        self._stage = Stage(StageSpec(), url, Recorder(celery, url), redis.Redis.from_url(url))
        self._untouched = folder / "untouched.sqlite3"
        self._shell = self._start("shell", "manage.py", "shell", "-c", _SHELL)
        guard.register(self._shell.pid)
        for command in commands:
            self._told(command)
        database.copy(folder / "copy.sqlite3", self._untouched)
        words = [part.replace("%(process_num)02d", "00") for part in project.command(folder, "worker")]
        self._worker = self._start("worker", "-m", *words)
        guard.register(self._worker.pid)
        wait_until(lambda: celery.control.ping(timeout=0.5) or self._worker.poll() is not None, PATIENCE, "a pong")
        assert self._worker.poll() is None, self._read("worker.err")[-3000:]
        celery.control.enable_events(reply=True)

    def _start(self, name: str, *words: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.out").open("wb") as out, (self.folder / f"{name}.err").open("wb") as err:
            return subprocess.Popen(
                [sys.executable, *words],
                cwd=self.folder,
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=err,
                start_new_session=True,
                env={**os.environ, "PYTHONPATH": str(self.folder)},
            )

    def _read(self, name: str) -> str:
        return re.sub(_UUID, "…", re.sub(rf"\[{_UUID}\]", "", (self.folder / name).read_text(errors="replace")))

    def _told(self, line: str) -> tuple[str, str]:
        """Let the shell run a line; return what it printed and logged."""
        names = ("shell.out", "shell.err")
        before = [len(self._read(name)) for name in names]
        assert self._shell.stdin
        self._shell.stdin.write(f"{line}\n".encode())
        self._shell.stdin.flush()

        def done() -> bool:
            return f"{_END}\n" in self._read("shell.out")[before[0] :] or self._shell.poll() is not None

        wait_until(done, PATIENCE, f"the end of {line}")
        printed, logged = (self._read(name)[start:] for name, start in zip(names, before, strict=True))
        assert self._shell.poll() is None, f"{line} raised:\n{printed[-3000:]}{logged[-3000:]}"
        return printed.removesuffix(f"{_END}\n"), logged

    def call(self, file: str, *, to_the_end: bool = True) -> Called:
        """Run a file of the app, a script of calls, on an untouched database, as a page does.

        Wait for the end of all that it sent and its tasks sent, or else until the worker has taken what it sent itself.
        """
        database.copy(self._untouched, self.folder / "copy.sqlite3")
        self._cache.flushdb()
        before = len(self._read("worker.err"))
        recorder = self._stage.recorder
        recorder.begin()
        printed, logged = self._told(f"{self._app}/{file}")

        def settled() -> bool:
            runs = recorder.runs()
            if not to_the_end:
                # What a task of an earlier call sends may come when this one has told the worker to take nothing.
                return all(run.state != "sent" for run in runs if not run.parent)
            return all(run.over for run in runs) and self._stage.idle()

        recorder.wait(settled, 30, f"the worker's part in {file}")
        return Called(printed, logged, self._read("worker.err")[before:], recorder.runs())

    def close(self) -> None:
        """End the processes."""
        self._stage.recorder.close()
        for process in (self._worker, self._shell):
            process.send_signal(signal.SIGKILL)
            process.wait()


@contextmanager
def put(installation: Installation, base: Path, app: Path, *commands: str) -> Iterator[Elsewhere]:
    """Put the folder `app` into a copy of the installation, add what a reader adds to local.py, run `commands`."""
    folder = shutil.copytree(installation.folder, base / "myauth")
    shutil.copytree(app, folder / app.name, ignore=shutil.ignore_patterns("test_*.py", "__pycache__"))
    url, cache = installation.databases()
    installation.add(folder, REDIS.format(url, cache) + f'INSTALLED_APPS += ["{app.name}"]\n')
    if (app / "local.py").exists():
        installation.add(folder, (app / "local.py").read_text())
    there = Elsewhere(folder, app.name, installation.guard, url, cache, commands)
    yield there
    there.close()
