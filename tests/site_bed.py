"""A small site in a folder of its own: the project's extensions over one page and one chapter, to break at will."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import coverage

from lab.evidence import FORMAT
from lab.paths import ROOT

TASKS = """from celery import shared_task

from allianceauth.services.hooks import get_extension_logger

logger = get_extension_logger(__name__)


@shared_task
def greet(name):
    logger.info("Hello %s", name)


@shared_task
def wave(name):
    logger.info("%s waves", name)
"""
DEMO = """from greetings.tasks import greet

greet.delay("Ada")
"""
CLAIM = "test_greet_says_hello"
TEST = '''def test_greet_says_hello(rig):
    """The task says hello."""
    rig.demo()
'''
PAGE = """---
description: A page.
---

# Greetings

The task says hello. {claim}`test_greet_says_hello`

```{block} greetings/tasks.py
:pyobject: greet
```
"""
INDEX = """# Index

```{toctree}
greetings
```
"""


@dataclass
class Built:
    """What a build left."""

    code: int
    told: str


class SiteBed:
    """A copy of what the site is made of, with a chapter `greetings` and evidence that proves all of it."""

    def __init__(self, folder: Path) -> None:
        """Lay it out in `folder`."""
        self.folder = folder
        shutil.copytree(ROOT / "lab", folder / "lab", ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("_ext", "_templates", "_static"):
            shutil.copytree(ROOT / "docs" / name, folder / "docs" / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "conf.py", folder)
        self.write("examples/CHAPTERS", "greetings\n")
        self.write("examples/greetings/__init__.py", "")
        self.write("examples/greetings/tasks.py", TASKS)
        self.write("examples/greetings/demo.py", DEMO)
        self.write("examples/greetings/test_greetings.py", TEST)
        self.write("docs/greetings.md", PAGE)
        self.write("docs/index.md", INDEX)
        self.prove()

    def write(self, name: str, text: str) -> None:
        """Write a file."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def prove(
        self,
        *,
        not_executed: tuple[int, ...] = (),
        outcome: str = "passed",
        ran: tuple[int, ...] = (10,),
        charts: dict[str, object] | None = None,
    ) -> None:
        """Write evidence for the files as they are: every line executed, but for `not_executed` of tasks.py.

        The claim is one that `ran` these lines of tasks.py, and the demos, and recorded these `charts`.
        """
        files = {}
        reader = coverage.Coverage(data_file=None, config_file=False)
        for path in sorted((self.folder / "examples" / "greetings").iterdir()):
            entry: dict[str, object] = {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
            if not path.name.startswith("test_"):
                statements = list(reader.analysis2(str(path))[1])
                left_out = not_executed if path.name == "tasks.py" else ()
                entry["statements"] = statements
                entry["executed"] = {"worker": [line for line in statements if line not in left_out]}
                entry["claims"] = {CLAIM: list(ran) if path.name == "tasks.py" else statements}
            files[f"examples/greetings/{path.name}"] = entry
        claim = {
            "test": CLAIM,
            "claim": "The task says hello.",
            "line": 1,
            "outcome": outcome,
            "seconds": 0.1,
            "waiting": 0.0,
            "runs": [],
            "charts": charts or {},
            "outputs": {},
        }
        names = ("allianceauth", "celery", "kombu", "django", "celery-once", "python")
        chapter = {
            "recorded": "2026-01-02T03:04:05+00:00",
            "versions": {**dict.fromkeys(names, "1.2.3"), "broker": "Valkey 9.1.2", "database": "SQLite 3"},
            "seconds": 0.1,
            "waiting": 0.0,
            "files": files,
            "claims": [claim],
        }
        self.write("build/evidence.json", json.dumps({"format": FORMAT, "chapters": {"greetings": chapter}}))

    def build(self, **env: str) -> Built:
        """Build the site as `nox -s docs` does."""
        done = subprocess.run(
            [sys.executable, "-m", "sphinx", "-W", "--keep-going", "--no-color", "-q", "-c", ".", "docs", "build/html"],
            cwd=self.folder,
            env={**os.environ, **env},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        return Built(done.returncode, done.stderr + done.stdout)

    def text(self, page: str = "greetings") -> str:
        """Return a built page."""
        return (self.folder / "build" / "html" / f"{page}.html").read_text()
