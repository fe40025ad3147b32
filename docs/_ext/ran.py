"""Which claims ran what a page shows of a file.

What stands in functions and in scripts of calls is recorded line by line. What a process reads once, when it starts
(settings, addresses, hooks), and templates have no lines of a claim's own: there those claims count that ran the task
or the module that is named there, or the line that names the template.
"""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lab.paths import EXAMPLES, ROOT


def tests(record: dict[str, Any], file: str, lines: set[int]) -> set[str]:
    """Return the tests that ran some of these lines of `file`, by the `record` of its chapter."""
    claims: dict[str, list[int]] = record["files"].get(file, {}).get("claims", {})
    found = {test for test, ran in claims.items() if lines.intersection(ran)}
    if found:
        return found
    path = ROOT / file
    others = _named(path, lines) if path.suffix == ".py" else _naming(path)
    return {test for other, there in others for test in tests(record, other.relative_to(ROOT).as_posix(), there)}


def _named(path: Path, lines: set[int]) -> Iterator[tuple[Path, set[int]]]:
    """Yield the modules beside `path` that these lines import, and the functions that they give the dotted names of."""
    for node in ast.walk(ast.parse(path.read_text())):
        if getattr(node, "lineno", 0) not in lines:
            continue
        if isinstance(node, ast.ImportFrom) and node.level == 1:
            for name in [node.module] if node.module else [alias.name for alias in node.names]:
                module = path.parent / f"{name}.py"
                if module.exists():
                    yield module, set(range(1, len(module.read_text().splitlines()) + 1))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from _function(node.value)


def _function(dotted: str) -> Iterator[tuple[Path, set[int]]]:
    """Yield where the function `chapter.module.name` stands, if there is one."""
    module, _, name = dotted.rpartition(".")
    path = EXAMPLES / f"{module.replace('.', '/')}.py"
    if not module or not path.exists():
        return
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            yield path, set(range(node.lineno, (node.end_lineno or node.lineno) + 1))


def _naming(template: Path) -> Iterator[tuple[Path, set[int]]]:
    """Yield the lines of Python that name a template by its path from the folder `templates`."""
    name = template.as_posix().partition("/templates/")[2]
    chapter = EXAMPLES / template.relative_to(EXAMPLES).parts[0]
    for path in sorted(chapter.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and node.value == name:
                yield path, {node.lineno}
