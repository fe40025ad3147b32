"""What stands in the head of each page: descriptions, social cards, and only the scripts that a page needs."""

import html
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from docutils import nodes
from sphinx.application import Sphinx


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the changes to a page's context; late, as the theme adds to it too."""
    app.connect("html-page-context", describe, priority=900)
    app.connect("html-page-context", trim, priority=901)
    app.connect("html-page-context", find_again, priority=902)
    app.connect("build-finished", prune)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def prune(app: Sphinx, error: Exception | None) -> None:
    """Remove what the themes copy beside the pages and no page asks for: templates, and a megabyte of icons."""
    if error or app.builder.name != "html":
        return
    static = Path(app.outdir) / "_static"
    for path in [*static.glob("*webpack-macros.html"), *static.glob("scripts/fontawesome*")]:
        path.unlink()


def description(app: Sphinx, pagename: str) -> str:
    """Return a page's description, from its front matter."""
    return str(app.env.metadata.get(pagename, {}).get("description", "")).strip()


def describe(
    app: Sphinx, pagename: str, _template: str, context: dict[str, Any], _doctree: nodes.document | None
) -> None:
    """Add the description for search engines, and the card that is shown where a link is shared."""
    told = description(app, pagename)
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
    context["metatags"] = context.get("metatags", "") + "\n".join(lines) + "\n"


def trim(_app: Sphinx, _page: str, _template: str, context: dict[str, Any], _doctree: nodes.document | None) -> None:
    """Drop whatever would be fetched from another host."""
    for kind in ("css_files", "script_files"):
        names = [str(getattr(asset, "filename", asset) or "") for asset in context[kind]]
        kept = zip(context[kind], names, strict=True)
        context[kind] = [asset for asset, name in kept if not urlsplit(name).netloc]


def find_again(
    app: Sphinx, pagename: str, _template: str, context: dict[str, Any], _doctree: nodes.document | None
) -> None:
    """Let the page for what is not there find its styles wherever the missing address was."""
    if pagename == "404":
        path = urlsplit(app.config.html_baseurl).path or "/"
        context["metatags"] = f'<base href="{html.escape(path)}">\n' + context.get("metatags", "")
        # An anchor alone would be looked for on the page at the base.
        context["body"] = context["body"].replace('href="#', 'href="404.html#')
