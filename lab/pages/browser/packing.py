"""Runs in Pyodide, in Node, at build time: `trace` says which files a run uses, `pack` compiles and packs them.

Libraries are compiled by the Python that will run them. The archive is the same for the same files.
"""

import importlib._bootstrap_external
import json
import os
import shutil
import sys
import zipfile
from pathlib import Path
from typing import Any

_ROOT = Path("/faq")
_SITE = "/faq/site-packages"
_LIBRARIES = [Path("/mounted/wasm"), Path("/mounted/more"), Path("/mounted/site")]
_WHEN = (1980, 1, 1, 0, 0, 0)
# Not for this platform; Celery does without.
_ABSENT = ("psutil", "greenlet")


def trace(calls: str) -> str:
    """Play these calls, and return as JSON the files that were used, as they are mounted."""
    opened: set[str] = set()

    def note(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[0], str):
            opened.add(os.path.normpath(arguments[0]))

    sys.addaudithook(note)
    for name in ("lab", "examples"):
        (_ROOT / name).parent.mkdir(exist_ok=True)
        shutil.copytree(f"/mounted/repo/{name}", _ROOT / name, ignore=shutil.ignore_patterns("__pycache__"))
    project = _ROOT / "myauth"
    shutil.copytree("/mounted/project", project)
    (project / "template").mkdir()
    (project / "lab.sqlite3").rename(project / "template" / "lab.sqlite3")
    sys.path[:0] = [str(_ROOT), *map(str, _LIBRARIES)]
    for name in _ABSENT:
        sys.modules[name] = None  # type: ignore[assignment]
    _play(json.loads(calls), project)
    opened.update(str(module.__file__) for module in list(sys.modules.values()) if getattr(module, "__file__", None))
    mounted = (*map(str, _LIBRARIES), f"{_ROOT}/lab")
    return json.dumps(sorted(file for file in opened if file.startswith(mounted) and "__pycache__" not in file))


def _play(calls: list[str], project: Path) -> None:
    """Play all calls, and define all tasks anew."""
    from lab.pages.browser.jspi import Jspi
    from lab.pages.browser.standins import collector, threads

    threads.install(Jspi())
    collector.install()
    from lab.pages.browser.engine import Engine

    engine = Engine(project, lambda *_: None)
    for call in calls:
        engine.run((_ROOT / "examples" / call).read_text())
    for tasks in sorted((_ROOT / "examples").glob("*/tasks.py")):
        engine.define(f"{tasks.parent.name}.tasks", tasks.read_text())


def pack(entries: str) -> str:
    """Write /project.zip of `entries`, JSON: for each path in it the file that it is; libraries' Python is compiled."""
    with zipfile.ZipFile("/project.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=9) as packed:
        for target, file in sorted(json.loads(entries).items()):
            data = Path(file).read_bytes()
            if target.endswith(".py") and target.startswith((_SITE, f"{_ROOT}/lab/")):
                code = compile(data, target, "exec", dont_inherit=True)
                # Not looked up in its source, which does not come with it.
                compiled = importlib._bootstrap_external._code_to_hash_pyc  # type: ignore[attr-defined]
                target, data = f"{target}c", bytes(compiled(code, b"\0" * 8, False))
            elif target.endswith("/METADATA"):
                # Without the description.
                data = data.partition(b"\n\n")[0]
            packed.writestr(zipfile.ZipInfo(target.lstrip("/"), _WHEN), data, zipfile.ZIP_DEFLATED)
    return "packed"


{"trace": trace, "pack": pack}  # noqa: B018 - what pack.mjs calls
