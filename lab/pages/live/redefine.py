"""New definitions of tasks in a process that has them already."""

import ast
import importlib
import linecache
from pathlib import Path
from types import CodeType
from typing import Any


def replace_tasks(app: Any, module: str, source: str) -> None:
    """Execute `source` in `module`; tasks that it defines take the place of those of the same name."""
    there = importlib.import_module(module)
    functions = defined(source)
    # A second @shared_task of the same name, which need not be the function's, would return the old task.
    for name in [name for name, task in app.tasks.items() if task.__module__ == module and task.__name__ in functions]:
        app.tasks.pop(name)
    exec(_compiled(Path(str(there.__file__)), source), vars(there))  # noqa: S102


def _compiled(path: Path, source: str) -> CodeType:
    """Compile a part of a file, or an edited part, so that a traceback shows the lines that the reader sees."""
    text = source.strip("\n")
    before, found, _ = path.read_text().partition(text)
    if found:
        return compile("\n" * before.count("\n") + text, str(path), "exec")
    name = f"{path} (edited)"
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    return compile(source, name, "exec")


def defined(source: str) -> tuple[str, ...]:
    """Return the names of the functions that `source` defines."""
    return tuple(node.name for node in ast.parse(source).body if isinstance(node, ast.FunctionDef))
