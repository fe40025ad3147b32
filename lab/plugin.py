"""The pytest plugin behind `nox -s examples`: stages for claims, a readable report, the evidence."""

import os
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from lab import evidence
from lab.bench import Lab
from lab.paths import EVIDENCE, EXAMPLES, chapters
from lab.run import Run
from lab.stage import Stages, StageSpec, WorkerSpec

_MARKERS = (
    "workers(*specs): the workers a claim needs, each a dict of lab.stage.WorkerSpec; none given: no worker",
    "web: the claim needs the web server",
    "fresh: the claim's workers are started for it alone",
    "waits(seconds): how long the claim's own subject takes: a two-second task, a countdown, a rate limit",
    "broken_by(red, file=, old=, new=, conf=): a break of an example's file or of Celery's settings that must turn "
    "the claim red with a message that matches `red`",
)


class Claims:
    """One session's claims. Give it to `pytest.main(plugins=[…])`."""

    def __init__(self, run: Run, *, write: bool = True) -> None:
        """Stand on `run`; `write` says whether the evidence is written."""
        self.run = run
        self._write = write
        self._stages = Stages(run)
        self._items: list[pytest.Item] = []
        self._collected: dict[str, int] = {}
        self._began = time.monotonic()
        self._claims: dict[str, list[evidence.Claim]] = {}
        self._chapter = ""
        self._written: list[str] = []

    def pytest_configure(self, config: pytest.Config) -> None:
        """Declare the markers."""
        for marker in _MARKERS:
            config.addinivalue_line("markers", marker)

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Put the chapters in reading order; a claim without a sentence is an error."""
        order = chapters()
        items.sort(key=lambda item: order.index(item.path.parent.name))
        self._items = items
        for item in items:
            chapter = item.path.parent.name
            self._collected[chapter] = self._collected.get(chapter, 0) + 1
            if not item.function.__doc__:  # type: ignore[attr-defined]
                raise pytest.UsageError(f"{item.nodeid} has no docstring: write the claim's sentence there.")

    def pytest_deselected(self, items: list[pytest.Item]) -> None:
        """Note the chapters that are not run whole: their evidence is left as it is."""
        for item in items:
            self._collected[item.path.parent.name] = -1

    def stage_spec(self, item: pytest.Item) -> StageSpec:
        """Return what `item`'s markers ask for."""
        marker = item.get_closest_marker("workers")
        workers = tuple(WorkerSpec(**spec) for spec in marker.args) if marker else (WorkerSpec(),)
        return StageSpec(
            workers,
            web=item.get_closest_marker("web") is not None,
            fresh=item.get_closest_marker("fresh") is not None,
        )

    @pytest.fixture
    def lab(self, request: pytest.FixtureRequest) -> Lab:
        """The bench: see `lab.bench.Lab`."""
        item = request.node
        spec = self.stage_spec(item)
        stages = self._stages
        if spec in stages.prepared() or not stages.current:
            self._look_ahead(item)
        bench = Lab(stages, stages.take(spec), item.path.parent.name)
        self._look_ahead(item)
        item.stash[_BENCH] = bench
        return bench

    def _look_ahead(self, item: pytest.Item) -> None:
        """Start the stages of the next claims while this one runs."""
        stages = self._stages
        place = self._items.index(item) if item in self._items else len(self._items)
        standing = stages.current.spec if stages.current else None
        prepared = stages.prepared()
        for coming in self._items[place + 1 : place + 8]:
            if "lab" not in getattr(coming, "fixturenames", ()):
                continue
            spec = self.stage_spec(coming)
            if spec == standing and not spec.fresh:
                continue
            standing = spec
            if spec in prepared:
                prepared.remove(spec)
            elif len(stages.prepared()) < stages.ahead:
                stages.prepare(spec)

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, None]:
        """Turn each finished call into a claim of the evidence; show the logs of a failed one."""
        outcome = yield
        report = outcome.get_result()
        bench = item.stash.get(_BENCH, None)
        if report.failed and bench:
            report.sections.append(("processes", bench.logs()))
        if call.when == "call" or (call.when == "setup" and report.failed):
            marker = item.get_closest_marker("waits")
            waiting = float(marker.args[0]) if marker else 0.0
            if report.passed and waiting > call.duration:
                report.outcome = "failed"
                report.longrepr = f"declares {waiting} s of waiting but took {call.duration:.2f} s"
            self._note(item, report, waiting, bench)

    def _note(self, item: pytest.Item, report: pytest.TestReport, waiting: float, bench: Lab | None) -> None:
        claim = evidence.Claim(
            test=item.name,
            claim=" ".join((item.function.__doc__ or "").split()),  # type: ignore[attr-defined]
            line=item.location[1] + 1 if item.location[1] is not None else 0,
            outcome=report.outcome,
            seconds=round(report.duration, 3),
            waiting=waiting,
            events=bench._recorder.as_record() if bench else [],
            data=bench.data if bench else {},
        )
        self._claims.setdefault(item.path.parent.name, []).append(claim)

    def pytest_report_teststatus(self, report: pytest.TestReport) -> tuple[str, str, str] | None:
        """Leave the printing of passed claims to `pytest_runtest_logreport`."""
        return (report.outcome if report.when == "call" else "", "", "") if report.passed else None

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Print a claim's line as soon as it is settled."""
        if report.when != "call" and not report.failed:
            return
        chapter = Path(report.fspath).parent.name
        if chapter != self._chapter:
            print(f"\n{chapter}", flush=True)
            self._chapter = chapter
        name = report.nodeid.rpartition("::")[2].removeprefix("test_").replace("_", " ")
        mark = {"passed": "✓", "failed": "✗"}.get(report.outcome, "?")
        print(f"  {mark} {name}  {report.duration:.2f} s", flush=True)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """End the processes, so that their lines are on disk, and write the evidence."""
        self._stages.close()
        if not self._claims:
            return
        whole = {name: claims for name, claims in self._claims.items() if self._collected.get(name) == len(claims)}
        if self._write and whole:
            evidence.record(self.run, whole)
            self._written = list(whole)

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Print the table and the versions."""
        if not self._claims:
            return
        total = time.monotonic() - self._began
        print("\nchapter           claims   seconds   of these waiting")
        for chapter, claims in self._claims.items():
            seconds, waiting = sum(c.seconds for c in claims), sum(c.waiting for c in claims)
            print(f"{chapter:<16} {len(claims):>7} {seconds:>9.1f} {waiting:>18.1f}")
        every = [claim for claims in self._claims.values() for claim in claims]
        waiting = sum(claim.waiting for claim in every)
        print(f"{'all':<16} {len(every):>7} {total:>9.1f} {waiting:>18.1f}\n")
        names = {"allianceauth": "Alliance Auth", "celery": "Celery", "kombu": "kombu", "django": "Django"}
        versions = self.run.versions()
        line = " · ".join(f"{shown} {versions[name]}" for name, shown in names.items())
        print(f"{line} · Python {versions['python']} · {versions['broker']}")
        if self._written:
            print(f"Evidence of {', '.join(self._written)}: {os.path.relpath(EVIDENCE, EXAMPLES.parent)}")


_BENCH = pytest.StashKey[Lab]()
