"""The directive `{chart} name`: a figure drawn from the evidence when the page is written; its body is the caption."""

from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.docutils import SphinxDirective

from .figures import FIGURES
from .markup import Markup
from .proof import NOT_YET, RUN, Evidence


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
            FIGURES[name].draw(*(evidence.claims[key] for key in FIGURES[name].claims))
        except (KeyError, ValueError, IndexError, StopIteration) as error:
            chapter = FIGURES[name].claims[0].split("/")[0]
            return (
                f"the figure {name!r} finds not what it needs in the evidence ({type(error).__name__}: {error}). "
                f"Look at docs/_ext/figures.py and {RUN} -- {chapter}."
            )
        return ""


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
            if node.problem(evidence):
                node.replace_self(nodes.paragraph("", f"{NOT_YET}: {node['caption']}"))
                continue
            recipe = FIGURES[node["name"]]
            figure = recipe.draw(*(evidence.claims[key] for key in recipe.claims))
            markup = figure.markup(node["name"], node["caption"])
            node.replace_self(Markup(html=markup))


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_node(Chart)
    app.add_directive("chart", ChartDirective)
    app.add_post_transform(Draw)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
