"""What a claim's calls print and the worker logs after them, as a page shows it."""

import contextlib
import io
import logging
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from lab import order, worker_log
from lab.events import TaskRun


class _Tee(io.TextIOBase):
    """Writes to two streams."""

    def __init__(self, *streams: TextIO) -> None:
        self._streams = streams

    def write(self, text: str) -> int:
        return max(stream.write(text) for stream in self._streams)


class Told:
    """Notes what the files of calls that a claim runs print, and reads what the workers of its lane log."""

    def __init__(self, folder: Path) -> None:
        """Begin with what comes from now on; `folder` is the lane's."""
        self._log = worker_log.Log(folder)
        self._log.begin()
        self._printed: dict[str, tuple[float, float, io.StringIO]] = {}

    @contextlib.contextmanager
    def noted(self, file: str) -> Iterator[None]:
        """Note what is printed and logged here while the context lasts, under the name of the file of calls."""
        out, began = io.StringIO(), time.time()
        # A claim that looks at what is printed sees no log lines.
        handler = worker_log.Here(out)
        logging.getLogger().addHandler(handler)
        try:
            with contextlib.redirect_stdout(_Tee(sys.stdout, out)):
                yield
        finally:
            logging.getLogger().removeHandler(handler)
            self._printed.setdefault(file, (began, time.time(), out))

    def outputs(self, runs: list[TaskRun], since: float) -> dict[str, str]:
        """Return by file what its calls printed, and, where they sent a task, what workers have logged since.

        `runs` are the claim's tasks, whose times count from the time `since`.
        """
        self._log.read()
        found = {}
        for file, (began, ended, out) in self._printed.items():
            lines = []
            if any(run.sent is not None and began <= since + run.sent <= ended for run in runs):
                lines = order.lines([record for record in self._log.records if record.at >= began], runs)
            found[file] = out.getvalue() + "".join(f"[worker] {line}\n" for line in lines)
        return found
