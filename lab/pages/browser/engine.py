"""What the Web Worker calls: `start` once, then `run` for a call and `define` for tasks.

Before each call all is laid out as the build's kernel does it: an untouched database, no locks, no events of the last
call. After it time goes on until all that was sent has ended.
"""

import contextlib
import io
import logging
import os
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lab.pages.browser.standins import collector, threads

Told = Callable[[str, Any], None]
# What a countdown of an hour needs, and a retry after it. An hour without a task takes seconds.
_PATIENCE = 3 * 3600.0
_LOOK = (0.02, 2.0)
_CALL = "<call>"
# Modules that libraries import by name.
_MODULES = Path(threads.__file__).parent / "modules"


class _Stream(io.TextIOBase):
    """What is printed: by the call for the page, by the worker for where Celery sends it."""

    def __init__(self, told: Callable[[str], None], worker: Any) -> None:
        self._told, self._worker = told, worker

    def write(self, text: str) -> int:
        if threads.main():
            self._told(text)
            return len(text)
        return int(self._worker.write(text) or 0)

    def isatty(self) -> bool:
        return False


class _Flag:
    """Celery's flag for 'this process is a worker', which caller and worker would not share."""

    def __init__(self) -> None:
        from celery import _state

        self._state, self._calling, self._other = _state, threads.main(), False

    def swap(self) -> None:
        """Give the process that takes over its own."""
        if threads.main() is not self._calling:
            self._calling = threads.main()
            mine, self._other = self._other, self._state.task_join_will_block()
            self._state._set_task_join_will_block(mine)


class Engine:
    """Alliance Auth, a Redis in memory and a worker; `tell(kind, data)` hands the page what happens."""

    def __init__(self, project: Path, tell: Told) -> None:
        """Start all of it in `project`, which `lab.project` has made."""
        self._tell = tell
        self._count = 0
        self._told: object = None
        _enter(project)
        from myauth.celery import app

        from lab import worker_log
        from lab.database import SQLite, template
        from lab.events import Recorder
        from lab.pages.browser import worker
        from lab.pages.browser.standins import database, memory

        self._reset, self._app = SQLite().reset, app
        self.redis = memory.client()
        self.recorder = Recorder(app, os.environ["LAB_BROKER_URL"])
        self._reset()
        self._kept = [database.Keeper(path) for path in (template(), Path(os.environ["LAB_DATABASE"]))]
        worker_log.capture(project)
        self._log = worker_log.Log(project)
        flag = _Flag()

        def taken_over() -> None:
            flag.swap()
            collector.tidy()

        threads.SCHEDULER.taken_over = taken_over
        self.worker = worker.start(app)
        worker_log.show_here()
        _separate_logs()
        sys.stdout = _Stream(lambda text: tell("stdout", text), sys.stdout)
        sys.stderr = _Stream(lambda text: tell("stderr", text), sys.stderr)
        self._limits = self._rate_limits()
        collector.settle()

    def _rate_limits(self) -> dict[str, Any]:
        return {name: task.rate_limit for name, task in self._app.tasks.items()}

    def define(self, module: str, source: str) -> bool:
        """Replace tasks of `module` by those in `source`, for the call and for the worker; false where that raised."""
        from lab.pages.live.redefine import replace_tasks

        try:
            replace_tasks(self._app, module, source)
        except BaseException as error:
            self._raised(error)
            return False
        self.worker.consumer.update_strategies()
        self.worker.consumer.reset_rate_limits()
        self._limits = self._rate_limits()
        return True

    def run(self, source: str) -> dict[str, Any]:
        """Run a call to the end of all that it sent; times are virtual seconds."""
        from lab import events, order
        from lab.pages.live import shown

        self._begin()
        began = time.monotonic()
        failed = False
        try:
            exec(compile(source, _CALL, "exec"), {"__name__": "__main__"})  # noqa: S102
        except BaseException as error:
            failed = True
            self._raised(error)
        spent = self._settle()
        seconds = time.monotonic() - began
        runs = self.recorder.runs()
        self._tell_news()
        self._count += 1
        return {
            "lines": order.lines(self._log.records, runs) or order.ends(runs),
            "figure": shown.timeline(runs, f"online-{self._count}", seconds),
            "runs": events.record(runs),
            "seconds": round(seconds, 3),
            "failed": failed,
            "spent": spent,
        }

    def _begin(self) -> None:
        for key in self.redis.scan_iter(match=":1:*"):
            self.redis.delete(key)
        self._reset()
        for kept in self._kept:
            kept.tidy()
        # A call may have set others at runtime, which hold until the worker ends.
        for name, limit in self._limits.items():
            self._app.tasks[name].rate_limit = limit
        self.worker.consumer.reset_rate_limits()
        self.recorder.begin()
        self._log.begin()

    def _settle(self) -> str:
        """Let time go on until all has ended; return what is left after hours of it."""
        look, most = _LOOK
        until = time.monotonic() + _PATIENCE
        while not self._quiet():
            if time.monotonic() > until:
                hours = _PATIENCE / 3600
                left = sorted({run.name for run in self.recorder.runs() if not run.over})
                return f"Not ended after {hours:g} hours of simulated time, and dropped: {', '.join(left)}"
            self._tell_news()
            time.sleep(look)
            look = min(look * 1.5, most)
        return ""

    def _tell_news(self) -> None:
        from lab import order
        from lab.pages.live import shown

        if new := self._log.read():
            self._tell("log", order.lines(new, []))
        if (now := shown.held(self.redis)) != self._told:
            self._told = now
            self._tell("broker", now)

    def _quiet(self) -> bool:
        from lab.queues import queue_keys

        self.recorder.pump()
        if not all(run.over for run in self.recorder.runs()):
            return False
        return not self.redis.hlen("unacked") and not sum(self.redis.llen(key) for key in queue_keys(self.redis))

    def _raised(self, error: BaseException) -> None:
        trace = error.__traceback__
        while trace and trace.tb_frame.f_code.co_filename == __file__:
            trace = trace.tb_next
        text = "".join(traceback.format_exception(type(error), error, trace))
        self._tell("error", {"ename": type(error).__name__, "evalue": str(error), "traceback": text})


