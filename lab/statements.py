"""The statements of an example's file: what counts as run by a claim, and over which lines a statement goes."""

import ast
from pathlib import Path


def ran(path: Path, executed: set[int]) -> list[int]:
    """Return the lines that a claim ran, given those that were `executed` while it was the claim at hand.

    Each statement counts with all its lines. What stands outside functions is executed when a file is imported,
    whichever claim happens to be the first: it counts for none, but in scripts of calls, `demo*.py`, which each claim
    that uses them runs from their first line to their last.
    """
    found = whole(path, executed)
    tree = ast.parse(path.read_text())
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    inside = {line for node in functions for line in range(_first(node.body[0]), (node.end_lineno or node.lineno) + 1)}
    return sorted(found if path.stem.startswith("demo") else found & inside)


def whole(path: Path, executed: set[int]) -> set[int]:
    """Return the lines of each statement of which a line was `executed`."""
    found = set(executed)
    for statement in ast.walk(ast.parse(path.read_text())):
        if isinstance(statement, ast.stmt) and executed.intersection(own_lines(statement)):
            found.update(own_lines(statement))
    return found


def own_lines(statement: ast.stmt) -> range:
    """Return the lines of a statement, without those of the statements in it."""
    inner = getattr(statement, "body", None)
    last = _first(inner[0]) - 1 if inner else statement.end_lineno or statement.lineno
    return range(_first(statement), max(last, statement.lineno) + 1)


def _first(statement: ast.stmt) -> int:
    above: list[int] = [decorator.lineno for decorator in getattr(statement, "decorator_list", [])]
    return min([statement.lineno, *above])
