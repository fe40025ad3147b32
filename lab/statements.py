"""The statements of an example's file: what counts as run by a claim, and over which lines a statement goes."""

import ast
from collections.abc import Iterator
from pathlib import Path


def is_script(path: Path) -> bool:
    """Whether a file is a script of calls, which each claim that uses it runs from its first line to its last."""
    return path.suffix == ".py" and path.stem.startswith("demo")


def ran(path: Path, executed: set[int]) -> list[int]:
    """Return the lines that a claim ran, given those that were `executed` while it was the claim at hand.

    Each statement counts with all its lines. What stands outside functions is executed when a file is imported,
    whichever claim happens to be the first: it counts for none, but in scripts.
    """
    tree = ast.parse(path.read_text())
    found = set(executed)
    for statement in ast.walk(tree):
        if isinstance(statement, ast.stmt) and executed.intersection(own_lines(statement)):
            found.update(own_lines(statement))
    return sorted(found if is_script(path) else found & set(within_functions(tree)))


def within_functions(tree: ast.AST) -> Iterator[int]:
    """Yield the lines of the bodies of functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from range(_first(node.body[0]), (node.end_lineno or node.lineno) + 1)


def own_lines(statement: ast.stmt) -> range:
    """Return the lines of a statement, without those of the statements in it."""
    inner = getattr(statement, "body", None)
    last = _first(inner[0]) - 1 if inner else statement.end_lineno or statement.lineno
    return range(_first(statement), max(last, statement.lineno) + 1)


def _first(statement: ast.stmt) -> int:
    above: list[int] = [decorator.lineno for decorator in getattr(statement, "decorator_list", [])]
    return min([statement.lineno, *above])
