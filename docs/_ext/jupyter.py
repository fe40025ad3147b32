"""jupyter-sphinx, which executes the calls, with all that is done around it: it offers few hooks.

What this rests on, `tests/lab/test_jupyter.py` asks of each release, and names what is no longer there.
"""

import sys
from collections.abc import Callable
from typing import Any

# jsonschema, which comes with it, compiles a grammar of URIs for two seconds if it finds this one.
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]

from jupyter_sphinx import execute  # noqa: E402
from jupyter_sphinx.ast import CellOutputNode, JupyterCell  # noqa: E402
from jupyter_sphinx.execute import ExecuteJupyterCells, blank_nb, execute_cells  # noqa: E402
from sphinx.application import Sphinx  # noqa: E402

__all__ = ["CellOutputNode", "ExecuteJupyterCells", "JupyterCell", "blank_nb", "execute_by", "execute_cells", "setup"]


def setup(app: Sphinx) -> dict[str, bool]:
    """Load it without its transform, for which `blocks.ExecuteCalls` stands, and without what it links on each page.

    These are styles and scripts for widgets and for Thebe, of which no page has any.
    """
    linked: list[list[Any]] = [app.registry.css_files, app.registry.js_files]
    ours = [len(files) for files in linked]
    app.setup_extension("jupyter_sphinx")
    for files, count in zip(linked, ours, strict=True):
        del files[count:]
    app.registry.transforms.remove(ExecuteJupyterCells)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def execute_by(function: Callable[..., Any]) -> None:
    """Let `function` stand in for `execute_cells`, which takes a kernel's name, cells and nbclient's arguments."""
    execute.execute_cells = function
