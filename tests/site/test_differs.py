"""Each claim that does not hold everywhere has a reason, and each reason a claim."""

from _ext import differs

from lab import matrix

DIFFER = [(one, name, test) for one, _, held in matrix.rows() for name, kept in held.items() for test in kept["differ"]]


def test_each_difference_that_was_measured_has_a_reason() -> None:
    without = [
        f"{one.name}: {chapter}/{test}"
        for one, chapter, test in DIFFER
        if not any(reason.chapter == chapter and reason.covers(one, test) for reason in differs.reasons())
    ]
    assert without == []


def test_each_reason_stands_for_differences_that_were_measured() -> None:
    for reason in differs.reasons():
        found = {test for one, chapter, test in DIFFER if chapter == reason.chapter and reason.covers(one, test)}
        assert found == set(reason.claims), reason
