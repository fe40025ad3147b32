"""What the figures draw of their data."""

import json
from xml.etree import ElementTree

import pytest

from lab import figure
from lab.figure import Bar, Figure


def drawn(made: Figure, tag: str, kind: str = "") -> list[ElementTree.Element]:
    """Return the elements `tag` of a drawing, or those of one class; an error where it is no XML."""
    found = ElementTree.fromstring(f"<svg>{''.join(made.body)}</svg>").iter(tag)
    return [element for element in found if kind in (element.get("class") or "").split() or not kind]


def words(made: Figure) -> list[str | None]:
    """Return all that is written in a drawing."""
    return [element.text for element in drawn(made, "text")]


@pytest.mark.parametrize("most", [0.004, 0.3, 1, 2.1, 7, 60, 99.9, 1000, 54321])
def test_ticks_are_round_and_neither_few_nor_many(most: float) -> None:
    marks = figure.ticks(most)
    assert marks[0] == 0
    assert marks[-1] <= most < marks[-1] + marks[1]
    assert 4 <= len(marks) <= 14
    assert marks[1] == float(f"{marks[1]:.1e}"), "a step has more than two digits"


def test_nothing_has_one_tick() -> None:
    assert figure.ticks(0) == [0]


def test_there_are_as_many_lanes_as_bars_at_a_time() -> None:
    first, second, third = Bar("g", "1", 0, 2), Bar("g", "2", 1, 3), Bar("g", "3", 2, 4)
    assert figure.lanes([third, second, first]) == [[first, third], [second]]


def test_an_overlap_that_does_not_count_leaves_bars_in_a_lane() -> None:
    link, next_link = Bar("g", "1", 0, 1.01), Bar("g", "2", 1, 2)
    assert len(figure.lanes([link, next_link])) == 2
    assert figure.lanes([link, next_link], overlap=0.02) == [[link, next_link]]


def test_a_timeline_has_a_bar_and_a_row_for_each_stretch_whether_it_comes_from_here_or_from_json() -> None:
    rows = [Bar("a loop", "1", 0, 2, "two"), Bar("a loop", "2", 1, 3, "two"), Bar("a chain", "1", 0, 1, "one", "done")]
    made = figure.timeline(rows)
    assert figure.draw("timeline", json.loads(json.dumps(rows))) == made
    assert [len(drawn(made, "rect", kind)) for kind in ("one", "two")] == [1, 2]
    upper, lower = drawn(made, "rect", "two")
    assert upper.get("y") != lower.get("y"), "two at a time stand in one lane"
    assert {"a loop", "a chain", "done"} <= set(words(made))
    assert made.rows[1] == ("a loop", "2", "1.00", "3.00")


def test_an_order_has_a_line_from_each_place_to_the_other() -> None:
    made = figure.draw("order", [["b", 2, "two"], ["a", 1, "one"]], names=["sent", "ran"])
    down, up = drawn(made, "line", "link")
    assert (down.get("y1"), down.get("y2")) == (up.get("y2"), up.get("y1"))
    assert made.rows == [("1", "b", "2"), ("2", "a", "1")]
    assert words(made)[:2] == ["sent", "ran"]


def test_a_staircase_has_a_step_for_each_instant_and_a_line_for_each_mark() -> None:
    rows = [["at once", [0.2, 0.1]], ["spread", [1, 2, 3]]]
    made = figure.draw("staircase", rows, counted="started", marks=[[1.5, "sent"]])
    assert [path.get("d", "").count("V") for path in drawn(made, "path", "stair")] == [2, 3]
    assert len(drawn(made, "line", "mark")) == 1
    assert made.rows[:2] == [("at once", "1", "0.10"), ("at once", "2", "0.20")], "the steps are not in their order"
    assert made.rows[-1] == ("sent", "", "1.50")
    assert made.legend == [("one", "at once"), ("two", "spread")]


def test_bars_have_a_panel_for_each_row_and_name_the_highest() -> None:
    made = figure.draw("bars", [["before", [0, 8, 0]], ["after", [2, 4, 2]]], unit="minute", counted="calls")
    assert [len(drawn(made, "rect", kind)) for kind in ("one", "two")] == [1, 3]
    heights = [float(bar.get("height", 0)) for bar in drawn(made, "rect")]
    assert heights == [92, 23, 46, 23], "the panels have scales of their own"
    assert {"at most 8", "at most 4", "minute", "calls"} <= set(words(made))


def test_words_of_any_kind_are_escaped() -> None:
    made = figure.draw("timeline", [["<i>&", "<b>", 0, 1, "one", "<u>"]], legend=[["one", "<s>"]])
    markup = made.markup("name", "<title> \"&'")
    assert not any(tag in markup for tag in ("<i>", "<b>", "<u>", "<s>", "<title> "))
    assert "<td>&lt;i&gt;&amp;</td>" in markup


def test_a_chart_of_a_kind_or_with_data_that_is_not_known_is_an_error() -> None:
    with pytest.raises(KeyError, match="pie"):
        figure.draw("pie", [])
    with pytest.raises(TypeError, match="slices"):
        figure.draw("bars", [["a", [1]]], unit="minute", counted="calls", slices=3)
