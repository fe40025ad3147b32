"""HTML of our own on a page that the search index passes over: figures' numbers and lists of claims."""

from typing import Any

from docutils import nodes
from sphinx.application import Sphinx


class Markup(nodes.General, nodes.Element):
    """HTML as it stands. In docutils' own raw node every word would be found by the search."""


def _visit(translator: Any, node: Markup) -> None:
    translator.body.append(node["html"])
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the node."""
    app.add_node(Markup, html=(_visit, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
