"""What the search finds: every section of every page, with its title, its text, its claims and its code.

The pages fetch it once a reader wants to search; search.js looks in it with MiniSearch and Sphinx's own stemmer.
"""

import json
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import sphinx
from docutils import nodes
from sphinx.application import Sphinx

from .blocks import Block
from .claims import ClaimMark
from .proof import Evidence

_STEMMERS = Path(sphinx.__file__).parent / "search" / "minified-js"


def setup(app: Sphinx) -> dict[str, bool]:
    """Put the search in the place of Sphinx's, which finds whole pages, and only those that have every word."""
    app.connect("builder-inited", lambda app: setattr(app.builder, "search", False))
    app.connect("html-collect-pages", page)
    app.connect("build-finished", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def page(_app: Sphinx) -> Iterable[tuple[str, dict[str, Any], str]]:
    """Return the page of results."""
    return [("search", {"title": "Search", "description": "Search these pages."}, "search.html")]


def write(app: Sphinx, error: Exception | None) -> None:
    """Write the sections and the words that stand for one another, and copy the stemmer."""
    if error or app.builder.name != "html":
        return
    evidence = Evidence()
    pages = sorted(name for name in app.env.found_docs if "orphan" not in app.env.metadata[name])
    found = [section for name in pages for section in sections(app.env.get_doctree(name), name, evidence)]
    synonyms = tomllib.loads((Path(__file__).parent / "synonyms.toml").read_text())["groups"]
    static = Path(app.outdir) / "_static"
    told = json.dumps({"sections": found, "synonyms": synonyms}, ensure_ascii=False, separators=(",", ":"))
    # A script, not JSON: a page opened as a file may load no other kind.
    (static / "sections.js").write_text(f"window.searched = {told};\n")
    for name in ("base-stemmer.js", "english-stemmer.js"):
        (static / name).write_text((_STEMMERS / name).read_text())


def sections(doctree: nodes.document, name: str, evidence: Evidence) -> Iterator[dict[str, str]]:
    """Yield each section of a page without those within it."""
    for section in doctree.findall(nodes.section):
        own = [node for node in section.children if not isinstance(node, nodes.section | nodes.title)]
        blocks = [block for node in own for block in node.findall(Block)]
        marks = [mark for node in own for mark in node.findall(ClaimMark)]
        claims = {evidence.claims[mark["key"]].sentence for mark in marks if mark["key"] in evidence.claims}
        first = section.parent if isinstance(section.parent, nodes.section) else section
        yield {
            "address": f"{name}.html#{section['ids'][0]}",
            "title": section.next_node(nodes.title).astext(),
            "page": "" if first is section else doctree.next_node(nodes.title).astext(),
            "text": " ".join(" ".join(node.astext().split()) for node in own if not list(node.findall(Block))),
            "claims": " ".join(sorted(claims)),
            "code": " ".join(" ".join(block.astext().split()) for block in blocks),
        }
