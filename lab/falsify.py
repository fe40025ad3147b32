"""Break what a claim guards and see the claim go red: `nox -s falsify`.

Alliance Auth is started once. For each break a fork of that process lays a copy of the chapter over the original, with
the break in it, and runs the claim's own test on databases of its own. Copies without a break come first: there every
claim must be green, or red would mean nothing.
"""

import multiprocessing
import os
import re
import sys
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from lab import broker, database, lanes, matrix, run, verdict
from lab.__main__ import QUIET
from lab.errors import LabError, told
from lab.options import Parser
from lab.overlay import lay_over
from lab.paths import EXAMPLES, chapters
from lab.plugin import UNMEASURED, Claims, words

LANES = 6
_DATABASES = 48
_PATIENCE = 300.0
_TOLD = 300
_fork = multiprocessing.get_context("fork")


@dataclass
class Break:
    """One deliberate break of one claim: of a file of its chapter, or of Celery's settings."""

    nodeid: str
    red: str
    file: str = ""
    old: str = ""
    new: str = ""
    conf: dict[str, Any] = field(default_factory=dict)

    @property
    def chapter(self) -> str:
        """The chapter the claim stands in."""
        return Path(self.nodeid.partition("::")[0]).parent.name

    def apply(self, text: str) -> str:
        """Return `text` with the break in it; `ValueError` if it does not fit."""
        if text.count(self.old) != 1:
            raise ValueError(f"{self.old!r} stands {text.count(self.old)} times in {self.file}, not once")
        return text.replace(self.old, self.new)

    def __str__(self) -> str:
        """Return what is broken, in a line."""
        if self.file:
            return f"{self.file}: {_short(self.old)} → {_short(self.new)}"
        return ", ".join(f"{name} = {value!r}" for name, value in self.conf.items())


def _short(text: str) -> str:
    flat = " ".join(text.split())
    return repr(flat if len(flat) < 60 else flat[:57] + "…")


class _Collector:
    """Collects the breaks that stand beside the tests."""

    def __init__(self) -> None:
        self.breaks: list[Break] = []
        self.without: list[str] = []

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            nodeid = f"{item.path}::{item.name}"
            declared = [Break(nodeid, *m.args, **m.kwargs) for m in item.iter_markers("broken_by")]
            if not declared:
                self.without.append(nodeid)
            self.breaks += declared


def main(argv: list[str]) -> int:
    """Run every break of the chapters in `argv` (all, if none); 0 when each is caught and each control is green."""
    parser = Parser("falsify", __doc__, chapters())
    parser.take_k()
    parser.take_database()
    parser.take_pool()
    known, names, _ = parser.take(argv)
    began = time.monotonic()
    with run.standing(broker.own(), known.database, known.pool) as standing:
        standing.load()
        system = database.system(known.database).lower()
        differ = matrix.differing(standing.versions(), known.pool or "threads", system)
        return _all(standing, names, ["-k", known.k], differ, began)


def _all(standing: run.Run, names: list[str], options: list[str], differ: dict[str, set[str]], began: float) -> int:
    declared, without = _collect(standing, names, options)
    # A claim that does not hold on what this run stands on has nothing to be caught.
    breaks = [item for item in declared if item.nodeid.rpartition("::")[2] not in differ.get(item.chapter, ())]
    works = [partial(_unbroken, name, options) for name in names] + [partial(_broken, item) for item in breaks]
    green = caught = 0
    wrong = [f"✗ {nodeid.rpartition('::')[2]} declares no break: add pytest.mark.broken_by." for nodeid in without]
    for place, lane, ended in lanes.each(standing, standing.lanes(LANES), _DATABASES, works, _PATIENCE):
        if not ended:
            continue
        found: dict[str, Any] = lane.result or verdict.without_a_test("?", "it never ended")
        lane.remove()
        if place < len(names):
            green += found["green"]
            red = [one for one in found["red"] if one["test"] not in differ.get(names[place], ())]
            lines = [f"✗ {names[place]}: {one['test']} is red without a break: {_end(one['message'])}" for one in red]
            wrong += lines
            head = f"{_mark(not red)} {names[place]}: {found['green']} claims green unbroken"
            print("\n".join([head, *lines]), flush=True)
            continue
        item = breaks[place - len(names)]
        good, line = _judge(item, found)
        caught += good
        told = f"{_mark(good)} {item.chapter}: {words(item.nodeid)}\n    {line}"
        wrong += [] if good else [told]
        print(told, flush=True)
    seconds = time.monotonic() - began
    # Again, since they stand hundreds of lines above.
    print("\n".join(["", *wrong]))
    if len(breaks) < len(declared):
        left = len(declared) - len(breaks)
        print(f"{left} breaks left out: docs/recorded/matrix.json has their claims as not holding here")
    print(f"{green} claims green unbroken, {caught} of {len(breaks)} breaks caught, {seconds:.0f} s")
    return int(bool(wrong) or not breaks)


def _mark(good: bool) -> str:
    return "✓" if good else "✗"


def _end(message: str) -> str:
    """Return a message in a line; of a long one the end, where the reason stands."""
    flat = " ".join(message.split())
    return flat if len(flat) <= _TOLD else f"…{flat[-_TOLD:]}"


def _judge(item: Break, found: dict[str, Any]) -> tuple[bool, str]:
    red = found["red"][-1] if found["red"] else {"when": "", "message": ""}
    message = _end(red["message"])
    if found["green"]:
        return False, f"{item}: not caught"
    if UNMEASURED in message:
        return False, f"{item}: neither caught nor not caught: {message}"
    if red["when"] != "call" or not re.search(item.red, red["message"]):
        return False, f"{item}: red for another reason than /{item.red}/: {message or 'nothing ran'}"
    return True, f"{item} — {message[:110]}"


def _collect(standing: run.Run, names: list[str], options: list[str]) -> tuple[list[Break], list[str]]:
    # In a fork, so that this process stays without the modules of the chapters' tests.
    ours, theirs = _fork.Pipe()

    def collect() -> None:
        found = _Collector()
        claims = Claims(standing, standing.folder / "voids")
        targets = [str(EXAMPLES / name) for name in names if (EXAMPLES / name).is_dir()]
        with open(os.devnull, "w") as nowhere:
            sys.stdout = nowhere
            code = pytest.main([*QUIET, "--collect-only", *options, *targets], plugins=[found, claims])
        theirs.send((int(code), found.breaks, found.without))

    child = _fork.Process(target=collect)
    child.start()
    code, breaks, without = ours.recv()
    child.join()
    if code:
        raise LabError(f"The claims can't be collected (pytest's exit code {code}): run nox -s examples first.")
    return breaks, without


def _unbroken(chapter: str, options: list[str], own: run.Run) -> dict[str, Any]:
    lay_over(chapter, own.folder)
    return verdict.of(own, *options, str(EXAMPLES / chapter))


def _broken(item: Break, own: run.Run) -> dict[str, Any]:
    from myauth.celery import app

    # First: a task takes some of them when it is made.
    app.conf.update(item.conf)
    try:
        lay_over(item.chapter, own.folder, item.file, item.apply)
    except (ValueError, SyntaxError, ImportError) as error:
        return verdict.without_a_test(words(item.nodeid), f"the break can't be applied: {error!r}")
    return verdict.of(own, item.nodeid)


if __name__ == "__main__":
    sys.exit(told(main))
