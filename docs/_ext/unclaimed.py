"""Lists what pages say without a claim, in `build/unclaimed/<page>.txt`: advice, or a fact that nobody has proven."""

import re
import shutil
from collections.abc import Iterator
from operator import itemgetter

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx

from lab.paths import BUILD, ROOT

from .claims import ClaimMark
from .guards import line_of

FOLDER = BUILD / "unclaimed"
_HEAD = """\
# What this page says without a claim, by line. A mark proves the sentence that it follows or stands in; in a table, all
# cells of its row. Left out: code, headings, what is nothing but a link, and the captions of figures, which are drawn
# from claims.
"""
# A mark and the beginning of code, as characters that no page holds; so that no sentence ends within code, the stops in
# it are others too.
_MARK, _CODE = "\ue000", "\ue001"
_HIDDEN = str.maketrans(".!?", "\ue002\ue003\ue004")
_SHOWN = str.maketrans("\ue002\ue003\ue004", ".!?", _CODE)
# What follows a stop: the end, or something that can begin a sentence.
_END = rf"(?:[.!?][)\"”’]*(?:\s*{_MARK})*|:(?:\s*{_MARK})+)(?=\s+[^\sa-z]|\s*$)"
_SENTENCE = re.compile(rf"\S.*?(?:{_END}|$)", re.DOTALL)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the listing; a live page is not the place to look for what is missing."""
    if not app.tags.has("live"):
        app.connect("build-finished", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def write(app: Sphinx, error: Exception | None) -> None:
    """Write a file for each page, and say how much was found."""
    if error:
        return
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    count = 0
    for docname in sorted(app.env.found_docs):
        found = sorted(unclaimed(app.env.get_doctree(docname)), key=itemgetter(0))
        count += len(found)
        if found:
            path = FOLDER / f"{docname.replace('/', '-')}.txt"
            path.write_text(_HEAD + "".join(f"{line}: {text}\n" for line, text in found))
    print(f"{count} sentences and table rows carry no claim: {FOLDER.relative_to(ROOT)}/<page>.txt")


def unclaimed(doctree: nodes.document) -> Iterator[tuple[int, str]]:
    """Yield line and text of each sentence and each row of a table that carries no mark."""
    for table in doctree.findall(nodes.table):
        head = line_of(next(table.findall(nodes.paragraph), table))
        for number, row in enumerate(table.findall(nodes.row)):
            # The first row is the head; below it stands a line of dashes.
            if number and not list(row.findall(ClaimMark)):
                yield head + number + 1, " | ".join(_plain(_text(cell)) for cell in row)
    for node in doctree.findall(nodes.TextElement):
        if isinstance(node, nodes.paragraph | nodes.term) and not isinstance(node.parent, nodes.entry):
            text = _text(node)
            for found in _SENTENCE.finditer(text):
                if _MARK not in found[0] and found[0].strip() and not _only_a_link(node):
                    yield line_of(node) + text.count("\n", 0, found.start()), _plain(found[0])


def _text(node: nodes.Node) -> str:
    """Return the text of a node with its marks."""
    if isinstance(node, ClaimMark):
        return _MARK
    if isinstance(node, nodes.literal):
        return f"{_CODE}{node.astext().translate(_HIDDEN)}"
    if isinstance(node, nodes.raw):
        return ""
    if isinstance(node, nodes.Text):
        return str(node)
    return "".join(_text(child) for child in node.children)


def _plain(text: str) -> str:
    return " ".join(text.translate(_SHOWN).split())


def _only_a_link(node: nodes.TextElement) -> bool:
    return all(isinstance(child, nodes.reference | pending_xref) or not child.astext().strip() for child in node)
