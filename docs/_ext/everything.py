"""All pages on one, for the browser's own search and for print: put together from the pages as they were written."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urldefrag

from bs4 import BeautifulSoup, Tag
from sphinx.application import Sphinx

# Attributes that name an element of the same page.
_NAMES = ("id", "aria-labelledby", "aria-describedby", "aria-controls", "for")


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the page, which the live server has no use for."""
    if not app.tags.has("live"):
        app.connect("html-collect-pages", page)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def page(app: Sphinx) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Yield the page."""
    root = app.config.root_doc
    names = [root, *app.env.toctree_includes.get(root, [])]
    parts = [part(Path(app.outdir) / f"{name}.html", name, names) for name in names]
    title = "All pages on one"
    body = f"<h1>{title}</h1>" + "\n".join(parts)
    told = f"Every page of {app.config.project} on one, to search in and to print."
    yield "everything", {"title": title, "body": body, "description": told}, "page.html"


def part(path: Path, name: str, names: list[str]) -> str:
    """Return the text of a built page, its anchors made `name.anchor`, its links those within the one page."""
    (text,) = BeautifulSoup(path.read_text(), "html.parser").select(".text")
    for element in text.find_all(True):
        _rename(element, name, names)
    for level in (3, 2, 1):
        for heading in text.find_all(f"h{level}"):
            heading.name = f"h{level + 1}"
    return f'<div id="{name}">{text.decode_contents()}</div>'


def _rename(element: Tag, name: str, names: list[str]) -> None:
    for attribute in _NAMES:
        if attribute in element.attrs:
            value = str(element[attribute])
            element[attribute] = " ".join(f"{name}.{word}" for word in value.split())
    address, anchor = urldefrag(str(element.get("href") or ""))
    page = address.removesuffix(".html") or name
    if element.has_attr("href") and page in names and (address or anchor):
        element["href"] = f"#{page}.{anchor}" if anchor else f"#{page}"
