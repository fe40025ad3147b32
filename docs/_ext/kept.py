"""What a page's calls printed, kept beside the doctrees: a change of prose executes nothing.

Kept under a hash of all that the output depends on: the calls, every example, the kernel and the locked versions. The
pages of the live server use what is kept and execute nothing at all.
"""

import hashlib
from functools import partial
from pathlib import Path
from typing import Any

import nbformat
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

from lab.paths import BUILD, EXAMPLES, ROOT

from .jupyter import blank_nb, execute_by, execute_cells
from .proof import NOT_YET

_KEPT = BUILD / "doctrees" / "calls"
# The kernel that executes calls, which decides on what they print.
KERNEL = sorted(path for folder in ("pages", "pages/built") for path in (ROOT / "lab" / folder).glob("*.py"))


def setup(app: Sphinx) -> dict[str, bool]:
    """Put the store around the execution of cells."""
    if app.tags.has("live"):
        execute_by(_known)
        app.connect("env-get-outdated", _newly_known)
    else:
        execute_by(partial(_keeping, Path(app.doctreedir) / "calls"))
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _known(kernel_name: str, cells: list[Any], _arguments: dict[str, Any]) -> Any:
    path = _KEPT / f"{_key(cells)}.ipynb"
    if path.exists():
        return nbformat.read(path, as_version=4)
    notebook = blank_nb(kernel_name)
    notebook.cells = cells
    for cell in cells:
        cell.outputs = [nbformat.v4.new_output("stream", text=f"({NOT_YET.lower()})")]
    return notebook


def _newly_known(app: Sphinx, env: BuildEnvironment, *_: Any) -> list[str]:
    """Read the pages anew when there are outputs that were not there before."""
    there = sorted(path.name for path in _KEPT.glob("*.ipynb"))
    before, env.known_outputs = getattr(env, "known_outputs", there), there  # type: ignore[attr-defined]
    return [] if before == there else sorted(env.found_docs)


def _keeping(folder: Path, kernel_name: str, cells: list[Any], arguments: dict[str, Any]) -> Any:
    path = folder / f"{_key(cells)}.ipynb"
    if path.exists():
        return nbformat.read(path, as_version=4)
    notebook = execute_cells(kernel_name, cells, arguments)
    if not any(_failed(output) for cell in notebook.cells for output in cell.outputs):
        folder.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, path)
    return notebook


def _failed(output: Any) -> bool:
    return bool(output.output_type == "error") or output.get("name") == "stderr"


def _key(cells: list[Any]) -> str:
    files = [path for path in sorted(EXAMPLES.rglob("*.py")) if not path.name.startswith(("test_", "conftest"))]
    files += [*KERNEL, ROOT / "requirements.txt"]
    parts = [cell.source.encode() for cell in cells] + [path.read_bytes() for path in files if path.exists()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:32]