def _enter(project: Path) -> None:
    """Make `project` the Django project of this process, as `lab.project.enter` does."""
    # Deprecations are for those who maintain what is shipped; the build's kernel shows none either.
    for kind in (DeprecationWarning, PendingDeprecationWarning, SyntaxWarning):
        warnings.filterwarnings("ignore", category=kind)
    sys.path.append(str(_MODULES))
    from lab.pages.browser.standins import broker, network
    from lab.paths import EXAMPLES

    broker.install()
    network.install()
    sys.path[:0] = [str(project), str(EXAMPLES)]
    os.environ.update(
        DJANGO_SETTINGS_MODULE="lab.pages.browser.settings",
        LAB_BROKER_URL="redis://127.0.0.1:6379/0",
        LAB_DATABASE=str(project / "lab.sqlite3"),
        LAB_SECRET_KEY="not a secret: nobody logs in here " * 2,
        DJANGO_ALLOW_ASYNC_UNSAFE="true",
    )
    os.chdir(project)
    import django

    # Alliance Auth's checks warn of what does not matter here.
    with contextlib.redirect_stderr(io.StringIO()):
        django.setup()
    # A call that has Celery import all tasks sets Django up once more, and so would bring the console back.
    django.setup = lambda set_prefix=True: None
    import allianceauth.authentication.views
    import allianceauth.middleware  # noqa: F401


def _separate_logs() -> None:
    """Let the worker's file have what the worker logs, and the page what the call logs; there is no console."""
    root = logging.getLogger()
    for logger in [root, *map(logging.getLogger, list(root.manager.loggerDict))]:
        for handler in list(logger.handlers):
            if type(handler) is logging.StreamHandler:
                logger.removeHandler(handler)
            elif type(handler).__name__ == "Here":
                handler.addFilter(lambda _: threads.main())
            elif type(handler) is logging.FileHandler:
                handler.addFilter(lambda _: not threads.main())
