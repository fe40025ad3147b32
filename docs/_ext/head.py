"""What stands around each page's text: description, social card, styles and scripts, the way to other pages."""

import html
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx

# What Sphinx puts beside the pages for themes that need it. Ours does not: its pages load what conf.py names.
_UNUSED = ["basic.css", "doctools.js", "documentation_options.js", "file.png", "language_data.js", "minus.png"]
_UNUSED += ["plus.png", "pygments.css", "searchtools.js", "sphinx_highlight.js", "jupyter-sphinx.css", "thebelab*"]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the changes to a page's context; late, as other extensions add to it too."""
    app.connect("html-page-context", describe, priority=900)
    app.connect("html-page-context", trim, priority=901)
    app.connect("html-page-context", lead, priority=902)
    app.connect("html-page-context", find_again, priority=903)
    app.connect("build-finished", prune)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def prune(app: Sphinx, error: Exception | None) -> None:
    """Remove what Sphinx copies beside the pages and no page asks for."""
    if error or app.builder.name != "html":
        return
    static = Path(app.outdir) / "_static"
    for path in [path for name in _UNUSED for path in static.glob(name)]:
        path.unlink()


def description(app: Sphinx, pagename: str) -> str:
    """Return a page's description, from its front matter."""
    return str(app.env.metadata.get(pagename, {}).get("description", "")).strip()


def describe(
    app: Sphinx, pagename: str, _template: str, context: dict[str, Any], _doctree: nodes.document | None
) -> None:
    """Add the description for search engines, and the card that is shown where a link is shared."""
    told = description(app, pagename) or context.get("description", "")
    base = app.config.html_baseurl
    tags = {"name": {"description": told}} if told else {}
    title = app.env.titles[pagename].astext() if pagename in app.env.titles else context.get("title", "")
    card = {"og:title": title, "og:type": "article", "og:site_name": app.config.project, "og:description": told}
    if base:
        # Cards need whole addresses, which only the publisher knows.
        card |= {"og:url": f"{base}{pagename}.html", "og:image": f"{base}_static/card.png"}
        card |= {"og:image:alt": app.config.project, "twitter:card": "summary_large_image"}
    tags["property"] = {name: value for name, value in card.items() if value}
    lines = [
        f'<meta {kind}="{name}" content="{html.escape(value)}">'
        for kind, pairs in tags.items()
        for name, value in pairs.items()
    ]
    if context.get("markdown"):
        lines.append(f'<link rel="alternate" type="text/markdown" href="{context["markdown"]}">')
    context["card"] = "\n".join(lines)


def trim(app: Sphinx, _page: str, _template: str, context: dict[str, Any], _doctree: nodes.document | None) -> None:
    """Keep the styles and scripts that conf.py names."""
    for kind in ("css_files", "script_files"):
        # Sphinx has made pairs of a name and its attributes of what the configuration holds.
        named = {f"_static/{name}" for name, _ in getattr(app.config, f"html_{kind.replace('script', 'js')}")}
        context[kind] = [asset for asset in context[kind] if asset.filename in named]


def lead(app: Sphinx, pagename: str, _template: str, context: dict[str, Any], _doctree: nodes.document | None) -> None:
    """Add the list of all pages, with the one that is read marked."""
    parts = []
    for toctree in app.env.master_doctree.findall(addnodes.toctree):
        if toctree["caption"]:
            parts.append(f"<p>{html.escape(toctree['caption'])}</p>")
        items = []
        for page in toctree["includefiles"]:
            here = ' aria-current="page"' if page == pagename else ""
            title = html.escape(app.env.titles[page].astext())
            items.append(f'<li><a href="{context["pathto"](page)}"{here}>{title}</a></li>')
        parts.append(f"<ul>{''.join(items)}</ul>")
    context["ways"] = "\n".join(parts)


def find_again(
    app: Sphinx, pagename: str, _template: str, context: dict[str, Any], _doctree: nodes.document | None
) -> None:
    """Let the page for what is not there find its styles wherever the missing address was."""
    if pagename == "404":
        path = urlsplit(app.config.html_baseurl).path or "/"
        context["card"] = f'<base href="{html.escape(path)}">\n' + context["card"]
        # An anchor alone would be looked for on the page at the base.
        context["body"] = context["body"].replace('href="#', 'href="404.html#')
