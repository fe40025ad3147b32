"""What docs/_ext/jupyter.py rests on in other packages; each failure names what a release has moved."""

import importlib
import inspect
from pathlib import Path

import pytest
from jupyter_sphinx import __version__
from jupyter_sphinx.execute import ExecuteJupyterCells, execute_cells
from sphinx.application import Sphinx

GONE = f"jupyter-sphinx {__version__} no longer {{}}, which docs/_ext/jupyter.py needs"


@pytest.mark.parametrize("name", ["ast.CellOutputNode", "ast.JupyterCell", "execute.blank_nb"])
def test_jupyter_sphinx_has_the_parts_that_blocks_are_made_of(name: str) -> None:
    module, _, part = name.partition(".")
    assert hasattr(importlib.import_module(f"jupyter_sphinx.{module}"), part), GONE.format(f"has {name}")


def test_jupyter_sphinx_executes_by_a_function_that_can_be_replaced() -> None:
    assert "execute_cells" in ExecuteJupyterCells.apply.__code__.co_names, GONE.format("executes by execute_cells")
    taken = list(inspect.signature(execute_cells).parameters)
    assert taken == ["kernel_name", "cells", "execute_kwargs"], GONE.format(f"executes cells as before, but {taken}")


def test_jupyter_sphinx_registers_its_transform_styles_and_scripts_where_they_are_taken_out(tmp_path: Path) -> None:
    extensions = {"extensions": ["jupyter_sphinx"]}
    app = Sphinx(tmp_path, None, tmp_path / "html", tmp_path / "doctrees", "html", extensions, status=None)
    assert ExecuteJupyterCells in app.registry.transforms, GONE.format("registers ExecuteJupyterCells")
    linked = {name for name, _ in [*app.registry.css_files, *app.registry.js_files]}
    assert "jupyter-sphinx.css" in linked, GONE.format("registers its styles by add_css_file")
    assert "thebelab-helper.js" in linked, GONE.format("registers its scripts by add_js_file")


def test_jsonschema_still_looks_for_the_slow_grammar() -> None:
    source = inspect.getsource(importlib.import_module("jsonschema._format"))
    told = "jsonschema no longer imports rfc3987_syntax, which docs/_ext/jupyter.py blocks: take that out"
    assert "from rfc3987_syntax import" in source, told
