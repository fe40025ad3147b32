"""What a block imports can be read: below it, folded, the whole file of what the page shows nowhere else."""

import ast
import html
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

from lab.paths import EXAMPLES

from .blocks import Block, block_of


class Whole(nodes.General, nodes.Element):
    """Folds away the block inside it."""


class Wholes(SphinxTransform):
    """Adds the files."""

    default_priority = 900

    def apply(self, **_: Any) -> None:
        """Put each file behind the first block that needs it."""
        shown: dict[Path, set[int]] = {}
        blocks = list(self.document.findall(Block))
        for block in blocks:
            shown.setdefault(block.shown.path, set()).update(block["lines"])
        for block in blocks:
            for path, lines in _imported(block):
                there = shown.setdefault(path, set())
                if lines <= there:
                    continue
                text = path.read_text()
                there.update(range(1, len(text.splitlines()) + 1))
                whole = block_of(path, text, sorted(there), part="whole file")
                whole.line = block.line
                whole["ids"] = ["whole-" + "-".join(path.relative_to(EXAMPLES).with_suffix("").parts)]
                parent = block.parent
                parent.insert(parent.index(block) + 1, Whole("", whole, file=whole.shown.short))


def _imported(block: Block) -> Iterator[tuple[Path, set[int]]]:
    """Yield file and lines of each function and class of an example that the block's lines import."""
    if block["language"] != "python":
        return
    for node in ast.walk(ast.parse(block.shown.path.read_text())):
        if not isinstance(node, ast.ImportFrom) or node.lineno not in block["lines"]:
            continue
        folder = block.shown.path.parents[node.level - 1] if node.level else EXAMPLES
        path = folder.joinpath(*(node.module or "").split(".")).with_suffix(".py")
        if path.is_file():
            names = {alias.name for alias in node.names}
            for statement in ast.parse(path.read_text()).body:
                if isinstance(statement, ast.FunctionDef | ast.ClassDef) and statement.name in names:
                    yield path, set(range(statement.lineno, (statement.end_lineno or statement.lineno) + 1))


def _visit(self: Any, node: Whole) -> None:
    self.body.append(f'<details class="whole"><summary>All of <code>{html.escape(node["file"])}</code></summary>')


def _depart(self: Any, _node: Whole) -> None:
    self.body.append("</details>\n")


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the transform."""
    app.add_node(Whole, html=(_visit, _depart))
    app.add_transform(Wholes)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
