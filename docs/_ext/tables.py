"""Tables that a phone can show: each cell carries the name of its column, which only a narrow screen shows."""

from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform


class Labels(SphinxPostTransform):
    """Puts the name of its column before what a cell says."""

    default_priority = 405
    formats = ("html",)

    def run(self, **_: Any) -> None:
        """Label the cells of every table that has a head, but for the first column: its cells are the rows' names."""
        for table in self.document.findall(nodes.table):
            names = [entry.astext() for head in table.findall(nodes.thead) for entry in head.findall(nodes.entry)]
            for body in table.findall(nodes.tbody):
                for row in body.findall(nodes.row):
                    for name, entry in list(zip(names, row.findall(nodes.entry), strict=False))[1:]:
                        for first in list(entry.findall(nodes.paragraph))[:1]:
                            first.insert(0, nodes.inline("", f"{name}: ", classes=["label"]))


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the transform."""
    app.add_post_transform(Labels)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
