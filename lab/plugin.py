"""The pytest plugin behind `nox -s examples`: stages for claims, a readable report, the evidence."""

from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from _pytest.runner import runtestprotocol

from lab import events, evidence, heartbeat
from lab.rig import Rig
from lab.run import Run
from lab.spec import StageSpec, WorkerSpec
from lab.stage import Stages

_MARKERS = (
    "workers(*specs): the workers a claim needs, each a dict of lab.spec.WorkerSpec; none given: no worker",
    "web: the claim needs the web server",
    "fresh: the claim's workers are started for it alone",
    "server(**options): the claim's broker is a server for it alone, with these lines of redis.conf",
    "mariadb(*options): the claim's database is a MariaDB for it alone, with these options of `mariadbd`",
    "timed(tolerance): time itself is the claim; a measurement during which the machine kept a process of the claim "
    "from working for more than `tolerance` seconds is void, green or red alike, and taken again",
    "broken_by(red, file=, old=, new=, conf=): a break of an example's file or of Celery's settings that must turn "
    "the claim red with a message that matches `red`",
)


# What a line that tells of a claim begins with, so that it can be told from pytest's own.
_PASSED, _FAILED, _VOID = SETTLED = ("  ✓", "  ✗", "  ○")
# So many measurements of a run may be void.
_VOIDS = 3
# What the message of a claim says that failed for want of a measurement.
UNMEASURED = "was not measured"
_REMEDY = "End what else keeps this machine busy, and run again."


def stage_spec(item: pytest.Item) -> StageSpec:
    """Return what a claim's markers ask for."""
    marker, server = item.get_closest_marker("workers"), item.get_closest_marker("server")
    mariadb = item.get_closest_marker("mariadb")
    workers = tuple(WorkerSpec(**spec) for spec in marker.args) if marker else (WorkerSpec(),)
    return StageSpec(
        workers,
        web=item.get_closest_marker("web") is not None,
        fresh=item.get_closest_marker("fresh") is not None,
        server=tuple(server.kwargs.items()) if server else None,
        mariadb=mariadb.args if mariadb else None,
    )


def _timed(item: pytest.Item) -> pytest.Mark | None:
    return item.get_closest_marker("timed")


def exhausted(together: Path, times: int) -> str:
    """Count a void measurement in the file `together`, the `times`th of its claim; return why it is the last, if so."""
    with together.open("a+") as voids:
        voids.write(".")
        voids.flush()
        voids.seek(0)
        total = len(voids.read())
    if times > 1:
        return "it was measured twice"
    return f"a run may have {_VOIDS} void measurements, this is number {total}" if total > _VOIDS else ""


