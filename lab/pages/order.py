"""The order in which a reader sees what a worker logged: as it came, but where chance alone decided that."""

from typing import NamedTuple

from lab.events import TaskRun

# Two tasks that run at the same time log in an order that nobody decides: within this many seconds it is not shown.
# Less than the 0.2 s that the examples' slow tasks take, whose order means something.
_TOGETHER = 0.18
_LATE = float("inf")


class Record(NamedTuple):
    """What a worker logged at the time `at`, in seconds; `task` is the id of the task that did, if one did."""

    at: float
    level: str
    task: str
    text: str


def lines(records: list[Record], runs: list[TaskRun]) -> list[str]:
    """Return the records as lines for a reader, in the order of `settled`."""
    return [f"{record.level} " + record.text.replace("\n", "\n         ") for record in settled(records, runs)]


def ends(runs: list[TaskRun]) -> list[str]:
    """Return how each task ended, in the order of their places."""
    places = _places(runs)
    return [f"{run.name} {run.state}" for run in sorted(runs, key=lambda run: places[run.id])]


def settled(records: list[Record], runs: list[TaskRun]) -> list[Record]:
    """Return the records in an order that is the same each time, whichever way the worker's threads were woken.

    Two records keep the order in which they came, unless chance alone decided it, as `_by_chance` tells. Of all the
    orders that are left, this is the one in which, from the first record on, each is of the task with the earliest
    place (see `_places`) that can stand there.
    """
    places, known = _places(runs), {run.id: run for run in runs}
    found: list[Record] = []
    for record in records:
        # It may stand anywhere behind the last record that it has to follow: before the first of a later place there.
        free = len(found)
        while free and _by_chance(found[free - 1], record, known):
            free -= 1
        later = (at for at in range(free, len(found)) if places[found[at].task] > places[record.task])
        found.insert(next(later, len(found)), record)
    return found


def _by_chance(first: Record, second: Record, known: dict[str, TaskRun]) -> bool:
    """Whether chance alone decided which of two records came first.

    It did where they are of two tasks that were in the worker's hands at the same time, and nearly simultaneous: from
    its receipt to its end a task is with the worker's threads, and any of them may come first.
    """
    one, other = known.get(first.task), known.get(second.task)
    if not one or not other or one is other:
        return False
    received = max(one.received or 0, other.received or 0)
    ended = min(_LATE if run.ended is None else run.ended for run in (one, other))
    return received < ended and abs(second.at - first.at) < _TOGETHER


def _places(runs: list[TaskRun]) -> dict[str, tuple[int, float, float]]:
    """Return each task's place by its id: links of chains by their number, then in the order in which they were sent.

    When a link is sent depends on how long the one before it took; so of links with the same number the one whose
    chain was sent first comes first.
    """
    known = {run.id: run for run in runs}

    def sent(run: TaskRun) -> float:
        return _LATE if run.sent is None else run.sent

    def number(run: TaskRun) -> int:
        count = 0
        while run.parent in known:
            run = known[run.parent]
            count += 1
        return count

    return {run.id: (number(run), sent(known.get(run.root, run)), sent(run)) for run in runs}
