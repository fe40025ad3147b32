"""Workers, beat and the web server: real processes, forked from one that has Alliance Auth in memory already.

Starting `celery -A myauth worker` from a shell spends some seconds on imports before it does anything. A run
imports once and forks; the child sets `sys.argv` to the very command line of supervisor.conf and calls Celery's own
entry point.
"""

import contextlib
import gc
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import psutil

from lab.errors import LabError
from lab.guard import Guard
from lab.lines import Lines

_fork = multiprocessing.get_context("fork")


class Process:
    """A forked process in a session of its own. Attributes: `name`, `argv`, `pid`, `log` (path of its output)."""

    def __init__(self, role: str, name: str, argv: list[str], folder: Path, guard: Guard) -> None:
        """Fork and run `argv` (`celery …`, `manage.py …` or `pytest …`). Closes this thread's database connections."""
        from django.db import connections

        self.name = name
        self.argv = argv
        self.log = folder / "logs" / f"{name}.log"
        self.log.parent.mkdir(exist_ok=True)
        args = (role, argv, self.log, folder, guard, os.getpid())
        self._process = _fork.Process(target=_child, args=args, name=name)
        # SQLite's connections must not go through a fork. A child that keeps one, if only until its garbage is
        # collected, reads the database as it was then.
        connections.close_all()
        # The child's garbage collector would write to every page that it shares with us.
        gc.collect()
        gc.freeze()
        self._process.start()
        self.pid = cast(int, self._process.pid)

    @property
    def node(self) -> str:
        """The name by which Celery addresses a worker."""
        return f"celery@{self.argv[self.argv.index('-n') + 1]}"

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process.is_alive()

    @property
    def exitcode(self) -> int | None:
        """The exit code, negative for a signal, None while it runs."""
        return self._process.exitcode

    def see_alive(self) -> None:
        """Raise `LabError`, with the last of what it printed, where the process has ended."""
        if not self.alive:
            raise LabError(f"{self.name} ended with {self.exitcode}; what it printed:\n{self.output()[-2000:]}")

    def signal(self, number: int) -> None:
        """Send a signal to the process alone, if it still runs."""
        # Once it has ended and been waited for, its number may be another's: a busy machine soon comes round.
        if self.alive:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End the process, if it still runs, and all its children with -9, and wait for it."""
        if self.alive:
            # One that was forked a moment ago leads no group yet.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            self._process.kill()
        self._process.join()

    def join(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds for the end and return whether it came."""
        self._process.join(timeout)
        return not self._process.is_alive()

    def output(self) -> str:
        """Return what the process printed and logged so far."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""


def _child(role: str, argv: list[str], log: Path, folder: Path, guard: Guard, parent: int) -> None:
    guard.part(parent)
    sink = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(sink, 1)
    os.dup2(sink, 2)
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w", buffering=1), open(2, "w", buffering=1)  # noqa: SIM115
    for name in ("stdin", "stdout", "stderr"):
        setattr(sys, f"__{name}__", getattr(sys, name))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # The web server has no handler of its own, and would end before it has saved the lines it executed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    sys.argv = list(argv)
    lines = Lines(role, folder, wanted=Lines.noted())
    if role == "suite":
        # It runs for the claim at hand alone, and may take nothing up.
        lines.follow()

    import logging

    from django.conf import settings
    from django.utils.log import configure_logging

    logging.getLogger().handlers.clear()
    configure_logging(settings.LOGGING_CONFIG, settings.LOGGING)
    _send_each_event()
    try:
        _entry(argv)()
    finally:
        lines.end()


def _send_each_event() -> None:
    """Let a worker send each event by itself, where it would lose some of those that it collects.

    Before 5.7, Celery forgot those that its threads added while it sent the others (`EventDispatcher.flush`).
    """
    import celery
    from celery.events.dispatcher import EventDispatcher

    if celery.VERSION[:2] < (5, 7):
        begin = EventDispatcher.__init__

        def without_buffer(self: EventDispatcher, *args: Any, **options: Any) -> None:
            begin(self, *args, **{**options, "buffer_group": None})

        # Mypy would not have it assigned.
        setattr(EventDispatcher, "__init__", without_buffer)  # noqa: B010


def _entry(argv: list[str]) -> Callable[[], object]:
    if argv[0] == "celery":
        from celery.__main__ import main

        return lambda: main()
    if argv[0] == "pytest":
        import pytest

        # Pytest would load files of tests in a way of its own, without noting their lines.
        sys.argv.append("--assert=plain")
        return lambda: sys.exit(pytest.console_main())
    from django.core.management import execute_from_command_line

    return lambda: execute_from_command_line(argv)


def lives(process: psutil.Process) -> bool:
    """Return whether `process` is there, no other has its number, and it is more than a zombie."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and bool(process.status() != psutil.STATUS_ZOMBIE)
    return False


@contextlib.contextmanager
def deadline(seconds: float, expire: Callable[[], object]) -> Iterator[None]:
    """Call `expire`, which raises, in what runs longer than `seconds` in the context; 0 means no limit."""
    before = signal.signal(signal.SIGALRM, lambda *_: expire())
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
