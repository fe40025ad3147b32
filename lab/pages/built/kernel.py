"""Each cell starts from an untouched database and has a deadline; what the worker logged follows what it printed."""

import os
import sys
from typing import Any, NoReturn

from lab.pages.kernel import PageKernel
from lab.processes import deadline

# A cell of a page is a few lines and two or three seconds of tasks; more is a mistake. 0 means no limit.
DEADLINE = float(os.environ.get("LAB_CELL_DEADLINE", "30"))


class BuildKernel(PageKernel):
    """Runs a cell and sees it through to the end of all that it sent."""

    language_info = {**PageKernel.language_info, "pygments_lexer": "python"}  # noqa: RUF012

    async def do_execute(self, code: str, silent: bool, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Run a cell, wait for its tasks, print what the worker logged."""
        self.page_session.begin()

        def expire() -> NoReturn:
            raise TimeoutError(f"the cell did not end within {DEADLINE:g} s")

        with deadline(DEADLINE, expire):
            reply: dict[str, Any] = await super().do_execute(code, silent, *args, **kwargs)
        problem = ""
        try:
            self.page_session.stage.recorder.wait(
                self.page_session.stage.quiet,
                DEADLINE or 3600,
                "the end of every task that the cell sent",
            )
        except (TimeoutError, KeyboardInterrupt) as error:
            problem = str(error) or "interrupted"
        for line in self.page_session.report():
            print(f"[worker] {line}")
        sys.stdout.flush()
        return self.failed(reply, "TimeoutError", problem) if problem and reply["status"] == "ok" else reply
