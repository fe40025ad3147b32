"""Change every line of the examples, one change at a time, and see a claim go red: `nox -s mutants`.

Each change of `lab.mutation` is laid over the chapter in a fork, as a break is (`lab.falsify`). Then the claims that
ran the line are run, or all of the chapter's where it is executed at import, until one is red. Alliance Auth's own
Celery settings are changed too; there any claim of any chapter may notice. A mutant that survives needs a sharper
test, or an entry in `examples/<chapter>/equivalent.toml`: a [[mutant]] with file, code and change, as printed, and the
reason.
"""

import ast
import importlib
import re
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

from lab import broker, evidence, lanes, run, score, verdict
from lab.errors import LabError, told
from lab.mutation import changes
from lab.options import Parser
from lab.overlay import celery_settings, lay_over, own_settings, set_celery_settings, set_settings
from lab.paths import BUILD, EXAMPLES, chapters
from lab.paths import system as needs
from lab.plugin import UNMEASURED
from lab.score import KILLED, SURVIVED, UNLOADABLE, VOID, Mutant, Outcome, Record
from lab.source import left_out

LANES = 18
_FEW = 6
_DATABASES = 48
# So many seconds a claim may take before it is red, and a mutant, which may need all claims, before it is not measured.
_CLAIM = 60.0
_LONGEST = 1800.0
# Most of the time goes into waiting for what a mutant does not do: at first, a part of each deadline will do.
_PATIENCE = 0.2
_SHOWN = 160
_LEFT_OUT = BUILD / "mutants-left-out.txt"
SETTINGS = "settings"
# Shorter ones, such as 'task' and 'schedule', tell nothing apart.
_NAME = re.compile(r"[a-z_]{10,}")


def main(argv: list[str]) -> int:
    """Run the mutants of the chapters in `argv` (all and the settings', if none); 0 when enough are killed."""
    parser = Parser("mutants", __doc__, [*chapters(), SETTINGS])
    parser.add_argument("--survivors", action="store_true", help="only those that survived when they were last run")
    parser.take_database()
    known, names, _ = parser.take(argv)
    stale = evidence.needed(_anywhere() if SETTINGS in names else names)
    if stale:
        raise LabError(f"The claims of {', '.join(stale)} are not proven as they are: run nox -s examples.")
    record = Record(names)
    with run.standing(broker.own(), known.database) as standing:
        mutants = [mutant for name in names for mutant in of(name)]
        if known.survivors:
            mutants = [mutant for mutant in mutants if record.survived(mutant)]
        # Of the settings first: a task takes some of them when it is made.
        _run(standing, record, [mutant for mutant in mutants if mutant.chapter == SETTINGS])
        standing.load()
        _run(standing, record, [mutant for mutant in mutants if mutant.chapter != SETTINGS])
    return _report(record, mutants, whole=not known.survivors)


def _anywhere() -> list[str]:
    """Return the chapters that run on any database."""
    return [name for name in chapters() if not needs(name)]


def of(name: str) -> list[Mutant]:
    """Return all mutants of a chapter, or of the settings."""
    if name == SETTINGS:
        texts = {"celery.py": celery_settings(), "base.py": own_settings()}
        digest = score.digest(*(text.encode() for text in texts.values()), *_files(EXAMPLES))
    else:
        paths = [path for path in _sources(EXAMPLES / name) if not path.name.startswith("test_")]
        texts = {path.relative_to(EXAMPLES / name).as_posix(): path.read_text() for path in paths}
        digest = score.digest(*_files(EXAMPLES / name))
    return [
        Mutant(name, file, text.splitlines()[change.line - 1].strip(), change, digest)
        for file, text in texts.items()
        for change in changes(text, file)
    ]


def _sources(folder: Path) -> list[Path]:
    found = sorted(path for kind in ("*.py", "*.html") for path in folder.rglob(kind))
    # Migrations are made by Django and stand on no page.
    return [path for path in found if "migrations" not in path.parts]


def _files(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in _sources(folder)]


def _run(standing: run.Run, record: Record, mutants: list[Mutant]) -> None:
    todo = [mutant for mutant in mutants if not record.outcome(mutant)]
    if len(todo) < len(mutants):
        print(f"{len(mutants) - len(todo)} of {len(mutants)} mutants are known from an earlier run.")
    began = time.monotonic()
    works = [partial(_mutated, mutant) for mutant in todo]
    count = 0
    for place, lane, ended in lanes.each(standing, LANES, _DATABASES, works, _LONGEST, few=_FEW):
        if not ended:
            continue
        outcome = Outcome(**(lane.result or vars(Outcome(VOID, "", _LONGEST))))
        lane.remove()
        if outcome.state != VOID:
            record.note(todo[place], outcome)
        count += 1
        left = (time.monotonic() - began) / count * (len(todo) - count) / 60
        mark = {KILLED: "✓", SURVIVED: "✗"}.get(outcome.state, "–")
        told = f" — {outcome.claim}" if outcome.claim else f": {outcome.state}"
        print(
            f"{mark} {count}/{len(todo)} ({left:.0f} min) {todo[place].chapter} {_short(todo[place])}{told}", flush=True
        )


def _short(mutant: Mutant) -> str:
    text = str(mutant)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"


