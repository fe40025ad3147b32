"""Every call that has Run does in Chromium what it did in reality, whatever was run before it."""

import json
from typing import Any

import pytest
from _ext import online

from lab.paths import EXAMPLES
from tests.online.engine import Engine
from tests.online.record import difference, printed

RECORD: dict[str, Any] = json.loads(online.PROVEN.read_text())
pytestmark = pytest.mark.xdist_group("engine")

# Two tasks that write, and sleep before they commit.
WRITERS = """
import time

from allianceauth.eveonline.models import EveCorporationInfo
from celery import shared_task
from django.db import transaction


@shared_task
def write(number):
    with transaction.atomic():
        EveCorporationInfo.objects.create(
            corporation_id=number, corporation_name=str(number), corporation_ticker="T", member_count=1
        )
        time.sleep(0.5)
"""
WRITE = """
from chains.tasks import write
write.delay(1)
write.delay(2)
"""
# A second four times, twenty tasks.
LIMITED = """
from celery import shared_task


@shared_task(rate_limit="4/s")
def limited(number): ...
"""


def test_each_call_with_run_prints_and_does_what_it_did_in_reality(engine: Engine) -> None:
    """In an order that is not that of any page."""
    wanted = printed()
    found = {}
    for call in sorted(RECORD["calls"], key=lambda call: call[::-1]):
        result = engine.run((EXAMPLES / call).read_text())
        found[call] = difference(result, wanted[call], RECORD["tasks"][call])
    assert {call: told for call, told in found.items() if told} == {}


@pytest.mark.parametrize("call", ["when_to_use/demo_too_early.py", "user_interface/demo_too_early.py"])
def test_what_is_sent_before_the_commit_fails_as_in_reality(engine: Engine, call: str) -> None:
    out = engine.run((EXAMPLES / call).read_text())["out"]
    assert "DoesNotExist('EveCorporationInfo matching query does not exist.')" in out


def test_two_tasks_that_sleep_inside_their_transactions_both_succeed(engine: Engine) -> None:
    assert engine.define("chains.tasks", WRITERS)
    runs = engine.run(WRITE)["runs"]
    assert [run["state"] for run in runs] == ["succeeded", "succeeded"]
    # The second waits for the lock of the first.
    assert 0.9 < max(run["ended"] for run in runs) < 1.5


def test_a_rate_limit_holds_its_pace(engine: Engine) -> None:
    assert engine.define("chains.tasks", LIMITED)
    runs = engine.run("from chains.tasks import limited\nfor number in range(21):\n    limited.delay(number)\n")["runs"]
    starts = [run["started"] for run in runs]
    assert len(starts) == 21
    assert starts[-1] - starts[0] == pytest.approx(5.0, abs=0.25)
