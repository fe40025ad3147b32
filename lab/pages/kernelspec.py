"""Where Jupyter finds a kernel: a spec in a folder of the caller's, without importing what the kernel needs."""

import json
import sys
from pathlib import Path

from lab.paths import ROOT

NAME = "celery-faq"


def write(folder: Path, role: str) -> None:
    """Write the spec of the kernel for `role` into `folder`, which the caller puts on JUPYTER_PATH.

    Nobody's home is touched.
    """
    target = folder / "kernels" / NAME
    target.mkdir(parents=True, exist_ok=True)
    argv = [sys.executable, "-m", f"lab.pages.{role}", "-f", "{connection_file}", "--log-level=ERROR"]
    spec = {"argv": argv, "display_name": "Celery FAQ", "language": "python", "env": {"PYTHONPATH": str(ROOT)}}
    (target / "kernel.json").write_text(json.dumps(spec))
