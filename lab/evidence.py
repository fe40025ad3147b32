"""The evidence: the record of the runs that prove the claims, in `build/evidence.json`."""

import datetime as dt
import fcntl
import hashlib
import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import coverage

from lab import lines, statements
from lab.paths import EQUIVALENTS, EVIDENCE, EXAMPLES, RECORDED, ROOT, chapters
from lab.paths import system as needs
from lab.run import Run

FORMAT = 6


@dataclass
class Claim:
    """One claim's record. Seconds are wall time; `charts` are what `lab.rig.Rig.chart` recorded, by name.

    `runs` are its tasks as `lab.events.record` has them: a TaskRun's fields, times in seconds since the claim began.

    `outputs` is by file of calls what it printed, and what the workers logged after it.
    `void` says of each measurement that does not count how many seconds late the machine was.
    """

    test: str
    claim: str
    line: int
    outcome: str
    seconds: float
    waiting: float
    runs: list[dict[str, Any]]
    charts: dict[str, Any]
    outputs: dict[str, str]
    void: list[float] = field(default_factory=list)


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def load() -> dict[str, Any]:
    """Return the evidence on disk of the chapters that there are; an empty record where there is none."""
    found = {path: read(path)["chapters"] for path in (EVIDENCE, RECORDED)}
    # What is recorded of a chapter that is gone proves nothing.
    there = [name for name in chapters() if name in found[home(name)]]
    return {"format": FORMAT, "chapters": {name: found[home(name)][name] for name in there}}


def home(chapter: str) -> Path:
    """Return where a chapter's evidence is kept."""
    return RECORDED if needs(chapter) else EVIDENCE


def read(path: Path) -> dict[str, Any]:
    """Return the record in a file; an empty one where there is none, or where it has another format."""
    if path.exists():
        found: dict[str, Any] = json.loads(path.read_text())
        if found.get("format") == FORMAT:
            return found
    return {"format": FORMAT, "chapters": {}}


def needed(names: list[str], system: str = "") -> list[str]:
    """Return those of the chapters whose evidence is missing, not green, or of files that have changed since.

    Of another database too, where one, such as MariaDB, is named.
    """
    recorded = load()["chapters"]
    return [name for name in names if not _holds(name, recorded.get(name), system)]


def _holds(name: str, entry: dict[str, Any] | None, system: str) -> bool:
    if not entry or any(claim["outcome"] != "passed" for claim in entry["claims"]):
        return False
    if system and not entry["versions"]["database"].startswith(system):
        return False
    return sums([name]) == {file: kept["sha256"] for file, kept in entry["files"].items()}


def sums(names: list[str]) -> dict[str, str]:
    """Return the SHA-256 of every file of the chapters that a run reads, by its path from the root."""
    return {path.relative_to(ROOT).as_posix(): sha256(path) for name in names for path in _paths(name)}


def _paths(chapter: str) -> list[Path]:
    found = sorted((EXAMPLES / chapter).rglob("*"))
    return [path for path in found if path.is_file() and "__pycache__" not in path.parts and path.name != EQUIVALENTS]


def record(run: Run, claims: dict[str, list[Claim]], began: dict[str, str]) -> None:
    """Write the evidence of the chapters in `claims`, leaving the other chapters' as it is.

    `began` is their files' `sums` from before the run: it proves nothing of a file that has changed since.
    """
    run.lines.end()
    noted = lines.read(run.folder)
    now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    fresh = {
        chapter: {
            "recorded": now,
            "versions": run.versions(),
            "seconds": round(sum(claim.seconds for claim in those), 2),
            "waiting": round(sum(claim.waiting for claim in those), 2),
            "files": _files(chapter, noted, began),
            "claims": [asdict(claim) for claim in those],
        }
        for chapter, those in claims.items()
    }
    EVIDENCE.parent.mkdir(exist_ok=True)
    with (EVIDENCE.parent / "evidence.lock").open("w") as lock:
        # Two runs may end at the same time.
        fcntl.flock(lock, fcntl.LOCK_EX)
        for path in {home(name) for name in fresh}:
            whole = read(path)
            whole["chapters"] |= {name: entry for name, entry in fresh.items() if home(name) == path}
            scratch = path.with_suffix(f".{os.getpid()}")
            scratch.write_text(json.dumps(whole, indent=1, sort_keys=True) + "\n")
            scratch.replace(path)


def _files(chapter: str, noted: dict[str, dict[int, set[str]]], began: dict[str, str]) -> dict[str, Any]:
    reader = coverage.Coverage(data_file=None, config_file=False)
    found = {}
    for path in _paths(chapter):
        name = path.relative_to(ROOT).as_posix()
        entry: dict[str, Any] = {"sha256": began.get(name, "")}
        if path.suffix == ".py" and not path.name.startswith("test_"):
            entry |= executed(chapter, path, noted.get(str(path), {}))
            entry["statements"] = list(reader.analysis2(str(path))[1])
        found[name] = entry
    return found


def executed(chapter: str, path: Path, contexts: dict[int, set[str]]) -> dict[str, Any]:
    """Return which lines of a file each role executed, and which lines each claim of the chapter ran."""
    roles: dict[str, set[int]] = {}
    claims: dict[str, set[int]] = {}
    for line, found in contexts.items():
        for context in found:
            role, _, claim = context.partition("|")
            roles.setdefault(role, set()).add(line)
            owner, _, test = claim.partition("/")
            if owner == chapter:
                claims.setdefault(test, set()).add(line)
    ran = {test: statements.ran(path, lines) for test, lines in claims.items()}
    return {
        "executed": {role: sorted(statements.whole(path, lines)) for role, lines in sorted(roles.items())},
        "claims": {test: lines for test, lines in sorted(ran.items()) if lines},
    }


def missing_lines(entry: dict[str, Any]) -> list[int]:
    """Return the statements of a file's evidence that no process executed."""
    done = {line for lines in entry.get("executed", {}).values() for line in lines}
    return [line for line in entry.get("statements", []) if line not in done]
