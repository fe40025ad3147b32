"""How claims' tests go in a fork whose examples or settings were changed."""

import os
from collections.abc import Generator
from typing import Any

import pytest

from lab.__main__ import QUIET
from lab.events import Recorder
from lab.plugin import Claims
from lab.processes import deadline
from lab.run import Run


class _Verdict:
    """Notes how many tests were green, and each that was not: its name, when, and why.

    A test that takes longer than `seconds` is red.
    """

    def __init__(self, seconds: float) -> None:
        self.green = 0
        self.red: list[dict[str, str]] = []
        self._seconds = seconds

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self) -> Generator[None, Any, Any]:
        with deadline(self._seconds, lambda: pytest.fail(f"it did not end within {self._seconds:g} s")):
            return (yield)

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.green += report.when == "call" and report.passed
        if report.failed:
            crash = getattr(report.longrepr, "reprcrash", None)
            message = crash.message if crash else str(report.longrepr or "")
            self.note(report.nodeid.rpartition("::")[2], report.when or "", message)

    @pytest.hookimpl(trylast=True)
    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.note(report.nodeid, "collect", str(report.longrepr))

    def note(self, test: str, when: str, message: str) -> None:
        self.red.append({"test": test, "when": when, "message": message})


def of(own: Run, *what: str, seconds: float = 0, patience: float = 1) -> dict[str, Any]:
    """Run pytest on `what` in this fork and return `green`, a count, and `red`, each with `test`, `when`, `message`.

    A test that takes longer than `seconds` is red; 0 stands for none. It waits for `patience` of each deadline;
    `cut_short` tells whether that ended a wait.
    """
    Recorder.patience, Recorder.cut_short = patience, False
    # A sixth of a second of each worker's start; the examples' own run has made them.
    os.environ["CELERY_SKIP_CHECKS"] = "1"
    verdict = _Verdict(seconds)
    # Two seconds on a busy machine, to tell in lines of source what nobody reads.
    pytest.main([*QUIET, "--tb=line", *what], plugins=[Claims(own, own.folder / "voids"), verdict])
    return {"green": verdict.green, "red": verdict.red, "cut_short": Recorder.cut_short}


def without_a_test(test: str, why: str) -> dict[str, Any]:
    """Return the verdict of a fork that ran no test."""
    return {"green": 0, "red": [{"test": test, "when": "", "message": why}]}
