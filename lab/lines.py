"""Which lines of the examples each process of a run executes, and for which claim.

A worker is forked before its claim begins, and serves several. So the run leaves the name of the claim it is at in a
file, and a process looks there whenever it takes something up: a task, a request, beat's work.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import coverage

from lab.paths import EXAMPLES

_NAME = "claim"


class Lines:
    """Notes the lines that this process executes as `role`; what belongs to a claim has the context `role|claim`."""

    def __init__(self, role: str, folder: Path, *, wanted: bool = True) -> None:
        """Begin to note, in place of what this process has inherited by a fork; note nothing if that is not wanted."""
        running = coverage.Coverage.current()
        if running:
            running.stop()
        self._folder = folder
        self._claim = ""
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._coverage = _coverage(role, folder) if wanted else None
        if self._coverage:
            self._coverage.start()

    @staticmethod
    def noted() -> bool:
        """Whether this process, or the one it was forked from, notes lines."""
        return coverage.Coverage.current() is not None

    def follow(self, **_: Any) -> None:
        """Count what is executed from here on for the claim that the run is at."""
        path = self._folder / _NAME
        claim = path.read_text() if path.exists() else ""
        with self._lock:
            if claim != self._claim and self._coverage:
                self._coverage.switch_context(claim)
                self._claim = claim

    def _keep(self) -> None:
        """Write what was noted whenever something is done: this process may be killed."""
        while self._done.wait():
            self._done.clear()
            with self._lock:
                if self._coverage:
                    self._coverage.switch_context(self._claim)

    def listen(self) -> None:
        """Follow the run whenever this process takes something up, and keep what was noted when it is done."""
        from celery.signals import beat_init, task_postrun, task_prerun
        from django.core.signals import request_finished, request_started

        for signal in (task_prerun, beat_init, request_started):
            signal.connect(self.follow, weak=False)
        for signal in (task_postrun, request_finished):
            signal.connect(lambda **_: self._done.set(), weak=False)
        # In a thread, as a task tells its end after this signal, and must not be late for our sake.
        threading.Thread(target=self._keep, daemon=True, name="lines").start()

    @contextmanager
    def claim(self, name: str) -> Iterator[None]:
        """Say, in the process that runs the tests, that the run is at the claim `name`."""
        self._tell(name)
        try:
            yield
        finally:
            self._tell("")

    def _tell(self, name: str) -> None:
        scratch = self._folder / f"{_NAME}.part"
        scratch.write_text(name)
        scratch.replace(self._folder / _NAME)
        self.follow()

    def end(self) -> None:
        """Save what was noted."""
        with self._lock:
            ending, self._coverage = self._coverage, None
            if ending:
                ending.stop()
                ending.save()


def _coverage(role: str, folder: Path) -> coverage.Coverage:
    found = coverage.Coverage(
        data_file=str(folder / "lines" / role),
        data_suffix=True,
        include=[f"{EXAMPLES}/*", f"{folder}/*"],
        omit=["*/test_*.py", "*/conftest.py"],
        concurrency="thread",
        context=role,
        messages=False,
        config_file=False,
    )
    # Python 3.14's own way to trace tells each line once only, whichever claim runs it again.
    found.set_option("run:core", "ctrace")
    return found
