"""The order of a worker's lines is the same each time, whichever of its threads was woken first."""

import itertools
import random

from lab.events import TaskRun
from lab.pages.order import Record, ends, lines, settled


def run(
    id: str, sent: float, received: float = 0.0, ended: float | None = 9.0, root: str = "", parent: str = ""
) -> TaskRun:
    return TaskRun(id, name=id, sent=sent, received=received, ended=ended, root=root, parent=parent)


def record(task: str, at: float = 0.0, text: str = "") -> Record:
    return Record(at, "INFO", task, text)


def shown(arrived: list[Record], *runs: TaskRun) -> str:
    """Return the tasks of the records in the order in which a reader sees them, each of one letter."""
    return "".join(record.task for record in settled(arrived, list(runs)))


SIDE_BY_SIDE = [run(name, sent) for sent, name in enumerate("abcd")]


def test_side_by_side_tasks_stand_in_the_order_in_which_they_were_sent_whichever_logged_first() -> None:
    for arrived in itertools.permutations("abcd"):
        assert shown([record(name, number / 100) for number, name in enumerate(arrived)], *SIDE_BY_SIDE) == "abcd"


def test_what_was_logged_some_time_later_stays_later() -> None:
    assert shown([record("b", 0.0), record("a", 0.2)], *SIDE_BY_SIDE) == "ba"
    assert shown([record("b", 0.0), record("a", 0.1)], *SIDE_BY_SIDE) == "ab"


def test_a_task_that_was_received_when_another_had_ended_stays_behind_it() -> None:
    late = [run("b", 1, received=0.0, ended=0.05), run("a", 0, received=0.06)]
    assert shown([record("b", 0.04), record("a", 0.07)], *late) == "ba"


def test_a_task_that_has_not_ended_is_side_by_side_with_all_that_came_after_it() -> None:
    assert shown([record("b", 0.04), record("a", 0.07)], run("b", 1, ended=None), run("a", 0)) == "ab"


def test_the_lines_of_one_task_keep_their_order() -> None:
    texts = [record("a", 0.03, "first"), record("b", 0.03), record("a", 0.02, "second"), record("a", 0.01, "third")]
    assert [found.text for found in settled(texts, SIDE_BY_SIDE) if found.task == "a"] == ["first", "second", "third"]


def test_what_no_known_task_logged_stays_where_it_is_and_nothing_passes_it() -> None:
    assert shown([record("b"), record("?"), record("a"), record(""), record("c")], *SIDE_BY_SIDE) == "b?ac"
    assert shown([record("b"), record("a")]) == "ba"


def test_links_of_chains_stand_by_their_number_then_by_when_their_chain_was_sent() -> None:
    chains = [
        run("a", 0.0, root="a"),
        run("b", 0.1, root="b"),
        # The second chain's second link was sent first.
        run("d", 0.2, root="b", parent="b"),
        run("c", 0.3, root="a", parent="a"),
    ]
    for arrived in itertools.permutations("abcd"):
        assert shown([record(name) for name in arrived], *chains) == "abcd"
    assert ends(chains[::-1]) == ["a sent", "b sent", "c sent", "d sent"]


def test_a_chain_of_thousands_of_links_has_an_order() -> None:
    links = [run(str(number), number, root="0", parent=str(number - 1)) for number in range(2000)]
    assert [found.task for found in settled([record("1999"), record("1998")], links)] == ["1998", "1999"]


def _moves(arrived: list[Record], runs: list[TaskRun]) -> list[int]:
    """Return where two neighbours could as well have come the other way round: tried with them alone."""
    pairs = [(arrived[at], arrived[at + 1]) for at in range(len(arrived) - 1)]
    return [at for at, (one, other) in enumerate(pairs) if settled([one, other], runs) == settled([other, one], runs)]


def test_arrivals_that_differ_by_chance_alone_are_shown_alike_and_no_other_order_is_touched() -> None:
    dice = random.Random(10)
    for _ in range(100):
        starts = [dice.uniform(0, 0.5) for _ in range(6)]
        runs = [
            run(str(number), dice.random(), start, start + dice.uniform(0, 0.4)) for number, start in enumerate(starts)
        ]
        arrived = sorted(record(str(dice.randrange(7)), dice.uniform(0, 0.6), str(number)) for number in range(8))
        first = settled(arrived, runs)
        assert settled(first, runs) == first
        for one, other in itertools.combinations(arrived, 2):
            if settled([one, other], runs) != settled([other, one], runs):
                assert first.index(one) < first.index(other)
        for _ in range(20):
            if moves := _moves(arrived, runs):
                at = dice.choice(moves)
                arrived[at : at + 2] = arrived[at + 1], arrived[at]
                assert settled(arrived, runs) == first


def test_a_line_has_its_level_and_its_further_lines_are_indented() -> None:
    assert lines([Record(0.0, "ERROR", "", "no\nyes")], []) == ["ERROR no\n         yes"]
