"""What stands around the cells of a page, whatever its role, and the start of its kernel."""

import os
import shutil
import sys
from typing import Any

from lab import project, run
from lab.errors import LabError
from lab.events import ENDS, TaskRun
from lab.pages import order, worker_log
from lab.stage import Stages, StageSpec


class Session:
    """One stage with a worker, its events, and the worker's log since the last cell began."""

    def __init__(self, stages: Stages) -> None:
        """Take the stage."""
        self.stage = stages.take(StageSpec())
        self.log = worker_log.Log(stages.run.folder)

    def begin(self) -> None:
        """Lay everything out for the next cell: an untouched database, no locks, no events of the last one."""
        for key in self.stage.redis.scan_iter(match=":1:*"):
            self.stage.redis.delete(key)
        project.reset_database()
        self.stage.recorder.begin()
        self.log.begin()

    def left(self) -> list[TaskRun]:
        """Return the tasks that have not ended."""
        return [task for task in self.stage.recorder.runs() if f"task-{task.state}" not in ENDS]

    def report(self) -> list[str]:
        """Return what the worker logged since `begin`, in order; where it logged nothing, how each task ended."""
        self.log.read()
        runs = self.stage.recorder.runs()
        return order.lines(self.log.records, runs) or order.ends(runs)


def start(session: type[Session], kernel: str) -> int:
    """Start a project, a broker, a worker, and IPython on the connection file that the command line names.

    `kernel` is the dotted name of the class that runs the cells, in a `session`. Return the exit code.
    """
    # A cell runs inside the kernel's event loop, on its only thread; Django can't know that nothing else runs there.
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"
    try:
        # Private, whatever REDIS_URL says: several pages may be executed at the same time.
        standing = run.start("path" if shutil.which("redis-server") else "embedded")
    except LabError as error:
        print(error, file=sys.stderr)
        return 1
    stages = Stages(standing)
    try:
        worker_log.capture(standing.folder)
        stages.prepare(StageSpec())
        # No thread is started by this; it is what there is to do while the worker comes up.
        from ipykernel.kernelapp import IPKernelApp

        page_session = session(stages)
        app: Any = IPKernelApp.instance(kernel_class=kernel)
        app.initialize(sys.argv[1:])
        # A page shows what a script prints, not what a prompt echoes; escape sequences are for terminals.
        app.shell.ast_node_interactivity = "none"
        app.shell.colors = "nocolor"
        worker_log.show_here()
        app.kernel.page_session = page_session
        app.start()
        return 0
    finally:
        # A worker would spend a second on an orderly end that nobody needs.
        for process in stages.current.processes if stages.current else []:
            process.kill()
        stages.close()
        standing.close()
