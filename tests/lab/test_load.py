"""`nox -s load`: what it counts, what it says, what it leaves."""

import json
from collections import Counter
from pathlib import Path

import pytest
from _ext import load as page

from lab import load
from tests.bed import Bed


def test_a_trial_loses_and_doubles_nothing_and_records_nothing(bed: Bed) -> None:
    before = load.RECORD.read_bytes() if load.RECORD.exists() else b""
    done = bed.run("--tasks", "100", module="lab.load")
    assert done.code == 0, done.out + done.err
    assert done.out.count("100 tasks, 0 lost, 0 doubled") == len(load.WORKERS)
    assert (load.RECORD.read_bytes() if load.RECORD.exists() else b"") == before
    assert not bed.folders()


@pytest.mark.parametrize(
    ("argv", "words"), [(["--tasks", "9"], "too few for ten priorities"), (["--task"], "unrecognized arguments")]
)
def test_what_can_not_be_is_one_sentence(bed: Bed, argv: list[str], words: str) -> None:
    done = bed.run(*argv, module="lab.load")
    assert done.code == 1
    assert words in done.sentence
    assert not bed.folders()


def test_what_never_ran_is_lost_and_what_ran_twice_is_doubled() -> None:
    assert load.judge(Counter({0: 1, 1: 2, 3: 3}), 5) == {"lost": 2, "doubled": 2}


def test_the_page_shows_the_figures_while_what_they_depend_on_is_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load, "RECORD", tmp_path / "load.json")
    assert page.told().startswith("Not measured with this version")
    rounds = [{"workers": one, "lost": 0, "doubled": 0, "seconds": 90 / one, "bytes": 801} for one in (1, 2)]
    memory = {"memory": {"first": 50, "last": 53}}
    moved = {"tasks": {"bytes": 1000, "megabytes": 1}, "chain": {"bytes": 70_400, "megabytes": 9}}
    versions = {"celery": "5.7.0", "python": "3.11.7", "broker": "Redis 7.0.15"}
    record = {"recorded": "2026-11-26", "versions": versions, "marks": load.marks(), "tasks": 100_000}
    record |= {"rounds": [one | memory for one in rounds], "links": 1000, "moved": moved}
    load.RECORD.write_text(json.dumps(record))
    told = page.told()
    assert "| 2 | 100,000 | 0 | 0 | 50% of that |" in told
    assert "brought Redis 70 times the bytes" in told
    load.RECORD.write_text(json.dumps(record | {"marks": load.marks() | {"lock": "another"}}))
    assert page.told().startswith("Not measured with this version")
