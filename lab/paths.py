"""Where things stand."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
BUILD = ROOT / "build"
# A test that runs the lab must not overwrite the record that the site is built from.
EVIDENCE = Path(os.environ.get("LAB_EVIDENCE", BUILD / "evidence.json"))
PROJECTS = BUILD / "projects"


def chapters() -> list[str]:
    """Return the chapters' names in reading order, which is the order in `examples/CHAPTERS`."""
    return (EXAMPLES / "CHAPTERS").read_text().split()
