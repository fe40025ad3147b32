"""The directive `{chart} name`: a figure of what the page's claims recorded under that name; its body is the caption.

It is drawn when the page is written. A caption's numbers are the recorded ones: it names them, as in `{count} tasks`.
"""

import re
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.docutils import SphinxDirective

from lab import figure

from .markup import Markup
from .proof import NOT_YET, RUN, Claim, Evidence

_PLACE = re.compile(r"\{(\w*)\}")
# Not 'one', which is a pronoun as well, nor 'second', which is a unit.
_NUMBER = re.compile(
    r"\d[\d.,]*\b|[½⅓¼¾]|\b(?:zero|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|"
    r"third|half|halves|quarter|twice|thrice|double|triple|dozen|(?:thir|four|fif|six|seven|eigh|nine)teen(?:th)?|"
    r"(?:four|fif|six|seven|eigh|nin|ten|eleven|twelf)th|(?:hundred|thousand|million)(?:th)?|"
    r"(?:twent|thirt|fort|fift|sixt|sevent|eight|ninet)(?:y|ieth)(?:-\w+)?)s?\b",
    re.IGNORECASE,
)


class Chart(nodes.General, nodes.Element):
    """Stands for a figure. Attributes: `chapter`, `name`, `caption`."""

    def problem(self, evidence: Evidence) -> str:
        """Return why the figure can't be drawn, and the remedy."""
        name = self["name"]
        claims = self._claims(evidence)
        if not claims:
            return (
                f"there is no figure {name!r}: no claim of {self['chapter']!r} has recorded its chart. Correct its "
                f"name, or record it with lab.chart in a claim's test and {RUN} -- {self['chapter']}."
            )
        if not self["caption"]:
            return f"the figure {name!r} has no text alternative. Write one line of it into the directive."
        found = [problem for claim in claims if (problem := evidence.claim_problem(claim.key))]
        if found:
            return f"the figure {name!r} is drawn from a claim: {found[0]}"
        return self._caption_problem(self._values(evidence))

    def _caption_problem(self, values: dict[str, str]) -> str:
        """Return what is wrong with the caption's numbers, and the remedy."""
        given = ", ".join(f"{{{value}}}" for value in values)
        remedy = f"What was recorded for it is {given}; its claim may record more."
        typed = _NUMBER.search(_PLACE.sub("", self["caption"]))
        if typed:
            return f"the caption of the figure {self['name']!r} has the number {typed[0]!r} typed into it. {remedy}"
        unknown = [place for place in _PLACE.findall(self["caption"]) if place not in values]
        if unknown:
            return f"the figure {self['name']!r} has no value {{{unknown[0]}}} for its caption. {remedy}"
        return ""

    def _claims(self, evidence: Evidence) -> list[Claim]:
        """Return the claims that recorded the chart, in the order in which they stand in their file."""
        chapter, name = self["chapter"], self["name"]
        found = [claim for claim in evidence.claims.values() if claim.chapter == chapter and name in claim.charts]
        return sorted(found, key=lambda claim: claim.line)

    def _values(self, evidence: Evidence) -> dict[str, str]:
        """Return what the caption may name, whole numbers with a comma for the thousands."""
        recorded = [claim.charts[self["name"]]["values"] for claim in self._claims(evidence)]
        values = [pair for part in recorded for pair in part.items()]
        return {name: f"{value:,}" if isinstance(value, int) else value for name, value in values}

    def drawn(self, evidence: Evidence) -> figure.Figure:
        """Return the figure, with the rows of all claims that recorded it."""
        parts = [claim.charts[self["name"]] for claim in self._claims(evidence)]
        rows = [row for part in parts for row in part["rows"]]
        return figure.draw(parts[0]["kind"], rows, **parts[0]["more"])

    def words(self, evidence: Evidence) -> str:
        """Return the caption with the recorded values in it; an ellipsis for each where the figure can't be drawn."""
        values = {} if self.problem(evidence) else self._values(evidence)
        return _PLACE.sub(lambda found: values.get(found[1], "…"), self["caption"])


class ChartDirective(SphinxDirective):
    """Puts a figure on the page."""

    required_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        """Make the node."""
        node = Chart(chapter=self.env.docname, name=self.arguments[0], caption=" ".join(" ".join(self.content).split()))
        node.line = self.lineno
        return [node]


class Draw(SphinxPostTransform):
    """Draws the figures of a page."""

    default_priority = 404
    formats = ("html",)

    def run(self, **_: Any) -> None:
        """Replace the nodes."""
        evidence = Evidence()
        for node in list(self.document.findall(Chart)):
            caption = node.words(evidence)
            if node.problem(evidence):
                node.replace_self(nodes.paragraph("", f"{NOT_YET}: {caption}"))
                continue
            node.replace_self(Markup(html=node.drawn(evidence).markup(node["name"], caption)))


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_node(Chart)
    app.add_directive("chart", ChartDirective)
    app.add_post_transform(Draw)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