def _mutated(mutant: Mutant, own: run.Run) -> dict[str, Any]:
    """Run the claims that may notice `mutant` in this fork, until one does."""
    began = time.monotonic()

    def outcome(state: str, claim: str = "") -> dict[str, Any]:
        return vars(Outcome(state, claim, round(time.monotonic() - began, 2)))

    try:
        _change(mutant, own.folder)
    except Exception as error:
        return outcome(UNLOADABLE, repr(error)[:200])
    tests, green = _tests(mutant), 0
    while tests:
        found = verdict.of(own, "--maxfail=1", *tests, seconds=_CLAIM, patience=_PATIENCE)
        green += found["green"]
        if not found["red"]:
            break
        red = found["red"][0]
        if red["when"] == "collect":
            return outcome(KILLED, "(the chapter's tests can't be imported)")
        # A wait that was cut short may have been for a machine that was late: all patience has to find it red, too.
        if found["cut_short"] or UNMEASURED in red["message"]:
            place = next(place for place, test in enumerate(tests) if test.endswith(f"::{red['test']}"))
            again = verdict.of(own, tests[place], seconds=_CLAIM)["red"]
            if not again:
                tests = tests[place + 1 :]
                continue
            if UNMEASURED in again[0]["message"]:
                return outcome(VOID, red["test"])
        return outcome(KILLED, red["test"])
    return outcome(SURVIVED if green else UNLOADABLE)


def _change(mutant: Mutant, folder: Path) -> None:
    """Put the mutant in the original's place, and import it: what can't be imported is no mutant."""
    if mutant.file == "celery.py" and mutant.chapter == SETTINGS:
        set_celery_settings(mutant.change.apply(celery_settings()))
    elif mutant.chapter == SETTINGS:
        set_settings(mutant.change.apply(own_settings()), {})
    else:
        lay_over(mutant.chapter, folder, mutant.file, mutant.change.apply)
        module = mutant.file.removesuffix(".py").replace("/", ".")
        if mutant.file.endswith(".py") and not module.startswith("demo") and module != "local":
            importlib.import_module(f"{mutant.chapter}.{module}")


def _tests(mutant: Mutant) -> list[str]:
    """Return the claims that may notice the mutant, the likeliest and quickest first."""
    recorded = evidence.load()["chapters"]
    if mutant.chapter == SETTINGS:
        named = {(name, claim["test"]): claim for name in _anywhere() for claim in recorded[name]["claims"]}
        words = set(_NAME.findall(mutant.code))
        sources = {name: _functions(name) for name in _anywhere()}

        def unlikely(key: tuple[str, str]) -> tuple[int, float]:
            return -len(words.intersection(_NAME.findall(sources[key[0]][key[1]]))), named[key]["seconds"]

        return [_nodeid(*key) for key in sorted(named, key=unlikely)]
    claims = sorted(recorded[mutant.chapter]["claims"], key=lambda claim: claim["seconds"])
    file = recorded[mutant.chapter]["files"].get(f"examples/{mutant.chapter}/{mutant.file}", {})
    by_claim = file.get("claims", {})
    ran = [claim for claim in claims if mutant.change.line in by_claim.get(claim["test"], ())]
    return [_nodeid(mutant.chapter, claim["test"]) for claim in ran or claims]


def _functions(chapter: str) -> dict[str, str]:
    """Return the source of each function of a chapter's tests, with its decorators."""
    text = (EXAMPLES / chapter / f"test_{chapter}.py").read_text()
    found = [node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)]
    return {node.name: "\n".join(map(ast.unparse, [*node.decorator_list, node])) for node in found}


def _nodeid(chapter: str, test: str) -> str:
    return f"{EXAMPLES / chapter / f'test_{chapter}.py'}::{test}"


def _report(record: Record, mutants: list[Mutant], *, whole: bool) -> int:
    if not mutants:
        raise LabError("There is no such mutant.")
    void = [mutant for mutant in mutants if not record.outcome(mutant)]
    if void:
        raise LabError(
            f"{len(void)} mutants were not measured, as the machine was late: run nox -s mutants again, it goes on."
        )
    for mutant in mutants:
        if record.state(mutant) == SURVIVED:
            print(f"\nsurvived: {mutant.chapter} {_short(mutant)}")
            print(f"    code = {mutant.code!r}\n    change = {str(mutant.change)!r}")
    text, enough = score.table(record, mutants)
    print(text)
    names = [name for name in dict.fromkeys(mutant.chapter for mutant in mutants) if name != SETTINGS]
    paths = [path for name in names for path in _sources(EXAMPLES / name) if path.suffix == ".py"]
    numbers = [
        f"{path.relative_to(EXAMPLES)}:{line}: {literal} ({reason})"
        for path in paths
        if not path.name.startswith("test_")
        for line, literal, reason in left_out(path.read_text())
    ]
    _LEFT_OUT.write_text("\n".join(numbers) + "\n")
    where = _LEFT_OUT.relative_to(BUILD.parent)
    print(f"{len(numbers)} numbers are ids, arguments or stand for work and were left alone: {where}")
    unneeded = record.unneeded(mutants) if whole else []
    print("\n".join(unneeded))
    return int(not enough or bool(unneeded))


if __name__ == "__main__":
    sys.exit(told(main))
