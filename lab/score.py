"""What became of each mutant: kept in `build/mutants.json`, so that a run can go on, and counted in a table."""

import hashlib
import json
import tomllib
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any, cast

from lab.errors import LabError
from lab.paths import BUILD, EQUIVALENTS, EXAMPLES
from lab.source import Change

KILLED, SURVIVED, UNLOADABLE, VOID, EQUIVALENT = "killed", "survived", "can't be loaded", "void", "equivalent"
ENOUGH = 0.95
_KEPT = BUILD / "mutants.json"


@dataclass(frozen=True)
class Mutant:
    """A change of a file of a chapter; of Alliance Auth's settings, where the chapter is `settings`.

    `code` is the changed line's text, `digest` that of all that its outcome depends on.
    """

    chapter: str
    file: str
    code: str
    change: Change
    digest: str

    @property
    def key(self) -> str:
        """What the mutant is known by in the record, whatever else of its chapter has changed."""
        # By its place too: a line may hold the same change twice.
        return f"{self.chapter}/{self.file}:{self.change.line}:{self.change.start}: {self.change}"

    @property
    def listed(self) -> tuple[str, str, str]:
        """What a chapter names the mutant by where it says that it is equivalent."""
        return self.file, self.code, str(self.change)

    def __str__(self) -> str:
        """Return the mutant in a line."""
        return f"{self.file}:{self.change.line}  {self.change}"


@dataclass
class Outcome:
    """What became of a mutant: `killed` by a claim, `survived`, `can't be loaded`, or `void`."""

    state: str
    claim: str
    seconds: float


class Record:
    """The outcomes that are known. `equivalent` says why a mutant that survives is none."""

    def __init__(self, names: list[str]) -> None:
        """Load what is kept, and the equivalent mutants of the chapters `names`."""
        self._kept: dict[str, dict[str, Any]] = json.loads(_KEPT.read_text()) if _KEPT.exists() else {}
        self._reasons = {name: listed(name) for name in names}

    def outcome(self, mutant: Mutant) -> Outcome | None:
        """Return what became of the mutant with the chapter as it is; None if that is not known."""
        entry = self._kept.get(mutant.key)
        return Outcome(**entry["outcome"]) if entry and entry["digest"] == mutant.digest else None

    def survived(self, mutant: Mutant) -> bool:
        """Return whether the mutant survived when it was last run, however the chapter has changed since."""
        entry = self._kept.get(mutant.key)
        return bool(entry and entry["outcome"]["state"] == SURVIVED)

    def note(self, mutant: Mutant, outcome: Outcome) -> None:
        """Keep an outcome."""
        self._kept[mutant.key] = {"digest": mutant.digest, "outcome": asdict(outcome)}
        scratch = _KEPT.with_suffix(".part")
        scratch.write_text(json.dumps(self._kept, indent=1, sort_keys=True) + "\n")
        scratch.replace(_KEPT)

    def state(self, mutant: Mutant) -> str:
        """Return the state in the score of a mutant whose outcome is known."""
        found = cast(Outcome, self.outcome(mutant))
        listed = self._reasons.get(mutant.chapter, {})
        return EQUIVALENT if found.state == SURVIVED and mutant.listed in listed else found.state

    def unneeded(self, mutants: list[Mutant]) -> list[str]:
        """Return a sentence for each listed equivalent mutant that is killed, or that there is none of."""
        survivors = {(mutant.chapter, *mutant.listed) for mutant in mutants if self.state(mutant) == EQUIVALENT}
        return [
            f"examples/{chapter}/{EQUIVALENTS}: {file}, {change}: no such mutant survives. Take the entry out."
            for chapter, listed in self._reasons.items()
            for file, code, change in listed
            if (chapter, file, code, change) not in survivors
        ]


def listed(chapter: str) -> dict[tuple[str, str, str], str]:
    """Return why the mutants of a chapter that it lists are equivalent: file, code and change to the reason."""
    path = EXAMPLES / chapter / EQUIVALENTS
    if not path.exists():
        return {}
    try:
        entries = tomllib.loads(path.read_text())["mutant"]
        return {(entry["file"], entry["code"], entry["change"]): entry["reason"] for entry in entries}
    except (tomllib.TOMLDecodeError, KeyError) as error:
        raise LabError(
            f"examples/{chapter}/{EQUIVALENTS} can't be read ({error}): "
            "give each [[mutant]] file, code, change and reason."
        ) from None


def digest(*parts: bytes) -> str:
    """Return a short hash of `parts`."""
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def table(record: Record, mutants: list[Mutant]) -> tuple[str, bool]:
    """Return the score per chapter and per kind of change, and whether it is enough."""
    lines, enough = [], True
    for title in ("chapter", "kind of change"):
        lines.append(f"\n{title:<24}{'mutants':>9}{'killed':>8}{'equivalent':>12}{'survived':>10}{'score':>8}")
        groups: dict[str, Counter[str]] = {}
        for mutant in mutants:
            name = mutant.chapter if title == "chapter" else mutant.change.kind.partition(" (")[0]
            groups.setdefault(name, Counter())[record.state(mutant)] += 1
        for name, counts in groups.items():
            lines.append(_row(name, counts))
            if title == "chapter":
                count = counts.total() - counts[UNLOADABLE]
                enough = enough and counts[EQUIVALENT] <= max(2, 0.05 * count) and not counts[SURVIVED]
    every = Counter(record.state(mutant) for mutant in mutants)
    lines.append(_row("all", every))
    if every[UNLOADABLE]:
        lines.append(
            f"({every[UNLOADABLE]} more can't be loaded: no test is needed to notice them, and none is counted)"
        )
    return "\n".join(lines), enough and _score(every) >= ENOUGH


def _score(counts: Counter[str]) -> float:
    return counts[KILLED] / max(1, counts.total() - counts[UNLOADABLE])


def _row(name: str, counts: Counter[str]) -> str:
    shown = counts.total() - counts[UNLOADABLE]
    cells = f"{shown:>9}{counts[KILLED]:>8}{counts[EQUIVALENT]:>12}{counts[SURVIVED]:>10}"
    return f"{name:<24}{cells}{_score(counts):>8.1%}"
