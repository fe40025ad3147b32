"""The source of the tests and examples as pages of the site, so that a proof is one click away, also off-line."""

import html
import re
from collections.abc import Iterator
from typing import Any

from pygments import highlight
from pygments.lexers import PythonLexer
from sphinx.application import Sphinx

from lab.paths import EXAMPLES, chapters

from .colours import FewColours
from .proof import Claim


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the pages."""
    app.connect("html-collect-pages", pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def link(app: Sphinx, docname: str, claim: Claim) -> str:
    """Return the address of a claim's test, relative to a page."""
    return app.builder.get_relative_uri(docname, f"proof/{claim.chapter}") + f"#{claim.test}"


def prose(sentence: str) -> str:
    """Return a claim's sentence as HTML: `code` between backticks, the rest as it is."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(sentence, quote=False))


def pages(app: Sphinx) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Yield a page with the tests of each chapter, with an anchor at each test."""
    for chapter in chapters():
        path = EXAMPLES / chapter / f"test_{chapter}.py"
        if not path.exists():
            continue
        formatter = FewColours(nowrap=True)
        lines = highlight(path.read_text(), PythonLexer(stripnl=False), formatter).splitlines()
        for number, line in enumerate(path.read_text().splitlines()):
            found = re.match(r"def (test_\w+)", line)
            if found:
                lines[number] = f'<span id="{found[1]}">{lines[number]}</span>'
        title = f"The tests behind “{chapter}”"
        back = f'<a href="../{chapter}.html">the page they prove</a>'
        body = (
            f"<section><h1>{title}</h1><p><code>{path.relative_to(EXAMPLES.parent)}</code>, and {back}.</p>"
            '<div class="highlight source">'
            f"<pre>{chr(10).join(lines)}\n</pre></div></section>"
        )
        yield f"proof/{chapter}", {"title": title, "body": body, "pagetitle": title}, "page.html"
