"""What `nox -s matrix` can run on, and what it tells of another outcome."""

from pathlib import Path

import pytest

from lab import matrix
from lab.errors import LabError

ONE = "aa-5.5 threads redis sqlite"
CLAIM = "test_a_loop_of_delay_runs_five_at_once"


def record(*differ: str) -> dict[str, object]:
    """Return a record of one combination whose claims do not hold as named."""
    versions = {"allianceauth": "5.5.0", "celery": "5.7.0"}
    return {ONE: {"versions": versions, "chapters": {"chains": {"green": 9, "differ": list(differ)}}}}


def test_each_combination_stands_once_and_its_release_has_a_lock() -> None:
    found = matrix.combinations()
    assert len(found) == len(set(found)) >= 10
    for one in found:
        assert "--hash=sha256:" in (matrix.FOLDER / f"{one.release}.txt").read_text()
        assert (one.pool in ("threads", "prefork"), one.database in ("sqlite", "mariadb")) == (True, True)


def test_another_outcome_is_told_in_a_line_for_the_changelog() -> None:
    where = f"Alliance Auth 5.5.0, Celery 5.7.0 ({ONE})"
    assert matrix.news(record(CLAIM), record("test_b")) == (
        f"- chains/test_b does not hold with {where}\n- chains/{CLAIM} holds with {where} now\n"
    )
    # It was taken out since.
    assert matrix.news(record("test_a"), record()) == ""
    assert matrix.news(record("test_a"), record("test_a")) == ""
    assert matrix.news({}, record("test_a")) == ""


def test_words_that_no_combination_has_are_one_sentence() -> None:
    with pytest.raises(
        LabError, match=r"No combination has the words aa-1\.0 prefork: matrix/combinations\.toml lists"
    ):
        matrix.main(["aa-1.0", "prefork"])


def test_a_record_counts_for_the_files_and_the_lock_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (one,) = (one for one in matrix.combinations() if one.name == ONE)
    kept = {"chains": {"digest": one.digest("chains"), "green": 9, "differ": []}}
    monkeypatch.setattr(matrix, "recorded", lambda: {ONE: {"chapters": kept}})
    assert matrix.holding(one) == kept
    lock = matrix.FOLDER / f"{one.release}.txt"
    (tmp_path / lock.name).write_text(lock.read_text() + "another\n")
    monkeypatch.setattr(matrix, "FOLDER", tmp_path)
    assert matrix.holding(one) == {}
