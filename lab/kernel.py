"""The kernel behind the pages: IPython in an Alliance Auth project, with a private broker and a real worker.

Each cell starts from an untouched database. After it the kernel waits until all that the cell sent has ended, then
prints what the worker logged. `python -m lab.kernel -f FILE` is what the kernelspec of `lab.kernelspec` calls.
"""

import importlib
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from lab import kernelspec, project, run, worker_log
from lab.errors import LabError, TimedOut
from lab.stage import Stage, Stages, StageSpec

NAME = kernelspec.NAME
# A cell of a page is a few lines and two or three seconds of tasks; more is a mistake. 0 means no limit.
DEADLINE = float(os.environ.get("LAB_CELL_DEADLINE", "30"))


class Session:
    """What stands around the cells: one stage, its events, and the worker's log as far as it was shown."""

    def __init__(self, standing: run.Run, stage: Stage) -> None:
        """Stand on `stage`."""
        self.stage = stage
        self._log = worker_log.Log(standing.folder)

    def begin(self) -> None:
        """Lay everything out for the next cell: an untouched database, no locks, no events of the last one."""
        for key in self.stage.redis.scan_iter(match=":1:*"):
            self.stage.redis.delete(key)
        project.reset_database()
        self.stage.recorder.begin()
        self._log.skip()

    def settle(self, timeout: float) -> None:
        """Wait until all that was sent has ended; `TimedOut` after `timeout` seconds."""

        def quiet() -> bool:
            return all(task.over for task in self.stage.recorder.runs()) and self.stage.idle()

        self.stage.recorder.wait(quiet, timeout, "the end of every task that the cell sent")

    def report(self) -> str:
        """Return what the worker logged since `begin`; where it logged nothing, how each task ended."""
        logged = worker_log.report(self._log.read(), self.stage.recorder.runs())
        return "".join(f"[worker] {line}\n" for line in logged)


@contextmanager
def _deadline(seconds: float) -> Iterator[None]:
    """Raise `TimeoutError` in the cell that runs longer than `seconds`."""

    def expire(_signal: int, _frame: FrameType | None) -> None:
        raise TimeoutError(f"the cell did not end within {seconds:g} s")

    before = signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _kernel_class(session: Session) -> type[Any]:
    # Imported late: ipykernel starts threads, and the worker is forked before there are any. It has no types.
    ipython_kernel: Any = importlib.import_module("ipykernel.ipkernel").IPythonKernel

    class LabKernel(ipython_kernel):  # type: ignore[misc]
        """IPython's kernel with a session around each cell."""

        implementation = NAME
        language_info = {**ipython_kernel.language_info, "pygments_lexer": "python"}  # noqa: RUF012

        async def do_execute(self, code: str, silent: bool, *args: Any, **kwargs: Any) -> dict[str, Any]:
            """Run a cell, wait for its tasks, print what the worker logged."""
            if silent:
                unseen: dict[str, Any] = await super().do_execute(code, silent, *args, **kwargs)
                return unseen
            session.begin()
            with _deadline(DEADLINE):
                reply: dict[str, Any] = await super().do_execute(code, silent, *args, **kwargs)
            problem = ""
            try:
                session.settle(DEADLINE or 3600)
            except (TimedOut, KeyboardInterrupt) as error:
                problem = str(error) or "interrupted"
            sys.stdout.write(session.report())
            sys.stdout.flush()
            if problem and reply["status"] == "ok":
                told = {"ename": "TimeoutError", "evalue": problem, "traceback": [problem]}
                self.send_response(self.iopub_socket, "error", told)
                return {**reply, **told, "status": "error"}
            return reply

    return LabKernel


def serve(kernel_class: Callable[[run.Run, Stages], type[Any]], ready: Callable[[Any], None]) -> int:
    """Start a run, then a kernel on the connection file that the command line names; return the exit code.

    `kernel_class(run, stages)` takes a stage with a worker and returns the kernel's class; `ready(app)` is called when
    the kernel application stands, before it takes its first cell.
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
        kernelapp = importlib.import_module("ipykernel.kernelapp")
        app: Any = kernelapp.IPKernelApp.instance(kernel_class=kernel_class(standing, stages))
        app.initialize(sys.argv[1:])
        # A page shows what a script prints, not what a prompt echoes; escape sequences are for terminals.
        app.shell.ast_node_interactivity = "none"
        app.shell.colors = "nocolor"
        worker_log.show_here()
        ready(app)
        app.start()
        return 0
    finally:
        # A worker would spend a second on an orderly end that nobody needs.
        for process in stages.current.processes if stages.current else []:
            process.kill()
        stages.close()
        standing.close()


def main() -> int:
    """Serve the cells of a page that is built."""
    return serve(lambda standing, stages: _kernel_class(Session(standing, stages.take(StageSpec()))), lambda app: None)


if __name__ == "__main__":
    sys.exit(main())
