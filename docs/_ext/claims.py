"""The role `{claim}`: a small number behind a sentence, and beside the paragraph the claim that proves it."""

import html
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.docutils import SphinxRole

from lab.paths import chapters

from . import source
from .proof import Claim, Evidence, recorded


class ClaimMark(nodes.Inline, nodes.TextElement):
    """The mark behind a sentence. Attributes: `key`, `chapter/test`; once resolved also `number` and `target`."""

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
    """Numbers the marks of a page and puts the claims beside the paragraph."""

    default_priority = 401
    formats = ("html",)

    def run(self, **_: Any) -> None:
        """Make one group of notes for each paragraph, list or table with marks."""
        evidence = recorded()
        numbers: dict[str, int] = {}
        told: set[Claim] = set()
        groups: dict[nodes.Element, list[tuple[int, Claim]]] = {}
        for mark in list(self.document.findall(ClaimMark)):
            if mark.problem(evidence):
                continue
            claim = evidence.claims[mark["key"]]
            number = numbers.setdefault(claim.key, len(numbers) + 1)
            mark["number"], mark["target"] = number, f"proof-{number}"
            mark["sentence"] = claim.sentence
            _close_up(mark)
            # A claim is told once, where it comes up first; the number leads there from everywhere else.
            if claim not in told:
                told.add(claim)
                groups.setdefault(_carrier(mark), []).append((number, claim))
        for carrier, group in groups.items():
            self._note(carrier, group)

    def _note(self, carrier: nodes.Element, group: list[tuple[int, Claim]]) -> None:
        items = []
        for number, claim in group:
            link = html.escape(source.link(self.app.builder, self.env.docname, claim))
            items.append(
                f'<li id="proof-{number}" value="{number}"><a href="{link}">{source.prose(claim.sentence)}</a> '
                f'<span class="took">{claim.outcome}</span></li>'
            )
        plural = "s" if len(group) > 1 else ""
        notes = nodes.raw(
            "",
            f'<details class="proofs"><summary>{len(group)} proof{plural}</summary><ol>{"".join(items)}</ol></details>',
            format="html",
        )
        wrapper = nodes.container(classes=["proven"])
        carrier.replace_self(wrapper)
        wrapper += [notes, carrier]


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


def _carrier(mark: nodes.Element) -> nodes.Element:
    """Return the part of the page that the notes stand beside: the mark's outermost parent within its section."""
    node = mark
    while not isinstance(node.parent, nodes.section | nodes.document):
        node = node.parent
    if isinstance(node, nodes.title):
        # A heading can't be wrapped: its section would have none. What follows it carries the proof.
        follower = node.next_node(descend=False, siblings=True)
        return follower if isinstance(follower, nodes.paragraph) else node
    return node


def _visit(self: Any, node: ClaimMark) -> None:
    # In the table of contents, which holds copies of the headings, a mark has no number and shows nothing.
    if "number" in node:
        label = html.escape(f"Proof {node['number']}: {node['sentence']}")
        self.body.append(
            f'<sup class="claim"><a href="#{node["target"]}" title="{label}" aria-label="Proof {node["number"]}">'
            f"{node['number']}</a></sup>"
        )
    raise nodes.SkipNode


def _depart(self: Any, node: ClaimMark) -> None:
    """Nothing to close."""
