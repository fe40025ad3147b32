"""How lanes share a broker, and in which order work is taken up."""

import os
from collections import Counter
from threading import Event
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from lab import errors, lanes
from lab.broker import Broker


def test_lanes_of_one_time_share_no_database() -> None:
    broker = Broker("redis://127.0.0.1:1/0", 50, "Redis 7")
    shares = [lanes.share(broker, seat, 10) for seat in range(4)]
    # The one before is the run's own.
    assert [(own.first, own.databases) for own in shares] == [(1 + 10 * place, 10) for place in range(4)]


def test_a_broker_with_one_database_is_not_shared() -> None:
    broker = Broker("redis://127.0.0.1:1/7", 1, "Redis 7")
    assert lanes.share(broker, 5, 10) is broker


class Lane:
    """A lane whose work takes as many looks as it says, and no process."""

    open: ClassVar[Counter[str]] = Counter()
    taken: ClassVar[set[int]] = set()

    def __init__(self, _run: Any, number: int, seat: int, _databases: int, work: int, *, lines: bool) -> None:
        self.began, self.left, self.seat = 1e12, work, seat
        # Never ready, as of a process that does not end.
        self.sentinel, _ = os.pipe()
        assert seat not in self.taken
        self.taken.add(seat)
        self.open["now"] += 1
        self.open["most"] = max(self.open.values())

    @property
    def alive(self) -> bool:
        """Whether there is work left; each look does a part of it."""
        self.left -= 1
        return self.left > 0

    def end(self) -> None:
        """Free the place and the seat."""
        self.taken.remove(self.seat)
        self.open["now"] -= 1


@pytest.fixture
def standing(lent: str) -> Any:
    """What of a run a lane that is none asks for."""
    return SimpleNamespace(broker=Broker(lent, 1, ""))


def test_each_work_ends_once_and_no_more_lanes_are_open_than_wanted(
    monkeypatch: pytest.MonkeyPatch, standing: Any
) -> None:
    monkeypatch.setattr(lanes, "Lane", Lane)
    works: Any = [9, 2, 5, 2, 2]
    ended = [place for place, _, end in lanes.each(standing, 2, 10, works, 60) if end]
    assert sorted(ended) == [0, 1, 2, 3, 4]
    assert ended[0] == 1
    assert Lane.open == {"now": 0, "most": 2}


@pytest.mark.parametrize(("load", "most"), [(1000.0, 2), (0.0, 3)])
def test_a_crowded_machine_gets_few_lanes(
    monkeypatch: pytest.MonkeyPatch, standing: Any, load: float, most: int
) -> None:
    monkeypatch.setattr(lanes, "Lane", Lane)
    monkeypatch.setattr(Lane, "open", Counter())
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0))
    works: Any = [5] * 6
    assert sum(end for _, _, end in lanes.each(standing, 3, 10, works, 60, few=2)) == 6
    assert Lane.open == {"now": 0, "most": most}


def test_an_interrupt_that_a_fork_has_lost_ends_the_lanes_all_the_same(
    monkeypatch: pytest.MonkeyPatch, standing: Any
) -> None:
    monkeypatch.setattr(lanes, "Lane", Lane)
    monkeypatch.setattr(errors, "interrupted", Event())
    works: Any = [1000]
    running = lanes.each(standing, 1, 10, works, 60)
    next(running)
    errors.interrupted.set()
    with pytest.raises(KeyboardInterrupt):
        next(running)
    assert Lane.open["now"] == 0
