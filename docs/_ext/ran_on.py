"""Under a chapter's heading: what its claims ran on, and when they were proven last."""

import datetime as dt
import html
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

from lab.paths import chapters

from .proof import NOT_YET, Evidence, recorded


class RanOn(nodes.General, nodes.Element):
    """Stands for the line. Attribute: `chapter`."""


class Headings(SphinxTransform):
    """Puts the line on the page of each chapter."""

    default_priority = 900

    def apply(self, **_: Any) -> None:
        """Insert it behind the title."""
        title = next(self.document.findall(nodes.title), None)
        if title is not None and self.env.docname in chapters():
            title.parent.insert(title.parent.index(title) + 1, RanOn(chapter=self.env.docname))


def ran_on(evidence: Evidence, chapter: str) -> str:
    """Return the line as HTML."""
    record = evidence.chapter(chapter)
    if not record:
        return f"{NOT_YET}."
    proven = dt.datetime.fromisoformat(record["recorded"])
    versions = record["versions"]
    rest = f"Python {versions['python']}, Django {versions['django']}, kombu {versions['kombu']}"
    date = f'<time datetime="{proven.isoformat()}">{proven.day} {proven:%B %Y}</time>'
    return f"Ran on {html.escape(evidence.line(chapter))}, {html.escape(rest)}. Last proven on {date}."


def _visit(self: Any, node: RanOn) -> None:
    self.body.append(f'<p class="ran-on">{ran_on(recorded(), node["chapter"])}</p>\n')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the transform."""
    app.add_node(RanOn, html=(_visit, None))
    app.add_transform(Headings)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
