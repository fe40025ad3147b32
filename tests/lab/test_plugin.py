"""What markers ask for, how void measurements are counted, and what is told of a break."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lab.falsify import Break, _judge
from lab.plugin import exhausted, stage_spec
from lab.spec import StageSpec, WorkerSpec


@pytest.mark.parametrize(
    ("markers", "spec"),
    [
        ({}, StageSpec((WorkerSpec(),))),
        ({"workers": ()}, StageSpec(())),
        ({"workers": ({}, {"paused": True})}, StageSpec((WorkerSpec(), WorkerSpec(paused=True)))),
        ({"web": (), "fresh": ()}, StageSpec((WorkerSpec(),), web=True, fresh=True)),
    ],
)
def test_markers_say_which_stage_a_claim_needs(markers: dict[str, Any], spec: StageSpec) -> None:
    given = {name: SimpleNamespace(args=args) for name, args in markers.items()}
    item: Any = SimpleNamespace(get_closest_marker=given.get)
    assert stage_spec(item) == spec


def test_void_measurements_are_counted_together_and_a_claim_is_measured_twice_at_most(tmp_path: Path) -> None:
    reasons = [exhausted(tmp_path / "voids", times) for times in (1, 2, 1, 1)]
    fourth = "a run may have 3 void measurements, this is number 4"
    assert reasons == ["", "it was measured twice", "", fourth]


def test_of_a_long_message_falsify_prints_the_end_where_the_reason_stands() -> None:
    found = {"green": 0, "red": [{"when": "call", "message": "ran " + "on and on " * 99 + "the  reason\n"}]}
    good, line = _judge(Break("a/test_a.py::test_a", "another", "tasks.py", "1", "2"), found)
    assert not good
    assert line.endswith(" on and on the reason")
    assert len(line) < 400
