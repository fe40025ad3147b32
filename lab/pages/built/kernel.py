"""Each cell starts from an untouched database and has a deadline; what the worker logged follows what it printed."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from lab.pages.kernel import PageKernel

# A cell of a page is a few lines and two or three seconds of tasks; more is a mistake. 0 means no limit.
DEADLINE = float(os.environ.get("LAB_CELL_DEADLINE", "30"))


class BuildKernel(PageKernel):
    """Runs a cell and sees it through to the end of all that it sent."""

    language_info = {**PageKernel.language_info, "pygments_lexer": "python"}  # noqa: RUF012

    async def do_execute(self, code: str, silent: bool, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Run a cell, wait for its tasks, print what the worker logged."""
        self.page_session.begin()
        with _deadline(DEADLINE):
            reply: dict[str, Any] = await super().do_execute(code, silent, *args, **kwargs)
        problem = ""
        try:
            stage = self.page_session.stage
            over = "the end of every task that the cell sent"
            stage.recorder.wait(lambda: not self.page_session.left() and stage.idle(), DEADLINE or 3600, over)
        except (AssertionError, TimeoutError, KeyboardInterrupt) as error:
            problem = str(error) or "interrupted"
        for line in self.page_session.report():
            print(f"[worker] {line}")
        sys.stdout.flush()
        return self.failed(reply, "TimeoutError", problem) if problem and reply["status"] == "ok" else reply


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
