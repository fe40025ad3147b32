"""`python -m lab`: run the examples and write the evidence; `nox -s examples` calls it."""

import os
import sys
import time
from dataclasses import asdict
from functools import partial
from typing import Any

import pytest

from lab import broker, database, evidence, lanes, run
from lab.errors import LabError, told
from lab.options import Parser
from lab.paths import EXAMPLES, ROOT, chapters
from lab.plugin import SETTLED, Claims

QUIET = [
    "-qq",
    "--no-header",
    "--disable-warnings",
    # Half a second for each start, for plugins that no claim uses.
    "--disable-plugin-autoload",
    "-p",
    "no:cacheprovider",
    "--tb=short",
    "-c",
    str(ROOT / "pyproject.toml"),
]
LANES = 7
_DATABASES = 128
_PATIENCE = 600.0
_NAMES = {"allianceauth": "Alliance Auth", "celery": "Celery", "kombu": "kombu", "django": "Django"}


def main(argv: list[str]) -> int:
    """Run the chapters named in `argv` (all, if none) on the broker it names; 0 when every claim is green."""
    parser = Parser("examples", __doc__, chapters())
    parser.take_k()
    parser.add_argument("--broker", metavar="embedded|path|URL", help="which Redis or Valkey to use")
    parser.take_database()
    parser.take_pool()
    parser.add_argument("--needed", action="store_true", help="only chapters whose evidence is missing or out of date")
    known, names, options = parser.take(argv, passed_on=True)
    if known.needed:
        names = evidence.needed(names, database.system(known.database))
        if not names:
            print("The evidence of every chapter is there and of the files as they are.")
            return 0
    began, sums = time.monotonic(), evidence.sums(names)
    with run.standing(known.broker, known.database, known.pool) as standing:
        return _all(standing, names, ["-k", known.k, *options], began, sums)


def _all(standing: run.Run, names: list[str], options: list[str], began: float, sums: dict[str, str]) -> int:
    order = _longest_first(names)
    found: dict[str, dict[str, Any]] = {}
    shown = dict.fromkeys(names, 0)
    trouble: list[str] = []
    works = [partial(_chapter, name, options) for name in order]
    standing.load()
    try:
        for place, lane, ended in lanes.each(standing, standing.lanes(LANES), _DATABASES, works, _PATIENCE, lines=True):
            name, text = order[place], lane.output()
            settled = [line for line in text.splitlines(keepends=True) if line.startswith(SETTLED)]
            for line in settled[shown[name] :]:
                if line.endswith("\n"):
                    print(f"{name:<15}{line.rstrip()}", flush=True)
                    shown[name] += 1
            if ended:
                found[name] = lane.result or {"code": 1, "whole": False, "claims": []}
                if found[name]["code"] not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
                    trouble.append("".join(line for line in text.splitlines(keepends=True) if line not in settled))
    except broker.Gone:
        # What had ended before is proven.
        print(_kept(standing, _claims(found), found, sums), end="")
        raise
    print("\n".join(trouble), end="")
    claims = _claims({name: found[name] for name in names})
    if not any(claims.values()) and not trouble:
        raise LabError("There is no claim that matches: look at the names with nox -s examples.")
    kept = _kept(standing, claims, found, sums)
    _table({name: those for name, those in claims.items() if those}, time.monotonic() - began)
    versions = standing.versions()
    line = " · ".join(f"{shown} {versions[name]}" for name, shown in _NAMES.items())
    print(f"{line} · Python {versions['python']} · {versions['broker']} · {versions['database']}")
    print(kept, end="")
    return int(bool(trouble))


def _claims(found: dict[str, dict[str, Any]]) -> dict[str, list[evidence.Claim]]:
    return {name: [evidence.Claim(**claim) for claim in result["claims"]] for name, result in found.items()}


def _kept(
    standing: run.Run,
    claims: dict[str, list[evidence.Claim]],
    found: dict[str, dict[str, Any]],
    sums: dict[str, str],
) -> str:
    """Write the evidence of the chapters that were run whole, and return lines that name them, if there are any."""
    whole = {name: those for name, those in claims.items() if those and found[name]["whole"]}
    if not whole:
        return ""
    evidence.record(standing, whole, sums)
    homes: dict[str, list[str]] = {}
    for name in whole:
        homes.setdefault(os.path.relpath(evidence.home(name), ROOT), []).append(name)
    return "".join(f"Evidence of {', '.join(those)}: {path}\n" for path, those in homes.items())


def _longest_first(names: list[str]) -> list[str]:
    """Return the chapters in the order in which lanes take them: those with most tests first, so that none is left."""
    return sorted(names, key=lambda name: -(EXAMPLES / name / f"test_{name}.py").stat().st_size)


def _chapter(name: str, options: list[str], own: run.Run) -> dict[str, Any]:
    """Run one chapter in a lane."""
    from django.urls import get_resolver

    # Addresses and hooks are loaded once; whichever claim needs them first would seem to be the one that runs them.
    _ = get_resolver().url_patterns
    claims = Claims(own, own.guard.folder / "voids")
    code = int(pytest.main([*QUIET, *options, str(EXAMPLES / name)], plugins=[claims]))
    return {"code": code, "whole": claims.whole, "claims": [asdict(claim) for claim in claims.claims]}


def _table(claims: dict[str, list[evidence.Claim]], total: float) -> None:
    print("\nchapter           claims   seconds   of these waiting   void")
    for name, those in claims.items():
        _row(name, those, sum(claim.seconds for claim in those))
    _row("all", [claim for those in claims.values() for claim in those], total)
    print(f"(chapters run side by side: {total:.1f} s is the time by the clock)\n")


def _row(name: str, those: list[evidence.Claim], seconds: float) -> None:
    waiting, void = sum(claim.waiting for claim in those), sum(len(claim.void) for claim in those)
    print(f"{name:<16} {len(those):>7} {seconds:>9.1f} {waiting:>18.1f} {void:>6}")


if __name__ == "__main__":
    sys.exit(told(main))
