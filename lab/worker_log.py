"""The worker's side of the kernel: what it logs, as a reader wants to see it, and new definitions of its tasks."""

import ast
import importlib
import json
import linecache
import logging
import re
import sys
import traceback
from pathlib import Path
from types import CodeType, TracebackType
from typing import Any, TextIO

from celery import current_task
from celery.signals import after_setup_logger, after_setup_task_logger
from celery.worker.control import control_command

from lab.events import TaskRun
from lab.paths import EXAMPLES

# Two tasks that run at the same time log in an order that nobody decides: within this many seconds it is not shown.
# Less than the 0.2 s that the examples' slow tasks take, whose order means something.
_TOGETHER = 0.18
# The worker's own housekeeping, which says nothing about the example.
_HOUSEKEEPING = ("celery.worker.consumer.mingle", "celery.worker.consumer.gossip", "celery.worker.pidbox")
_UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"


class _Handler(logging.Handler):
    """Appends what the worker's console shows to a file, one JSON object a line."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._file = path.open("a", buffering=1)

    def emit(self, record: logging.LogRecord) -> None:
        data = getattr(record, "data", None)
        task = data["id"] if isinstance(data, dict) and "id" in data else _current_id()
        text = _short(record.getMessage())
        if record.exc_info and record.exc_info[1]:
            text += _own_frames(record.exc_info[1], record.exc_info[2])
        line = {"at": record.created, "level": record.levelname, "logger": record.name, "task": task, "text": text}
        self._file.write(json.dumps(line) + "\n")


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
        logger.addHandler(_Handler(path))

    after_setup_logger.connect(attach, weak=False)
    after_setup_task_logger.connect(attach, weak=False)


class Here(logging.Handler):
    """Writes what this process itself logs, from INFO up, to `stream`; prints it, if there is none."""

    def __init__(self, stream: TextIO | None = None) -> None:
        super().__init__(logging.INFO)
        self._stream = stream

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        # Looked up each time: a cell's output has a stream of its own.
        print(f"[call] {record.levelname} {_short(record.getMessage())}", file=self._stream or sys.stdout)


def show_here() -> None:
    """Print what this process itself logs, from INFO up, in place of Alliance Auth's console."""
    for name in list(logging.root.manager.loggerDict):
        logger = logging.getLogger(name)
        for handler in list(logger.handlers):
            if type(handler) is logging.StreamHandler:
                logger.removeHandler(handler)
    logging.getLogger().addHandler(Here())


class Log:
    """Reads what the workers of the run in `folder` have logged."""

    def __init__(self, folder: Path) -> None:
        """Start at the beginning."""
        self._file = (folder / "worker.jsonl").open()

    def skip(self) -> None:
        """Pass over what is there."""
        self._file.read()

    def read(self) -> list[dict[str, Any]]:
        """Return what came since the last call."""
        return [json.loads(line) for line in self._file if line.strip()]


def lines(records: list[dict[str, Any]], runs: list[TaskRun]) -> list[str]:
    """Return the records as lines for a reader, in the order in which they came.

    Only where two tasks run side by side and log at nearly the same instant, the order is that of `_places`.
    """
    places = _places(runs)
    known = {run.id: run for run in runs}
    kept = [record for record in records if record["logger"] not in _HOUSEKEEPING]
    swapped = True
    while swapped:
        swapped = False
        for place in range(len(kept) - 1):
            first, second = kept[place], kept[place + 1]
            one, other = known.get(first["task"]), known.get(second["task"])
            if not one or not other or places[one.id] <= places[other.id]:
                continue
            if _by_chance(first, second, one, other):
                kept[place : place + 2] = [second, first]
                swapped = True
    return [f"{record['level']} " + record["text"].replace("\n", "\n         ") for record in kept]


def _by_chance(first: dict[str, Any], second: dict[str, Any], one: TaskRun, other: TaskRun) -> bool:
    """Whether chance alone decided that `first`, of the task `one`, came before `second`, of the task `other`."""
    # From its receipt on a task is in the hands of the worker's threads, and any of them may come first.
    late = float("inf")
    received = max(one.received or 0, other.received or 0)
    ended = min(late if run.ended is None else run.ended for run in (one, other))
    return received < ended and abs(second["at"] - first["at"]) < _TOGETHER


def _places(runs: list[TaskRun]) -> dict[str, tuple[int, float, float]]:
    """Return each task's place by its id: links of chains by their number, then in the order in which they were sent.

    When a link is sent depends on how long the one before it took; so of links with the same number the one whose
    chain was sent first comes first.
    """
    known = {run.id: run for run in runs}

    def sent(run: TaskRun) -> float:
        return float("inf") if run.sent is None else run.sent

    def number(run: TaskRun) -> int:
        count = 0
        while run.parent in known:
            run = known[run.parent]
            count += 1
        return count

    return {run.id: (number(run), sent(known.get(run.root, run)), sent(run)) for run in runs}


def report(records: list[dict[str, Any]], runs: list[TaskRun]) -> list[str]:
    """Return `lines`; where nothing was logged, how each task ended."""
    places = _places(runs)
    ended = [f"{run.name} {run.state}" for run in sorted(runs, key=lambda run: places[run.id])]
    return lines(records, runs) or ended


def replace_tasks(app: Any, module: str, source: str) -> None:
    """Execute `source` in `module`; tasks that it defines take the place of those of the same name."""
    there = importlib.import_module(module)
    functions = defined(source)
    # A second @shared_task of the same name, which need not be the function's, would return the old task.
    for name in [name for name, task in app.tasks.items() if task.__module__ == module and task.__name__ in functions]:
        app.tasks.pop(name)
    exec(_compiled(Path(str(there.__file__)), source), vars(there))  # noqa: S102


def _compiled(path: Path, source: str) -> CodeType:
    """Compile a part of a file, or an edited part, so that a traceback shows the lines that the reader sees."""
    text = source.strip("\n")
    before, found, _ = path.read_text().partition(text)
    if found:
        return compile("\n" * before.count("\n") + text, str(path), "exec")
    name = f"{path} (edited)"
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    return compile(source, name, "exec")


def defined(source: str) -> tuple[str, ...]:
    """Return the names of the functions that `source` defines."""
    return tuple(node.name for node in ast.parse(source).body if isinstance(node, ast.FunctionDef))


@control_command(args=[("module", str), ("source", str)])  # type: ignore[untyped-decorator, unused-ignore]
def redefine(state: Any, module: str, source: str) -> dict[str, str]:
    """Worker command: take over new definitions of a module's tasks."""
    replace_tasks(state.app, module, source)
    state.consumer.update_strategies()
    return {"ok": module}
