"""What stands around the cells of a page, whatever its role, and the start of its kernel."""

import contextlib
import os
from typing import Any

from lab import broker, order, run, worker_log
from lab.events import TaskRun
from lab.spec import StageSpec
from lab.stage import Stages


class Session:
    """One stage with a worker, its events, and the worker's log since the last cell began."""

    def __init__(self, stages: Stages) -> None:
        """Take the stage."""
        self.database = stages.run.database
        self.stage = stages.take(StageSpec())
        self.log = worker_log.Log(stages.run.folder)

    def begin(self) -> None:
        """Lay everything out for the next cell: an untouched database, no locks, no events of the last one."""
        for key in self.stage.redis.scan_iter(match=":1:*"):
            self.stage.redis.delete(key)
        self.database.reset()
        self.stage.recorder.begin()
        self.log.begin()

    def left(self) -> list[TaskRun]:
        """Return the tasks that have not ended."""
        return [task for task in self.stage.recorder.runs() if not task.over]

    def report(self) -> list[str]:
        """Return what the worker logged since `begin`, in order; where it logged nothing, how each task ended."""
        self.log.read()
        runs = self.stage.recorder.runs()
        return order.lines(self.log.records, runs) or order.ends(runs)


def start(session: type[Session], kernel: str, argv: list[str]) -> int:
    """Start a project, a broker, a worker, and IPython on the connection file that the words `argv` name.

    `kernel` is the dotted name of the class that runs the cells, in a `session`. Return the exit code.
    """
    # A cell runs inside the kernel's event loop, on its only thread; Django can't know that nothing else runs there.
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"
    # Private, whatever REDIS_URL says: several pages may be executed at the same time.
    with run.standing(broker.own()) as standing, contextlib.closing(Stages(standing)) as stages:
        worker_log.capture(standing.folder)
        stages.prepare(StageSpec())
        # No thread is started by this; it is what there is to do while the worker comes up.
        from ipykernel.kernelapp import IPKernelApp

        page_session = session(stages)
        app: Any = IPKernelApp.instance(kernel_class=kernel)
        app.initialize(argv)
        # A page shows what a script prints, not what a prompt echoes; escape sequences are for terminals.
        app.shell.ast_node_interactivity = "none"
        app.shell.colors = "nocolor"
        worker_log.show_here()
        app.kernel.page_session = page_session
        try:
            app.start()
        finally:
            # A worker would spend a second on an orderly end that nobody needs.
            for process in page_session.stage.processes:
                process.kill()
    return 0
