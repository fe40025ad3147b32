"""What a page's calls printed, kept beside the doctrees: a change of prose executes nothing.

Kept under a hash of all that the output depends on: the calls, every example, the kernel and the locked versions.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
from jupyter_sphinx import execute
from sphinx.application import Sphinx

from lab.paths import EXAMPLES, ROOT


def setup(app: Sphinx) -> dict[str, bool]:
    """Put the store around jupyter-sphinx's way of executing cells, which it offers no other hook for."""
    if not hasattr(execute.execute_cells, "kept"):
        execute.execute_cells = _keeping(Path(app.doctreedir) / "calls", execute.execute_cells)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _keeping(folder: Path, executed: Callable[..., Any]) -> Callable[..., Any]:
    def cells_executed(kernel_name: str, cells: list[Any], arguments: dict[str, Any]) -> Any:
        path = folder / f"{_key(cells)}.ipynb"
        if path.exists():
            return nbformat.read(path, as_version=4)
        notebook = executed(kernel_name, cells, arguments)
        if not any(_failed(output) for cell in notebook.cells for output in cell.outputs):
            folder.mkdir(parents=True, exist_ok=True)
            nbformat.write(notebook, path)
        return notebook

    cells_executed.kept = True  # type: ignore[attr-defined]
    return cells_executed


def _failed(output: Any) -> bool:
    return output.output_type == "error" or output.get("name") == "stderr"


def _key(cells: list[Any]) -> str:
    files = [path for path in sorted(EXAMPLES.rglob("*.py")) if not path.name.startswith(("test_", "conftest"))]
    files += [ROOT / "lab" / "kernel.py", ROOT / "lab" / "worker_log.py", ROOT / "requirements.txt"]
    parts = [cell.source.encode() for cell in cells] + [path.read_bytes() for path in files if path.exists()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:32]
