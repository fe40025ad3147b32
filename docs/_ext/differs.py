"""The directives `{verified}` and `{differences}`: on what the claims were run, and which of them do not hold there.

`docs/differs/<chapter>.toml` says why. The reasons stand beside the claims on their pages, too.
"""

import tomllib
from dataclasses import dataclass
from functools import cache
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from lab import matrix
from lab.paths import ROOT, chapters

FOLDER = ROOT / "docs" / "differs"


@dataclass(frozen=True)
class Reason:
    """Why claims of a chapter do not hold on the combinations that have one of the words `on`, which `label` names.

    `see` names claims of what holds there instead, where there are any.
    """

    chapter: str
    label: str
    on: tuple[str, ...]
    claims: tuple[str, ...]
    why: str
    see: tuple[str, ...]

    def covers(self, one: matrix.Combination, test: str) -> bool:
        """Return whether this is why `test` does not hold on a combination."""
        words = {*one.name.split(), one.release.partition("-celery")[0]}
        return test in self.claims and bool(words.intersection(self.on))


@cache
def reasons() -> list[Reason]:
    """Return all, in reading order."""
    found = []
    for chapter in chapters():
        path = FOLDER / f"{chapter}.toml"
        for entry in tomllib.loads(path.read_text())["difference"] if path.exists() else ():
            found.append(
                Reason(
                    chapter,
                    entry["label"],
                    tuple(entry["on"]),
                    tuple(entry["claims"]),
                    entry["why"],
                    tuple(entry.get("see", ())),
                )
            )
    return found


def beside(chapter: str, test: str) -> list[Reason]:
    """Return what stands beside a claim."""
    return [one for one in reasons() if one.chapter == chapter and test in one.claims]


def verified() -> str:
    """Return in Markdown what the claims were run on."""
    head, rows = matrix.table()
    if not rows:
        return "Not run on anything but what the line below each chapter's heading names."
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", *(f"| {' | '.join(row)} |" for row in rows)]
    return "\n".join(lines)


def differences() -> str:
    """Return in Markdown what does not hold everywhere, chapter by chapter."""
    lines = []
    for chapter in chapters():
        own = [one for one in reasons() if one.chapter == chapter]
        if own:
            lines += ["", f"[]({chapter}.md):", ""]
        for one in own:
            does_not = "".join(f" {{claim}}`{chapter}/{test}`" for test in one.claims)
            instead = "".join(f" {{claim}}`{key}`" for key in one.see)
            lines.append(f"- *{one.label}*: {one.why}{instead} What does not hold:{does_not}")
    return "\n".join(lines) or "None is known."


class _Told(SphinxDirective):
    def run(self) -> list[nodes.Node]:
        """Read it anew where a record, or a reason, changes."""
        for path in (matrix.RECORD, *sorted(FOLDER.glob("*.toml"))):
            self.env.note_dependency(str(path))
        return self.parse_text_to_nodes({"verified": verified, "differences": differences}[self.name]())


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directives."""
    app.add_directive("verified", _Told)
    app.add_directive("differences", _Told)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
