"""The links under each page: mend it, report a wrong sentence, read it with a machine, all pages on one."""

from typing import Any
from urllib.parse import urlencode

from docutils import nodes
from sphinx.application import Sphinx

from lab.paths import chapters

from .proof import Evidence


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the addition to a page's context."""
    app.connect("html-page-context", add, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def add(app: Sphinx, pagename: str, _template: str, context: dict[str, Any], doctree: nodes.document | None) -> None:
    """Name the links of a page that has a source."""
    if doctree is None:
        return
    repository, links = context["repository"], []
    if repository:
        links.append(("Edit this page", f"{_within(repository)}/edit/{context['branch']}/docs/{pagename}.md"))
        links.append(("Report a wrong sentence", report(app, repository, pagename)))
    if "markdown" in context:
        links.append(("This page as Markdown", context["markdown"]))
        links.append(("All pages on one", context["pathto"]("everything")))
    context["links"] = links


def _within(repository: str) -> str:
    # GitLab keeps what belongs to a project apart from its folders.
    return repository if "github" in repository else f"{repository}/-"


def report(app: Sphinx, repository: str, pagename: str) -> str:
    """Return the address of a new issue that names the page and what it was proven on."""
    page = f"{app.config.html_baseurl}{pagename}.html"
    told = f"Page: {page}\n"
    if pagename in chapters():
        evidence = Evidence()
        recorded = evidence.chapter(pagename)["recorded"][:10]
        told += f"Proven on: {evidence.line(pagename)}, {recorded}\n"
    told += "\nThe sentence:\n\nWhat you see instead, and on which versions:\n"
    title = f"A wrong sentence on {pagename}"
    names = ("title", "body") if "github" in repository else ("issue[title]", "issue[description]")
    return f"{_within(repository)}/issues/new?" + urlencode(dict(zip(names, (title, told), strict=True)))
