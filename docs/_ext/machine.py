"""For those who read with a machine: each page as Markdown, llms.txt, sitemap.xml, and evidence.json.

A page's Markdown has its code and output in it; evidence.json lists every block.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

from .blocks import Block
from .charts import Chart
from .head import description
from .jupyter import CellOutputNode
from .proof import Evidence

_DIRECTIVE = re.compile(r"^(`{3,}|:{3,})\{([\w-]+)\} *([^\n]*)\n(.*?)^\1 *$\n?", re.MULTILINE | re.DOTALL)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register what is written beside the pages, where they are published."""
    if app.tags.has("live"):
        return {"parallel_read_safe": True, "parallel_write_safe": True}
    app.connect("html-page-context", name_markdown)
    app.connect("build-finished", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def name_markdown(app: Sphinx, pagename: str, _template: str, context: dict[str, Any], doctree: Any) -> None:
    """Tell the templates the address of the page's Markdown."""
    if doctree is not None:
        context["markdown"] = f"{pagename.rpartition('/')[2]}.md"


def write(app: Sphinx, error: Exception | None) -> None:
    """Write the files, unless the build failed."""
    if error or app.builder.name != "html":
        return
    out = Path(app.outdir)
    blocks: list[dict[str, Any]] = []
    evidence = Evidence()
    for docname in sorted(app.env.found_docs):
        doctree = app.env.get_doctree(docname)
        found = list(doctree.findall(Block))
        blocks += [_entry(docname, block, evidence) for block in found]
        captions = [chart.words(evidence) for chart in doctree.findall(Chart)]
        (out / f"{docname}.md").write_text(markdown(Path(app.env.doc2path(docname)).read_text(), found, captions))
    listing = {
        "recorded": {chapter: evidence.chapter(chapter)["recorded"] for chapter in _chapters(blocks)},
        "blocks": blocks,
    }
    (out / "evidence.json").write_text(json.dumps(listing, indent=1, ensure_ascii=False) + "\n")
    (out / "llms.txt").write_text(_llms(app))
    (out / "robots.txt").write_text("User-agent: *\nAllow: /\n")
    if app.config.html_baseurl:
        # A sitemap holds whole addresses, which only the publisher knows.
        (out / "sitemap.xml").write_text(_sitemap(app))


def _chapters(blocks: list[dict[str, Any]]) -> list[str]:
    return sorted({block["file"].split("/")[1] for block in blocks})


def _entry(docname: str, block: Block, evidence: Evidence) -> dict[str, Any]:
    chapter = evidence.chapter(block.shown.chapter)
    claims = evidence.proofs(block.shown)
    return {
        "page": docname,
        "anchor": block["ids"][0],
        "kind": "call" if block["called"] else "block",
        "language": block["language"],
        "file": block["file"],
        "lines": block["lines"],
        "sha256": chapter["files"][block["file"]]["sha256"],
        "claims": [claim.key for claim in claims],
        "versions": chapter["versions"],
        "seconds": round(sum(claim.seconds for claim in claims), 3),
    }


def markdown(text: str, blocks: list[Block], captions: list[str]) -> str:
    """Return a page's source with code, output and captions in place of the directives, and without the marks."""
    waiting, told = iter(blocks), iter(captions)

    def replaced(found: re.Match[str]) -> str:
        kind, argument, body = found[2], found[3].strip(), found[4]
        if kind in ("block", "call"):
            return "".join(_fences(block)) if (block := next(waiting, None)) else ""
        if kind == "chart":
            return f"Figure ({argument}): {next(told)}\n"
        if kind in ("toctree", "measured"):
            return ""
        return f"{body}\n"

    text = _DIRECTIVE.sub(replaced, text)
    text = re.sub(r" ?\{claim\}`[^`]*`|(?:\[\])?\{[.#][\w-]+\}\n?", "", text)
    return re.sub(r"\{[\w:-]+\}`([^`<]*?)(?: *<[^>]*>)?`", r"\1", text)


def _fences(block: Block) -> Iterator[str]:
    yield f"`{block['file']}`:\n\n```{block['language']}\n{block['text'].rstrip()}\n```\n"
    for output in block.findall(CellOutputNode):
        told = "\n".join(literal.astext().rstrip() for literal in output.findall(nodes.literal_block))
        yield f"\nOutput:\n\n```text\n{told}\n```\n"


def _pages(app: Sphinx) -> list[str]:
    """Return the pages in reading order."""
    toc = [page for page in app.env.toctree_includes.get("index", [])]
    return ["index", *toc]


def _llms(app: Sphinx) -> str:
    lines = [f"# {app.config.project}", "", f"> {description(app, 'index')}", "", "## Pages", ""]
    base = app.config.html_baseurl
    for page in _pages(app):
        lines.append(f"- [{app.env.titles[page].astext()}]({base}{page}.md): {description(app, page)}")
    lines += [
        "",
        "## Data",
        "",
        f"- [evidence.json]({base}evidence.json): every block, what it ran on and which claims it proves",
    ]
    return "\n".join(lines) + "\n"


def _sitemap(app: Sphinx) -> str:
    urls = "".join(f"<url><loc>{app.config.html_baseurl}{page}.html</loc></url>\n" for page in _pages(app))
    return (
        '<?xml version="1.0" encoding="utf-8"?>\n'
        f'<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">\n{urls}</urlset>\n'
    )
