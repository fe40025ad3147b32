"""Under a chapter's heading: what its claims ran on, and when they were proven last."""

import datetime as dt
import html
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform

from lab.paths import chapters

from .markup import Markup
from .proof import NOT_YET, Evidence


class RanOn(SphinxPostTransform):
    """Puts the line on the page of each chapter."""

    default_priority = 405
    formats = ("html",)

    def run(self, **_: Any) -> None:
        """Insert it behind the title."""
        title = next(self.document.findall(nodes.title), None)
        evidence = Evidence()
        if title is not None and self.env.docname in chapters():
            told = ran_on(evidence, self.env.docname)
            title.parent.insert(title.parent.index(title) + 1, Markup(html=f'<p class="ran-on">{told}</p>'))


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


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the transform."""
    app.add_post_transform(RanOn)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
