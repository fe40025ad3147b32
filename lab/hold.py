"""Holding tasks: a worker starts them, and each waits before its first line until the test lets go."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from celery.signals import task_prerun


@contextlib.contextmanager
def hold(name: str) -> Iterator[None]:
    """Hold the tasks called `name` that start on the workers of this process while the context lasts."""
    path = _path(name)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            path.unlink()
            # A worker that was forked meanwhile has the file open too, and would keep the lock.
            fcntl.flock(file, fcntl.LOCK_UN)


def _path(name: str) -> Path:
    return Path(os.environ["LAB_DATABASE"]).parent / f"hold-{name}"


def _wait(sender: Any, **_: Any) -> None:
    """Wait for the lock of the one who holds this task, where somebody does; every worker inherits this by its fork."""
    with contextlib.suppress(FileNotFoundError), _path(sender.name).open() as file:
        fcntl.flock(file, fcntl.LOCK_SH)


task_prerun.connect(_wait, weak=False)
