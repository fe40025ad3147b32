"""What a worker logs, as a reader wants to see it, handed to the process that forked it."""

import json
import logging
import re
import sys
import threading
import traceback
from pathlib import Path
from types import TracebackType
from typing import Any

from celery import current_task
from celery.signals import after_setup_logger, after_setup_task_logger

from lab.pages.order import Record
from lab.paths import EXAMPLES

# The worker's own housekeeping, which says nothing about the example.
_HOUSEKEEPING = ("celery.worker.consumer.mingle", "celery.worker.consumer.gossip", "celery.worker.pidbox")
_UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"


class _Formatter(logging.Formatter):
    """Makes of what the worker's console shows one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        data = getattr(record, "data", None)
        task = data["id"] if isinstance(data, dict) and "id" in data else _current_id()
        text = _short(record.getMessage())
        if record.exc_info and record.exc_info[1]:
            text += _own_frames(record.exc_info[1], record.exc_info[2])
        return json.dumps(Record(record.created, record.levelname, task, text))


def _current_id() -> str:
    return current_task.request.id or "" if current_task else ""


def _short(message: str) -> str:
    """Return a message without ids, without the dump of a message's body, and with short paths of libraries."""
    if message.startswith("Received unregistered task"):
        message = message.partition("\n\n")[0]
    message = re.sub(r"/\S*/site-packages/", "", message)
    return re.sub(_UUID, "…", re.sub(rf"\[{_UUID}\]", "", message))


def _own_frames(error: BaseException, where: TracebackType | None) -> str:
    """Return a traceback with the frames of the examples only, by their short paths; nothing where there are none."""
    lines = ["", "Traceback (most recent call last):"]
    for frame in traceback.extract_tb(where):
        path = Path(frame.filename)
        if path.is_relative_to(EXAMPLES):
            lines.append(f'  File "{path.relative_to(EXAMPLES)}", line {frame.lineno}, in {frame.name}')
            lines.append(f"    {frame.line}")
    lines.append("".join(traceback.format_exception_only(error)).strip())
    return "\n".join(lines) if len(lines) > 3 else ""


def capture(folder: Path) -> None:
    """Let the workers that are forked from here write what they log to a file in `folder` too."""
    path = folder / "worker.jsonl"
    path.touch()

    def attach(logger: logging.Logger, **_: Any) -> None:
        handler = logging.FileHandler(path)
        handler.setFormatter(_Formatter())
        handler.addFilter(lambda record: record.name not in _HOUSEKEEPING)
        logger.addHandler(handler)

    after_setup_logger.connect(attach, weak=False)
    after_setup_task_logger.connect(attach, weak=False)


def show_here() -> None:
    """Print what this process itself logs, from INFO up, in place of Alliance Auth's console."""

    class Here(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            # Looked up each time: a cell's output has a stream of its own.
            print(f"[call] {record.levelname} {_short(record.getMessage())}", file=sys.stdout)

    for name in list(logging.root.manager.loggerDict):
        logger = logging.getLogger(name)
        for handler in list(logger.handlers):
            if type(handler) is logging.StreamHandler:
                logger.removeHandler(handler)
    logging.getLogger().addHandler(Here(logging.INFO))


class Log:
    """Reads what the workers of the run in `folder` have logged; `lock` keeps other threads from it."""

    def __init__(self, folder: Path) -> None:
        """Start at the beginning."""
        self._file = (folder / "worker.jsonl").open()
        self.records: list[Record] = []
        self.lock = threading.RLock()

    def begin(self) -> None:
        """Pass over what is there."""
        with self.lock:
            self._file.read()
            self.records.clear()

    def read(self) -> list[Record]:
        """Return what came since the last call; all that came since `begin` stands in `records`."""
        with self.lock:
            new = [Record(*json.loads(line)) for line in self._file if line.strip()]
            self.records += new
        return new
