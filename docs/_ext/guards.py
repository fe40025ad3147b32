"""Nothing unproven gets out: looks at every page before any is written, and stops the build with all it found.

Nodes that stand for something to be proven have a method `problem(evidence)`; what is code and no such node was typed
into the page.
"""

from collections.abc import Iterator
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging

from .blocks import Block
from .proof import Evidence, Stop

logger = logging.getLogger(__name__)

_TYPED = (
    "a code block is typed into the page. Put the code into a file under examples/<chapter>/, have a test run it, "
    "and show it with {block} or {call}."
)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the check; a live page says itself what has not been run yet."""
    if not app.tags.has("live"):
        app.connect("env-check-consistency", check)
    app.connect("env-updated", outdated)
    app.connect("build-finished", written)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def outdated(app: Sphinx, env: BuildEnvironment) -> list[str]:
    """Write all pages anew, without executing them, when what all of them show has changed: evidence, order, titles.

    Also when the last build did not end well: Sphinx keeps what it has read, and would not write it the next time.
    """
    mark = Path(app.doctreedir) / "written"
    before = mark.read_text() if mark.exists() else ""
    mark.unlink(missing_ok=True)
    return [] if before == _shown_by_all(env) else sorted(env.found_docs)


def written(app: Sphinx, exception: Exception | None) -> None:
    """Note what the pages were written from."""
    if exception is None:
        (Path(app.doctreedir) / "written").write_text(_shown_by_all(app.env))


def _shown_by_all(env: BuildEnvironment) -> str:
    titles = sorted((name, title.astext()) for name, title in env.titles.items())
    return repr((Evidence().digest(), sorted(env.toctree_includes.items()), titles))


def check(app: Sphinx, env: BuildEnvironment) -> None:
    """Stop the build where a page shows what is not proven."""
    evidence = Evidence()
    count = 0
    for docname in sorted(env.found_docs):
        # One changed file makes every block and claim that rests on it stale: said once, with all the lines.
        lines: dict[str, list[int]] = {}
        for line, problem in problems(env.get_doctree(docname), evidence):
            lines.setdefault(problem, []).append(line)
        for problem, (first, *others) in lines.items():
            also = f" (Also on line {', '.join(map(str, sorted(set(others))))}.)" if others else ""
            logger.error("%s%s", problem, also, location=(docname, first))
        count += len(lines)
    if count:
        plural = "s" if count > 1 else ""
        raise Stop(f"{count} thing{plural} on the pages not proven (see above); nothing was written.")


def problems(doctree: nodes.document, evidence: Evidence) -> Iterator[tuple[int, str]]:
    """Yield line and problem of everything on a page that must not be there."""
    shown = {id(node) for block in doctree.findall(Block) for node in block.findall()}
    for node in doctree.findall(nodes.Element):
        if hasattr(node, "problem"):
            problem = node.problem(evidence)
            if problem:
                yield line_of(node), problem
        elif _is_code(node) and id(node) not in shown:
            yield line_of(node), _TYPED


def _is_code(node: nodes.Element) -> bool:
    if isinstance(node, nodes.raw):
        return "<pre" in node.astext().lower()
    return isinstance(node, nodes.literal_block | nodes.doctest_block)


def line_of(node: nodes.Element) -> int:
    """Return the line of the page a node stands on, or that of the nearest parent that knows."""
    place: nodes.Element | None = node
    while place is not None and not place.line:
        place = place.parent
    return (place.line if place else None) or 1
