"""The evidence as the pages need it: which claims there are, what they prove, and whether a block may be shown."""

import ast
import hashlib
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from lab import evidence
from lab.paths import ROOT, chapters, system

from . import ran

NAMES = {"allianceauth": "Alliance Auth", "celery": "Celery"}
RUN = "run nox -s examples"
# What a live page says in place of evidence that is missing or stale; a published page is stopped by the guards.
NOT_YET = "Not run here yet"


def how(chapter: str) -> str:
    """Return what to do for a chapter's evidence."""
    return f"{RUN} -- {chapter}{' --database mariadb' if system(chapter) else ''}"


class Stop(SystemExit):
    """Ends the build with a message and nothing else.

    Sphinx follows any exception with its own versions, a traceback and where to report a bug of Sphinx: none of that
    helps a person whose page shows what has not been proven.
    """


@dataclass(frozen=True)
class Claim:
    """One claim: a sentence, its test, and how the test went."""

    chapter: str
    test: str
    sentence: str
    line: int
    outcome: str
    seconds: float
    runs: list[dict[str, Any]] = field(repr=False, hash=False)
    charts: dict[str, Any] = field(repr=False, hash=False)
    outputs: dict[str, str] = field(repr=False, hash=False)

    @property
    def key(self) -> str:
        """The claim's name across chapters."""
        return f"{self.chapter}/{self.test}"


@dataclass(frozen=True)
class Lines:
    """Some lines of a file under `examples/`, as a page shows them. `lines` are counted from 1."""

    file: str
    lines: tuple[int, ...]

    @property
    def chapter(self) -> str:
        """The chapter the file belongs to."""
        return self.file.split("/")[1]

    @property
    def short(self) -> str:
        """The file's path from `examples/`, which is how a page calls it."""
        return self.file.removeprefix("examples/")

    @property
    def path(self) -> Path:
        """The file."""
        return ROOT / self.file

    def cut_problem(self) -> str:
        """Return which statement of a Python file the lines cut through: what is copied has to work."""
        if not self.file.endswith(".py"):
            return ""
        for statement in ast.parse(self.path.read_text()).body:
            above = [decorator.lineno for decorator in getattr(statement, "decorator_list", [])]
            there = range(min([statement.lineno, *above]), (statement.end_lineno or statement.lineno) + 1)
            if 0 < len(set(there) & set(self.lines)) < len(there):
                return (
                    f"what the page shows of {self.short} cuts through its lines {there[0]} to {there[-1]}. "
                    "Show all of them, or none."
                )
        return ""


class Evidence:
    """The record that `nox -s examples` wrote."""

    def __init__(self) -> None:
        """Read what is on disk."""
        self._chapters: dict[str, Any] = evidence.load()["chapters"]

    def chapter(self, name: str) -> dict[str, Any]:
        """Return a chapter's record; empty where there is none."""
        found: dict[str, Any] = self._chapters.get(name, {})
        return found

    @cached_property
    def claims(self) -> dict[str, Claim]:
        """All claims, by `chapter/test`."""
        found = {}
        for chapter in chapters():
            for entry in self.chapter(chapter).get("claims", []):
                names = ("test", "line", "outcome", "seconds", "runs", "charts", "outputs")
                given = {name: entry[name] for name in names}
                claim = Claim(chapter=chapter, sentence=entry["claim"], **given)
                found[claim.key] = claim
        return found

    def digest(self) -> str:
        """Return a mark that changes when anything in the evidence does."""
        return hashlib.sha256(repr(sorted(self._chapters.items())).encode()).hexdigest()

    def claim_problem(self, key: str) -> str:
        """Return what is wrong with claim `key` of a page, and the remedy; empty if it is proven."""
        chapter, _, test = key.partition("/")
        claim = self.claims.get(key)
        test_file = f"examples/{chapter}/test_{chapter}.py"
        if claim is None:
            return (
                f"the claim {test} has no proof: there is no such test in the evidence of {chapter!r}. Correct its "
                f"name, or write the test in {test_file} and {how(chapter)}."
            )
        if claim.outcome != "passed":
            return f"the claim {test} is not proven: its test {claim.outcome}. Mend {test_file} and {how(chapter)}."
        return self._stale(chapter, test_file)

    def block_problem(self, shown: Lines) -> str:
        """Return why these lines may not be shown, and the remedy; empty if they have run as they stand."""
        return self._stale(shown.chapter, shown.file) or self._not_executed(shown) or self._for_no_claim(shown)

    def output(self, shown: Lines, test: str) -> str:
        """Return what a file of calls printed, and the worker logged, when the claim `test` ran it; empty if not."""
        claim = self.claims.get(f"{shown.chapter}/{test}")
        return (claim.outputs.get(shown.path.name, "").rstrip() or "(no output)") if claim else ""

    def output_problem(self, shown: Lines, test: str) -> str:
        """Return why a file of calls has no output of the claim `test` to show, and the remedy."""
        if not test:
            return (
                f"{shown.short} shows calls without their output. Name the claim whose run is shown: `:output: test_…`."
            )
        problem = self.claim_problem(f"{shown.chapter}/{test}")
        if not problem and shown.path.name not in self.claims[f"{shown.chapter}/{test}"].outputs:
            return f"the claim {test} does not run {shown.short}. Name one that does, with rig.demo()."
        return problem

    def _stale(self, chapter: str, file: str) -> str:
        record = self.chapter(chapter)
        if not record:
            return f"there is no evidence for the chapter {chapter!r}: {how(chapter)}."
        entry = record["files"].get(file)
        if entry is None:
            return f"{file} is not in the evidence of {chapter!r}: {how(chapter)}."
        if entry["sha256"] != evidence.sha256(ROOT / file):
            return f"{file} has changed since it was last run: {how(chapter)}."
        return ""

    def _not_executed(self, shown: Lines) -> str:
        if not shown.file.endswith(".py"):
            return ""
        entry = self.chapter(shown.chapter)["files"][shown.file]
        # An empty `executed` with statements there means that nothing ran the file at all.
        missing = [line for line in evidence.missing_lines(entry) if line in shown.lines]
        if not missing:
            return ""
        numbers = ", ".join(map(str, missing))
        return (
            f"{shown.file}: no test executes line{'s' if len(missing) > 1 else ''} {numbers}. Write a test that does, "
            f"or take the code out, and {how(shown.chapter)}."
        )

    def _for_no_claim(self, shown: Lines) -> str:
        if self.proofs(shown):
            return ""
        return (
            f"{shown.file}: no claim runs what is shown here. Write a test that does, or take the block out, and "
            f"{how(shown.chapter)}."
        )

    def proofs(self, shown: Lines) -> list[Claim]:
        """Return the claims that ran some of these lines."""
        tests = ran.tests(self.chapter(shown.chapter), shown.file, set(shown.lines))
        return [claim for claim in self.claims.values() if claim.chapter == shown.chapter and claim.test in tests]

    def line(self, chapter: str) -> str:
        """Return what a chapter ran on, in a line."""
        versions = self.chapter(chapter)["versions"]
        parts = [f"{shown} {versions[name]}" for name, shown in NAMES.items()]
        return " · ".join([*parts, versions["broker"], versions["database"]])


@cache
def recorded() -> Evidence:
    """Return the evidence that this build is made from, which is read once."""
    return Evidence()
