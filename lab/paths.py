"""Where things stand."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
BUILD = ROOT / "build"
# A test that runs the lab must not overwrite the record that the site is built from.
EVIDENCE = Path(os.environ.get("LAB_EVIDENCE", BUILD / "evidence.json"))
# What was run on a database that not every machine has is committed.
RECORDED = EVIDENCE.with_name("recorded.json") if "LAB_EVIDENCE" in os.environ else ROOT / "docs/recorded/mariadb.json"
PROJECTS = BUILD / "projects"
# In a chapter's folder: which mutants of it are equivalent. No run reads it, so evidence holds whatever it says.
EQUIVALENTS = "equivalent.toml"


def chapters() -> list[str]:
    """Return the chapters' names in reading order, which is the order in `examples/CHAPTERS`."""
    return list(_listed())


def system(chapter: str) -> str:
    """Return the database that a chapter needs, such as MariaDB; empty where it needs none but SQLite or any other."""
    return _listed().get(chapter, "")


def _listed() -> dict[str, str]:
    words = [line.split() for line in (EXAMPLES / "CHAPTERS").read_text().splitlines()]
    return {name: "".join(needs) for name, *needs in words}
