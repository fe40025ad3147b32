"""Where Jupyter finds the kernel: a spec in a folder of the caller's, without importing what the kernel needs."""

import json
import sys
from pathlib import Path

from lab.paths import ROOT

NAME = "lab"


def write(folder: Path) -> None:
    """Write the kernelspec into `folder`, which the caller puts on JUPYTER_PATH; nobody's home is touched."""
    target = folder / "kernels" / NAME
    target.mkdir(parents=True, exist_ok=True)
    argv = [sys.executable, "-m", "lab.kernel", "-f", "{connection_file}", "--log-level=ERROR"]
    spec = {"argv": argv, "display_name": "Lab", "language": "python", "env": {"PYTHONPATH": str(ROOT)}}
    (target / "kernel.json").write_text(json.dumps(spec))
