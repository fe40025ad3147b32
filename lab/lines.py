"""Which lines of the examples each process of a run executes, and for which claim.

A call is put before each statement of the examples when they are loaded. Tracing, which Python offers for this, slows
down all that a process does, and made a run of all claims a quarter longer.

A worker is forked before its claim begins, and serves several. So the run leaves the name of the claim it is at in a
file, and a process looks there whenever it takes something up, or throws it away: a task, a request, beat's work.
"""

import ast
import os
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from lab.paths import EXAMPLES, chapters

_NAME = "claim"
# What the call before a statement is named in the module.
_NOTE = "__note__"
_current: "Lines | None" = None


class Lines:
    """Notes the lines that this process executes as `role`, each with the claim that the run is at."""

    def __init__(self, role: str, folder: Path, *, wanted: bool = True) -> None:
        """Begin to note, in place of what this process has inherited by a fork; note nothing if that is not wanted."""
        global _current
        self._folder = folder
        self._claim = ""
        self._noted: set[tuple[str, str, int]] = set()
        place = folder / "lines" / f"{role}-{os.getpid()}"
        self._file = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600) if wanted else None
        if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
            sys.meta_path.insert(0, _Finder())
        _current = self
        _listen()

    @staticmethod
    def noted() -> bool:
        """Whether this process, or the one it was forked from, notes lines."""
        return _current is not None and _current._file is not None

    def note(self, path: str, line: int) -> None:
        """Write down, when a statement is executed first for a claim, that it is: this process may be killed."""
        one = (self._claim, path, line)
        if self._file is not None and one not in self._noted:
            self._noted.add(one)
            os.write(self._file, "\t".join(map(str, one)).encode() + b"\n")

    def follow(self) -> None:
        """Count what is executed from here on for the claim that the run is at."""
        path = self._folder / _NAME
        self._claim = path.read_text() if path.exists() else ""

    @contextmanager
    def claim(self, name: str) -> Iterator[None]:
        """Say, in the process that runs the tests, that the run is at the claim `name`."""
        self._tell(name)
        try:
            yield
        finally:
            self._tell("")

    def _tell(self, name: str) -> None:
        scratch = self._folder / f"{_NAME}.part"
        scratch.write_text(name)
        scratch.replace(self._folder / _NAME)
        self.follow()

    def end(self) -> None:
        """Note nothing more."""
        self._file = None


def _listen() -> None:
    """Follow the run whenever this process takes something up: before the examples, which may answer the same."""
    from celery.signals import beat_init, task_prerun, task_revoked
    from django.core.signals import request_started

    for signal in (task_prerun, task_revoked, beat_init, request_started):
        signal.connect(_follow, weak=False)


def _follow(**_: Any) -> None:
    if _current:
        _current.follow()


def read(folder: Path) -> dict[str, dict[int, set[str]]]:
    """Return what the processes of a run have noted: path to line to its contexts, each `role|claim`."""
    found: dict[str, dict[int, set[str]]] = defaultdict(lambda: defaultdict(set))
    for file in folder.glob("**/lines/*"):
        role = file.name.partition("-")[0]
        # The last line of a process that was killed may be torn.
        for line in file.read_text().split("\n")[:-1]:
            claim, path, number = line.split("\t")
            found[path][int(number)].add(f"{role}|{claim}")
    return found


def run(path: Path, names: dict[str, Any]) -> dict[str, Any]:
    """Run a script with `names` as its globals, noting its lines; return them."""
    names[_NOTE] = partial(_note, str(path))
    exec(_compiled(path), names)  # noqa: S102
    return names


def _note(path: str, line: int) -> None:
    if _current:
        _current.note(path, line)


def _compiled(path: Path) -> CodeType:
    tree = _Noting().visit(ast.parse(path.read_bytes(), str(path)))
    return compile(ast.fix_missing_locations(tree), str(path), "exec", dont_inherit=True)


class _Noting(ast.NodeTransformer):
    """Puts a call before each statement but docstrings and what has to be first in its file."""

    def generic_visit(self, node: ast.AST) -> ast.AST:
        super().generic_visit(node)
        for name in ("body", "orelse", "finalbody"):
            statements = getattr(node, name, None)
            if isinstance(statements, list):
                setattr(node, name, [one for statement in statements for one in self._noted(statement)])
        if isinstance(node, ast.ExceptHandler):
            node.body.insert(0, self._call(node))
        return node

    def _noted(self, statement: ast.stmt) -> list[ast.stmt]:
        text = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
        first = isinstance(statement, ast.ImportFrom) and statement.module == "__future__"
        return [statement] if text or first else [self._call(statement), statement]

    @staticmethod
    def _call(node: ast.stmt | ast.ExceptHandler) -> ast.stmt:
        call = ast.Call(ast.Name(_NOTE, ast.Load()), [ast.Constant(node.lineno)], [])
        return ast.copy_location(ast.Expr(call), node)


class _Finder:
    """Finds the examples' modules, but for their tests, which pytest loads."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return where a module of the examples is; nothing for what others find."""
        if name.partition(".")[0] not in _CHAPTERS:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if not spec or not spec.origin or not Path(spec.origin).is_relative_to(EXAMPLES):
            return None
        spec.loader = _Loader(name, spec.origin)
        return spec


class _Loader(SourceFileLoader):
    def get_code(self, fullname: str) -> CodeType:
        return _compiled(Path(self.get_filename(fullname)))

    def exec_module(self, module: ModuleType) -> None:
        setattr(module, _NOTE, partial(_note, self.path))
        super().exec_module(module)


_CHAPTERS = frozenset(chapters())
