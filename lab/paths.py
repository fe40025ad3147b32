"""Where things stand."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
BUILD = ROOT / "build"
EVIDENCE = BUILD / "evidence.json"
PROJECTS = BUILD / "projects"


def chapters() -> list[str]:
    """Return the chapters' names in reading order, which is the order in `examples/CHAPTERS`."""
    return (EXAMPLES / "CHAPTERS").read_text().split()
