"""What an engine is held against: each check returns what is not as in reality, and nothing where all is."""

import json
from collections.abc import Callable

from _ext import online

from lab.paths import EXAMPLES
from tests.online.compare import TOLERANCE
from tests.online.engine import Engine
from tests.online.record import difference, printed

# In the place of a chapter's tasks: writes and sleeps before it commits; at most four a second; takes a while; looks
# for a row, and the worker calculates before it starts it.
_TASKS = """
import time

from allianceauth.eveonline.models import EveCorporationInfo
from celery import shared_task
from celery.signals import task_received
from django.db import transaction


@shared_task
def write(number):
    with transaction.atomic():
        EveCorporationInfo.objects.create(
            corporation_id=number, corporation_name=str(number), corporation_ticker="T", member_count=1
        )
        time.sleep(0.5)


@shared_task(rate_limit="4/s")
def limited(number): ...


@shared_task
def busy(number):
    time.sleep(1)


@shared_task
def look(number):
    assert not EveCorporationInfo.objects.filter(corporation_id=number).exists()


@task_received.connect(dispatch_uid="slow")
def calculate(request, **_):
    if request.name == look.name:
        sum(range(1_000_000))
"""
# Sends it before the commit.
_EARLY = """
from allianceauth.eveonline.models import EveCorporationInfo
from django.db import transaction

from chains.tasks import look

with transaction.atomic():
    EveCorporationInfo.objects.create(corporation_id=1, member_count=1)
    look.delay(1)
"""
_CHAPTER = "chains.tasks"


def calls(engine: Engine) -> str:
    """Play each call that has Run, in an order that is not that of any page."""
    recorded, wanted = json.loads(online.PROVEN.read_text()), printed()
    for call in sorted(recorded["calls"], key=lambda call: call[::-1]):
        result = engine.run((EXAMPLES / call).read_text())
        if different := difference(result, wanted[call], recorded["tasks"][call]):
            return f"{call}: {different}"
    return ""


def too_early(engine: Engine) -> str:
    """A task that is sent before the commit does not find the row."""
    for call in ("when_to_use/demo_too_early.py", "user_interface/demo_too_early.py"):
        out = engine.run((EXAMPLES / call).read_text())["out"]
        if "DoesNotExist('EveCorporationInfo matching query does not exist.')" not in out:
            return f"{call}: {out}"
    return ""


def slow_and_too_early(engine: Engine) -> str:
    """Nor does it where the worker takes longer to start it than any head start by the clock."""
    engine.define(_CHAPTER, _TASKS)
    states = [run["state"] for run in engine.run(_EARLY)["runs"]]
    return "" if states == ["succeeded"] else f"it has {', '.join(states)}: the row was there"


def writers(engine: Engine) -> str:
    """Two tasks that sleep inside their transactions both succeed, one after the other."""
    engine.define(_CHAPTER, _TASKS)
    runs = engine.run(f"from {_CHAPTER} import write\nwrite.delay(1)\nwrite.delay(2)\n")["runs"]
    states, took = [run["state"] for run in runs], max(run.get("ended", 0.0) for run in runs)
    return "" if states == ["succeeded"] * 2 and 1 <= took < 1 + 2 * TOLERANCE else f"{states} after {took} s"


def rate_limit(engine: Engine) -> str:
    """Twenty-one tasks of which four may start each second do so within five seconds."""
    engine.define(_CHAPTER, _TASKS)
    runs = engine.run(f"from {_CHAPTER} import limited\nfor number in range(21):\n    limited.delay(number)\n")["runs"]
    took = runs[-1]["started"] - runs[0]["started"]
    return "" if len(runs) == 21 and abs(took - 5) < TOLERANCE else f"{len(runs)} tasks in {took} s"


def priorities(engine: Engine) -> str:
    """Behind what the worker holds, ten tasks of ten priorities start in their order, five at once."""
    engine.define(_CHAPTER, _TASKS)
    source = f"from {_CHAPTER} import busy\nfor number in range(10):\n    busy.apply_async([number], priority=0)\n"
    source += "for number in range(9, -1, -1):\n    busy.apply_async([100 + number], priority=number)\n"
    runs = engine.run(source)["runs"]
    order = [int(run["args"].strip("[](),")) for run in runs][10:]
    found = [sorted(order[:5]), sorted(order[5:])]
    return "" if found == [[100, 101, 102, 103, 104], [105, 106, 107, 108, 109]] else f"started in order {order}"


CHECKS: tuple[Callable[[Engine], str], ...] = (
    calls,
    too_early,
    slow_and_too_early,
    writers,
    rate_limit,
    priorities,
)
