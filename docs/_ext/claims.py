"""The role `{claim}`: a small number behind a sentence, and in the margin beside it the claim that proves it."""

import html
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.docutils import SphinxRole

from lab.paths import chapters

from . import differs, source
from .proof import Claim, Evidence, recorded


class ClaimMark(nodes.Inline, nodes.TextElement):
    """The mark behind a sentence.

    Attributes: `key`, `chapter/test`; once resolved also `number`, `sentence`, and whether it was `told` before.
    """

    def problem(self, evidence: Evidence) -> str:
        """Return why the claim may not be made, and the remedy."""
        return evidence.claim_problem(self["key"])

    def astext(self) -> str:
        """Return nothing: the mark is not part of the sentence."""
        return ""


class ClaimRole(SphinxRole):
    """`test_name`, or `chapter/test_name` for a test of another chapter."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """Make the mark."""
        chapter = self.env.docname if self.env.docname in chapters() else ""
        key = self.text if "/" in self.text else f"{chapter}/{self.text}"
        node = ClaimMark(key=key)
        node.line = self.lineno
        return [node], []


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the role and what makes notes of the marks."""
    app.add_node(ClaimMark, html=(_visit, _depart))
    app.add_role("claim", ClaimRole())
    app.add_post_transform(Notes)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


class Notes(SphinxPostTransform):
    """Numbers the marks of a page and puts the claims beside their sentences."""

    default_priority = 401
    formats = ("html",)

    def run(self, **_: Any) -> None:
        """Give each mark its number, and the first mark of a claim its note."""
        evidence = recorded()
        numbers: dict[str, int] = {}
        for mark in list(self.document.findall(ClaimMark)):
            if mark.problem(evidence):
                continue
            claim = evidence.claims[mark["key"]]
            first = claim.key not in numbers
            mark["number"] = numbers.setdefault(claim.key, len(numbers) + 1)
            mark["sentence"], mark["told"] = claim.sentence, not first
            _close_up(mark)
            # A claim is told once, where it comes up first; the number leads there from everywhere else.
            if first:
                note = nodes.raw("", self._note(mark["number"], claim), format="html")
                _put(note, mark)

    def _note(self, number: int, claim: Claim) -> str:
        link = html.escape(source.link(self.app.builder, self.env.docname, claim))
        limits = "".join(
            f" <em>{html.escape(one.label)}: {source.prose(one.why)}</em>"
            for one in differs.beside(claim.chapter, claim.test)
        )
        return (
            f'<small class="note" id="claim-{number}" role="note"><b>{number}</b>'
            f'<a href="{link}">{source.prose(claim.sentence)}</a>{limits}</small>'
        )


def _close_up(mark: nodes.Element) -> None:
    """Drop the blank between a sentence and its mark, which would let the number begin a line."""
    parent = mark.parent
    place = parent.index(mark)
    # By place, as two equal texts are the same to `remove`.
    while place and isinstance(parent[place - 1], nodes.Text):
        place -= 1
        kept = parent[place].rstrip()
        if kept:
            parent[place] = nodes.Text(kept)
            return
        del parent[place]


def _put(note: nodes.raw, mark: nodes.Element) -> None:
    """Put a note where it floats beside its sentence: behind the mark, before its table, or below its heading."""
    outer: nodes.Element = mark
    while not isinstance(outer, nodes.title | nodes.table | nodes.document):
        outer = outer.parent
    if isinstance(outer, nodes.table):
        outer.parent.insert(outer.parent.index(outer), note)
    elif isinstance(outer, nodes.title):
        # The contents in the sidebar are copies of the headings.
        follower = outer.next_node(descend=False, siblings=True)
        if isinstance(follower, nodes.paragraph):
            follower.insert(0, note)
        else:
            outer.parent.insert(outer.parent.index(outer) + 1, note)
    else:
        mark.parent.insert(mark.parent.index(mark) + 1, note)


def _visit(self: Any, node: ClaimMark) -> None:
    # In the table of contents, which holds copies of the headings, a mark has no number and shows nothing.
    if "number" in node:
        number = node["number"]
        # The keyboard reaches the note itself, next to its number: two stops for each claim would be one too many.
        more = f'title="{html.escape(node["sentence"])}"' if node["told"] else 'tabindex="-1"'
        # The joiner keeps the number on the line of what it stands behind.
        self.body.append(f'<sup>&#8288;<a href="#claim-{number}" aria-label="Claim {number}" {more}>{number}</a></sup>')
    raise nodes.SkipNode


def _depart(self: Any, node: ClaimMark) -> None:
    """Nothing to close."""
