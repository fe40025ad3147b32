"""A piece of Python as `lab.mutation` sees it: where its nodes stand, and which of its numbers are left alone."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

# EVE's ids have seven digits and more.
_IDS_FROM = 1_000_000
# Parameters of the examples that say how long a task's stand-in for work sleeps.
_WORK = {"pages"}
_SENDERS = {"delay", "delay_on_commit", "s", "si"}


@dataclass(frozen=True)
class Change:
    """One change: bytes `start` to `end` of the source, which read `old`, become `new`. `line` is counted from 1."""

    kind: str
    line: int
    start: int
    end: int
    old: str
    new: str

    def apply(self, source: str) -> str:
        """Return `source` with the change in it."""
        raw = source.encode()
        return (raw[: self.start] + self.new.encode() + raw[self.end :]).decode()

    def __str__(self) -> str:
        """Return the change in a line, the same wherever in the file the code stands."""
        return f"{self.kind}: {_flat(self.old)} → {_flat(self.new) or '(nothing)'}"


def _flat(text: str) -> str:
    return " ".join(text.split())


class Source:
    """A parsed file: its tree, each node's parent, and where nodes stand in bytes."""

    def __init__(self, text: str) -> None:
        self.raw = text.encode()
        self.tree = ast.parse(text)
        self.parents = {child: node for node in ast.walk(self.tree) for child in ast.iter_child_nodes(node)}
        self._starts = [0]
        for line in self.raw.splitlines(keepends=True):
            self._starts.append(self._starts[-1] + len(line))

    def span(self, node: Any) -> tuple[int, int]:
        """Return the first byte of `node` and the first behind it."""
        return self._starts[node.lineno - 1] + node.col_offset, self._starts[node.end_lineno - 1] + node.end_col_offset

    def above(self, node: ast.AST) -> Iterator[tuple[ast.AST, ast.AST]]:
        """Yield each pair of a parent and its child, from `node` upwards."""
        while node in self.parents:
            yield self.parents[node], node
            node = self.parents[node]

    def change(self, kind: str, node: Any, new: str, *, start: int | None = None, end: int | None = None) -> Change:
        """Return the change of `node`, or of the bytes from `start` to `end` near it, to `new`."""
        first, last = self.span(node)
        first, last = (first if start is None else start), (last if end is None else end)
        return Change(kind, node.lineno, first, last, self.raw[first:last].decode(), new)


def left_out(text: str) -> list[tuple[int, str, str]]:
    """Return line, text and reason of every number that is left alone."""
    source = Source(text)
    constants = [node for node in ast.walk(source.tree) if isinstance(node, ast.Constant)]
    literals = [node for node in constants if type(node.value) in (int, float)]
    found = [(node.lineno, str(node.value), left_alone(source, node)) for node in literals]
    return sorted(entry for entry in found if entry[2])


def left_alone(source: Source, node: ast.Constant) -> str:
    """Return why a number is not changed; empty if it is."""
    if abs(cast(float, node.value)) >= _IDS_FROM:
        return "an id"
    for parent, inside in source.above(node):
        if isinstance(parent, ast.keyword):
            if parent.arg in _WORK:
                return "stands for work"
            if parent.arg == "args" and isinstance(source.parents[node], ast.List):
                return "an argument of a task"
        if isinstance(parent, ast.arguments) and _parameter(parent, inside) in _WORK:
            return "stands for work"
        if isinstance(parent, ast.Call):
            if called(parent) == "sleep":
                return "stands for work"
            if called(parent) in _SENDERS and inside in parent.args:
                return "an argument of a task"
        if isinstance(parent, ast.stmt):
            break
    return ""


def called(node: ast.AST | None) -> str:
    """Return the name of the function or method that `node` calls; empty where it calls none."""
    func = getattr(node, "func", None)
    return str(getattr(func, "attr", getattr(func, "id", "")))


def works(source: Source, node: ast.AST) -> bool:
    """Return whether `node` says how long a stand-in for work sleeps."""
    return any(called(parent) == "sleep" for parent, _ in source.above(node))


def _parameter(arguments: ast.arguments, default: ast.AST) -> str:
    named = [*arguments.posonlyargs, *arguments.args]
    pairs = list(zip(named[len(named) - len(arguments.defaults) :], arguments.defaults, strict=True))
    pairs += [(name, value) for name, value in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True) if value]
    return next((name.arg for name, value in pairs if value is default), "")
