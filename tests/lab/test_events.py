"""How events become runs, and how long is waited for them."""

import itertools
import time
from typing import Any

import pytest

from lab.errors import LabError, TimedOut
from lab.events import TaskRun, record, runs
from lab.waiting import wait_until


def event(kind: str, uuid: str, at: float, **fields: Any) -> dict[str, Any]:
    """Return an event as a worker sends it, `at` seconds after a claim began."""
    return {"type": f"task-{kind}", "uuid": uuid, "timestamp": 1000 + at, "hostname": "celery@worker_00", **fields}


def test_the_events_of_a_task_are_one_run_and_runs_come_in_the_order_of_their_start() -> None:
    late = [event(kind, "late", at, name="x.late") for at, kind in enumerate(("sent", "received", "started"))]
    early = [event("sent", "early", 3), event("received", "early", 4), event("started", "early", 1.5)]
    never = [event("sent", "never", 0.5)]
    first, second, third = runs([*never, *late, {"type": "worker-online"}, *early, event("failed", "late", 5)], 1000)
    assert (first.id, second.id, third.id) == ("early", "late", "never")
    assert (second.name, second.sent, second.received, second.started, second.ended) == ("x.late", 0, 1, 2, 5)
    assert (second.state, second.worker, third.state) == ("failed", "worker_00", "sent")


def test_a_retried_task_is_one_run_though_its_retry_is_told_after_its_end() -> None:
    kinds = ["sent", "started", "retried", "started", "succeeded", "retried"]
    (run,) = runs([event(kind, "one", at, parent_id="one") for at, kind in enumerate(kinds)], 1000)
    assert (run.started, run.retries, run.ended, run.state, run.parent) == (1, [2, 5], 4, "succeeded", "")


def test_a_start_that_is_told_late_is_not_after_the_end_less_what_the_task_took() -> None:
    events: list[tuple[float, dict[str, Any]]] = [
        (4, {"runtime": 2}),
        (1, {"runtime": 2}),
        (4, {"runtime": None}),
        (4, {}),
    ]
    told = [runs([event("started", "one", at), event("succeeded", "one", 5, **more)], 1000) for at, more in events]
    assert [run.started for (run,) in told] == [3, 1, 4, 4]


@pytest.mark.parametrize("state", ["sent", "received", "started", "retried"])
def test_a_task_is_over_when_it_succeeded_failed_or_was_thrown_away(state: str) -> None:
    assert not TaskRun("one", state=state).over
    assert all(TaskRun("one", state=end).over for end in ("succeeded", "failed", "rejected", "revoked"))


def test_the_evidence_has_small_numbers_for_ids_and_nothing_empty() -> None:
    first, second = TaskRun("a-b", name="x.y", root="a-b", sent=0.0), TaskRun("c-d", parent="a-b", retries=[1.00001])
    assert record([first, second]) == [
        {"id": 1, "name": "x.y", "root": 1, "sent": 0.0, "state": "sent", "retries": []},
        {"id": 2, "parent": 1, "state": "sent", "retries": [1.0]},
    ]


def test_a_wait_counts_from_the_last_progress_and_ends_after_three_times_as_long() -> None:
    began = time.monotonic()
    with pytest.raises(TimedOut, match=r"^rain did not happen within 0\.1 s$") as without:
        wait_until(lambda: False, 0.1, "rain")
    between = time.monotonic()
    with pytest.raises(LabError):
        wait_until(lambda: False, 0.1, "rain", progress=itertools.count().__next__)
    assert isinstance(without.value, TimeoutError)
    assert between - began >= 0.1
    assert time.monotonic() - between >= 0.3
    assert wait_until(lambda: "drops", 0, "rain") == "drops"