class Claims:
    """One session's claims. Give it to `pytest.main(plugins=[…])`."""

    def __init__(self, run: Run, together: Path) -> None:
        """Stand on `run`. `claims` are those that have ended; `whole` says whether none was left out by choice.

        What is void is counted in the file `together`, for all sessions that are given the same.
        """
        self.claims: list[evidence.Claim] = []
        self.whole = True
        self._stages = Stages(run)
        self._together = together
        self._items: list[pytest.Item] = []

    def pytest_configure(self, config: pytest.Config) -> None:
        """Declare the markers."""
        for marker in _MARKERS:
            config.addinivalue_line("markers", marker)

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Note what comes; a claim without a sentence is an error."""
        self._items = items
        for item in items:
            if not item.function.__doc__:  # type: ignore[attr-defined]
                raise pytest.UsageError(f"{item.nodeid} has no docstring: write the claim's sentence there.")

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Watch how late the machine is, where a claim is one of time: it costs each process fifty starts a second."""
        if not session.config.option.collectonly and any(map(_timed, session.items)):
            heartbeat.start(self._stages.run.folder)

    def pytest_deselected(self, items: list[pytest.Item]) -> None:
        """Note that the chapter is not run whole: its evidence is left as it is."""
        self.whole = not items

    @pytest.fixture
    def rig(self, request: pytest.FixtureRequest) -> Rig:
        """What a test stands on: see `lab.rig.Rig`."""
        item = request.node
        spec = stage_spec(item)
        stages = self._stages
        if spec in stages.prepared() or not stages.current:
            self._look_ahead(item)
        stage = stages.take(spec)
        # Before the claim begins: a fork stops this process for a moment.
        self._look_ahead(item)
        rig = Rig(stages, stage, item.path.parent.name)
        item.stash[_RIG] = rig
        return rig

    def _look_ahead(self, item: pytest.Item) -> None:
        """Start the stages of the next claims while this one runs, unless a red one is to end them all."""
        if item.config.option.maxfail:
            return
        stages = self._stages
        place = self._items.index(item) if item in self._items else len(self._items)
        standing = stages.current.spec if stages.current else None
        prepared = stages.prepared()
        for coming in self._items[place + 1 : place + 8]:
            if "rig" not in getattr(coming, "fixturenames", ()):
                continue
            spec = stage_spec(coming)
            if spec == standing and not spec.fresh:
                continue
            standing = spec
            if spec in prepared:
                prepared.remove(spec)
            elif not stages.prepared() and stages.run.broker.databases > 1:
                stages.prepare(spec)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
        """Measure a timed claim; once more where the measurement is void, which it is whatever its outcome."""
        marker = _timed(item)
        if not marker:
            return None
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        void: list[float] = []
        while True:
            item.stash[_LATE] = 0.0
            reports = runtestprotocol(item, log=False, nextitem=nextitem)
            if item.stash[_LATE] <= marker.args[0]:
                break
            void.append(item.stash[_LATE])
            told = f"the machine was {void[-1]:.2f} s late, the claim tolerates {marker.args[0]:g} s"
            reason = exhausted(self._together, len(void))
            if reason:
                self.claims[-1].outcome = "void"
                (report,) = [report for report in reports if report.when == "call"]
                report.outcome = "failed"
                report.longrepr = f"{item.name} {UNMEASURED}: {told}; {reason}. {_REMEDY}"
                break
            self.claims.pop()
            print(f"{_VOID} {words(item.nodeid)}  void: {told}; measured again", flush=True)
        self.claims[-1].void = [round(late, 3) for late in void]
        for report in reports:
            item.ihook.pytest_runtest_logreport(report=report)
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        return True

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """Count the lines that are executed for the claim."""
        with self._stages.run.lines.claim(f"{item.path.parent.name}/{item.name}"):
            return (yield)

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, None]:
        """Turn each finished call into a claim of the evidence; show the logs of a failed one."""
        rig = item.stash.get(_RIG, None)
        if rig and call.when == "call" and _timed(item):
            item.stash[_LATE] = rig.late()
        outcome = yield
        report = outcome.get_result()
        if report.failed and rig:
            report.sections.append(("processes", rig.logs()))
        if call.when == "call" or (call.when == "setup" and report.failed):
            self._note(item, report, rig)

    def _note(self, item: pytest.Item, report: pytest.TestReport, rig: Rig | None) -> None:
        claim = evidence.Claim(
            test=item.name,
            claim=" ".join((item.function.__doc__ or "").split()),  # type: ignore[attr-defined]
            line=item.location[1] + 1 if item.location[1] is not None else 0,
            outcome=report.outcome,
            seconds=round(report.duration, 3),
            waiting=round(rig.busy(), 3) if rig else 0.0,
            runs=events.record(rig.runs()) if rig else [],
            charts=rig.charts if rig else {},
            outputs=rig.outputs() if rig else {},
        )
        self.claims.append(claim)

    def pytest_report_teststatus(self, report: pytest.TestReport) -> tuple[str, str, str] | None:
        """Leave the printing of passed claims to `pytest_runtest_logreport`."""
        return (report.outcome if report.when == "call" else "", "", "") if report.passed else None

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Print a claim's line as soon as it is settled."""
        if report.when != "call" and not report.failed:
            return
        print(f"{_PASSED if report.passed else _FAILED} {words(report.nodeid)}  {report.duration:.2f} s", flush=True)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        """End the processes, so that their lines are on disk."""
        self._stages.close()


def words(nodeid: str) -> str:
    """Return the name of a claim as words."""
    return nodeid.rpartition("::")[2].removeprefix("test_").replace("_", " ")


_RIG = pytest.StashKey[Rig]()
_LATE = pytest.StashKey[float]()
