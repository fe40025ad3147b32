"""The directive `{chart} name`: a figure drawn from the evidence when the page is written; its body is the caption.

A caption's numbers are the figure's own: it names them, as in `{count} tasks`, and the page shows what was recorded.
"""

import re
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.docutils import SphinxDirective

from lab.figure import Figure

from .figures import FIGURES
from .markup import Markup
from .proof import NOT_YET, RUN, Evidence

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
    """Stands for a figure. Attributes: `name`, `caption`."""

    def problem(self, evidence: Evidence) -> str:
        """Return why the figure can't be drawn, and the remedy."""
        name = self["name"]
        if name not in FIGURES:
            return f"there is no figure {name!r}. The figures are: {', '.join(FIGURES)}."
        if not self["caption"]:
            return f"the figure {name!r} has no text alternative. Write one line of it into the directive."
        for key in FIGURES[name].claims:
            problem = evidence.claim_problem(key)
            if problem:
                return f"the figure {name!r} is drawn from a claim's events: {problem}"
        try:
            figure = self.drawn(evidence)
        except (KeyError, ValueError, IndexError, StopIteration) as error:
            chapter = FIGURES[name].claims[0].split("/")[0]
            return (
                f"the figure {name!r} finds not what it needs in the evidence ({type(error).__name__}: {error}). "
                f"Look at docs/_ext/figures.py and {RUN} -- {chapter}."
            )
        return self._caption_problem(figure)

    def _caption_problem(self, figure: Figure) -> str:
        """Return what is wrong with the caption's numbers, and the remedy."""
        given = ", ".join(f"{{{value}}}" for value in figure.values)
        remedy = f"What was recorded for it is {given}; docs/_ext/figures.py may tell more."
        typed = _NUMBER.search(_PLACE.sub("", self["caption"]))
        if typed:
            return f"the caption of the figure {self['name']!r} has the number {typed[0]!r} typed into it. {remedy}"
        unknown = [place for place in _PLACE.findall(self["caption"]) if place not in figure.values]
        if unknown:
            return f"the figure {self['name']!r} has no value {{{unknown[0]}}} for its caption. {remedy}"
        return ""

    def drawn(self, evidence: Evidence) -> Figure:
        """Return the figure."""
        recipe = FIGURES[self["name"]]
        return recipe.draw(*(evidence.claims[key] for key in recipe.claims))

    def words(self, evidence: Evidence) -> str:
        """Return the caption with the recorded values in it; an ellipsis for each where the figure can't be drawn."""
        values = {} if self.problem(evidence) else self.drawn(evidence).values
        return _PLACE.sub(lambda found: values.get(found[1], "…"), self["caption"])


class ChartDirective(SphinxDirective):
    """Puts a figure on the page."""

    required_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        """Make the node."""
        node = Chart(name=self.arguments[0], caption=" ".join(" ".join(self.content).split()))
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
