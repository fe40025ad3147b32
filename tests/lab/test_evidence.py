"""The evidence says what the site rests on: everything green, every line executed, nothing skipped."""

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest

from lab import evidence, statements
from lab.paths import EXAMPLES, ROOT, chapters

TESTS = sorted(EXAMPLES.glob("*/test_*.py"))


@pytest.fixture(scope="module")
def recorded() -> dict[str, Any]:
    """Load the chapters of the evidence."""
    found: dict[str, Any] = evidence.load()["chapters"]
    assert found, "build/evidence.json is missing: run nox -s examples first"
    return found


def test_every_chapter_has_tests_a_page_and_evidence_all_green_and_of_the_files_as_they_are() -> None:
    for name in chapters():
        assert (EXAMPLES / name / f"test_{name}.py").is_file()
        assert (ROOT / "docs" / f"{name}.md").is_file()
    assert evidence.needed(chapters()) == [], "run nox -s examples first"


def test_there_are_at_least_sixty_claims(recorded: dict[str, Any]) -> None:
    assert sum(len(chapter["claims"]) for chapter in recorded.values()) >= 60


def test_every_test_of_the_examples_is_in_the_evidence(recorded: dict[str, Any]) -> None:
    for path in TESTS:
        tree = ast.parse(path.read_text())
        written = {
            node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
        }
        assert written == {claim["test"] for claim in recorded[path.parent.name]["claims"]}


def test_every_line_of_every_example_was_executed(recorded: dict[str, Any]) -> None:
    missing = {
        name: lines
        for chapter in recorded.values()
        for name, entry in chapter["files"].items()
        if (lines := evidence.missing_lines(entry))
    }
    assert missing == {}


def test_lines_were_executed_in_tests_workers_and_the_web_server(recorded: dict[str, Any]) -> None:
    roles = {
        role
        for chapter in recorded.values()
        for entry in chapter["files"].values()
        for role in entry.get("executed", {})
    }
    assert {"test", "worker", "web"} <= roles


def test_each_claim_has_lines_of_its_own(recorded: dict[str, Any]) -> None:
    for chapter in recorded.values():
        tests = {claim["test"] for claim in chapter["claims"]}
        claimed = {path: entry["claims"] for path, entry in chapter["files"].items() if "claims" in entry}
        assert {test for entry in claimed.values() for test in entry} <= tests
        for path in claimed:
            if Path(path).name.startswith("demo"):
                assert claimed[path], f"{path} is run by no claim"
    # Each process is forked before the claims whose tasks it runs, and none of them runs every task.
    claimed = {name: entry["files"][f"examples/{name}/tasks.py"]["claims"] for name, entry in recorded.items()}
    assert sum(len({str(lines) for lines in claims.values()}) for claims in claimed.values()) > 2 * len(recorded)


def test_what_is_executed_by_an_import_counts_for_no_claim_and_a_statement_with_all_its_lines(tmp_path: Path) -> None:
    written = """import this

LIMIT = 5


@decorated(
    LIMIT,
)
def work(name):
    if name:
        call(
            name,
            1,
        )
    return 1
"""
    for name, lines in {"tasks.py": [10, 11, 12, 13, 14], "demo.py": [1, 3, 6, 7, 8, 9, 10, 11, 12, 13, 14]}.items():
        (tmp_path / name).write_text(written)
        assert statements.ran(tmp_path / name, {1, 3, 6, 9, 10, 11}) == lines


def test_runs_are_relative_to_the_claim_and_name_no_machine(recorded: dict[str, Any]) -> None:
    runs = [run for chapter in recorded.values() for claim in chapter["claims"] for run in claim["runs"]]
    times = [run[name] for run in runs for name in ("sent", "received", "started", "ended") if name in run]
    assert times
    assert all(-1 < at < 120 for at in times)
    workers = {re.sub(r"_\d+$", "", run["worker"]) for run in runs if "worker" in run}
    assert workers == {"worker", "worker_services", "test"}


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.parent.name)
def test_no_claim_is_skipped_rerun_or_slept_through(path: Path) -> None:
    words = r"mark\.(?:skip|xfail|flaky)\w*|pytest\.skip|importorskip|always_eager"
    assert re.findall(words, path.read_text()) == []
    calls = [ast.unparse(node.func) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    assert [call for call in calls if call in ("time.sleep", "sleep")] == []


def test_an_example_never_imports_the_lab() -> None:
    for path in EXAMPLES.glob("*/*.py"):
        assert not re.search(r"^\s*(from|import) (lab|docs)\b", path.read_text(), re.MULTILINE), path


def test_a_chapter_is_needed_when_it_is_missing_not_green_or_of_other_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("EVIDENCE", "EXAMPLES", "ROOT"):
        monkeypatch.setattr(evidence, name, tmp_path / "evidence.json" if name == "EVIDENCE" else tmp_path)
    names = ["whole", "red", "stale", "grown", "missing"]
    monkeypatch.setattr(evidence, "chapters", lambda: names)
    found: dict[str, Any] = {}
    for name in names[:-1]:
        (tmp_path / name).mkdir()
        (tmp_path / name / "tasks.py").write_text("x = 1\n")
        files = {f"{name}/tasks.py": {"sha256": evidence.sha256(tmp_path / name / "tasks.py")}}
        claims = [{"outcome": "failed" if name == "red" else "passed"}]
        found[name] = {"claims": claims, "files": files, "versions": {"database": "SQLite 3.40.1"}}
    (tmp_path / "stale" / "tasks.py").write_text("x = 2\n")
    (tmp_path / "grown" / "demo.py").write_text("x = 1\n")
    # No run reads which mutants are equivalent.
    (tmp_path / "whole" / "equivalent.toml").write_text("")
    (tmp_path / "evidence.json").write_text(json.dumps({"format": evidence.FORMAT, "chapters": found}))
    assert evidence.needed(names) == names[1:]
    assert evidence.needed(names, "SQLite") == names[1:]
    assert evidence.needed(names, "MariaDB") == names
    (tmp_path / "evidence.json").write_text(json.dumps({"format": 1, "chapters": found}))
    assert evidence.needed(names) == names


def test_lines_are_told_by_role_and_by_claim_of_the_chapter_and_those_left_are_missing(tmp_path: Path) -> None:
    path = tmp_path / "tasks.py"
    path.write_text("def work():\n    go()\n    end()\n    pass\n")
    contexts = {1: {"worker"}, 2: {"worker|chains/test_a", "test|other/test_b"}, 3: {"worker|chains/test_c"}}
    entry = evidence.executed("chains", path, contexts)
    assert entry["executed"] == {"test": [2], "worker": [1, 2, 3]}
    assert entry["claims"] == {"test_a": [2], "test_c": [3]}
    assert evidence.missing_lines({"statements": [1, 2, 3, 4], **entry}) == [4]
