"""Runs in Pyodide, in Node, at build time: plays the pages' calls, notes the files that were used, and packs them.

Libraries are compiled by the Python that will run them. The archive is the same for the same files.
"""

import contextlib
import importlib._bootstrap_external
import importlib.metadata
import json
import os
import shutil
import sys
import zipfile
from pathlib import Path
from typing import Any

_ROOT = Path("/faq")
_SITE = _ROOT / "site-packages"
# What is mounted, and where it will stand; `root` is the checkout.
_LIBRARIES = [Path("/mounted/wasm"), Path("/mounted/more"), Path("/mounted/site")]
_WHEN = (1980, 1, 1, 0, 0, 0)
# Not for this platform; Celery does without.
_ABSENT = ("psutil", "greenlet")
# Read by nobody at run time.
_DATA = ("METADATA", "entry_points.txt")
_LICENCES = ("licen", "copying", "notice", "authors")


def main(calls: str) -> str:
    """Trace these calls and pack; return as JSON what is shipped: of each distribution version, licence and source."""
    opened: set[str] = set()

    def note(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[0], str):
            opened.add(arguments[0])

    sys.addaudithook(note)
    _lay_out()
    _play(json.loads(calls))
    opened.update(module.__file__ for module in list(sys.modules.values()) if getattr(module, "__file__", None))
    used = {Path(file) for file in opened if "__pycache__" not in file}
    libraries = {file for file in used if any(file.is_relative_to(library) for library in _LIBRARIES)}
    libraries = {file for file in libraries if file.is_file() and ".dist-info" not in str(file)}
    shipped = _distributions(libraries)
    entries: dict[str, bytes] = {}
    for file in libraries:
        _compile(entries, _SITE / _within(file), file)
    for distribution in shipped.values():
        for file in distribution.pop("data"):
            entries[str(_SITE / _within(file))] = file.read_text().partition("\n\n")[0].encode()
    for file in sorted((_ROOT / "lab").rglob("*.py")):
        if file in used:
            _compile(entries, file, file)
    for folder in ("examples", "myauth"):
        for file in sorted((_ROOT / folder).rglob("*")):
            if file.is_file() and "__pycache__" not in file.parts and not file.name.startswith("test_"):
                entries[str(file)] = file.read_bytes()
    for name in [name for name in entries if name.startswith(str(_ROOT / "myauth/log"))]:
        del entries[name]
    _write(Path("/project.zip"), entries)
    return json.dumps(shipped, sort_keys=True)


def _lay_out() -> None:
    """Copy what is ours, as a run would write beside it."""
    root = Path("/mounted/root")
    ignore = shutil.ignore_patterns("__pycache__", "*.jsonl")
    for name in ("lab", "examples"):
        shutil.copytree(root / name, _ROOT / name, ignore=ignore)
    shutil.copytree("/mounted/project", _ROOT / "myauth", ignore=ignore)
    database = _ROOT / "myauth" / "lab.sqlite3"
    (_ROOT / "myauth" / "template").mkdir()
    database.rename(_ROOT / "myauth" / "template" / database.name)
    sys.path[:0] = [str(_ROOT), *map(str, _LIBRARIES)]
    for name in _ABSENT:
        sys.modules[name] = None  # type: ignore[assignment]


def _play(calls: list[str]) -> None:
    """Play all calls, and define all tasks anew."""
    from lab.pages.browser.jspi import Jspi
    from lab.pages.browser.standins import threads

    threads.install(Jspi())
    from lab.pages.browser.engine import Engine

    # Beside what is packed: a run writes into it.
    project = Path("/run/myauth")
    shutil.copytree(_ROOT / "myauth", project)
    engine = Engine(project, lambda *_: None)
    for call in calls:
        if spent := engine.run((_ROOT / "examples" / call).read_text())["spent"]:
            raise RuntimeError(f"{call}: {spent}")
    for tasks in sorted((_ROOT / "examples").glob("*/tasks.py")):
        engine.define(f"{tasks.parent.name}.tasks", tasks.read_text())


def _within(file: Path) -> Path:
    return next(file.relative_to(library) for library in _LIBRARIES if file.is_relative_to(library))


def _distributions(files: set[Path]) -> dict[str, dict[str, Any]]:
    """Return the distributions that these files are of; each keeps the data that `importlib.metadata` reads."""
    found: dict[str, dict[str, Any]] = {}
    mine = {str(_within(file)) for file in files}
    for distribution in importlib.metadata.distributions(path=list(map(str, _LIBRARIES))):
        listed = [str(file) for file in distribution.files or []]
        if not mine.intersection(listed):
            continue
        mine.difference_update(listed)
        folder = Path(str(distribution._path))  # type: ignore[attr-defined]
        texts = [file for file in sorted(folder.rglob("*")) if file.is_file()]
        found[distribution.name] = {
            "version": distribution.version,
            "licence": _licence(distribution.metadata),
            "texts": {
                str(file.relative_to(folder)): file.read_text(errors="replace")
                for file in texts
                if any(word in file.name.lower() for word in _LICENCES)
            },
            "source": _source(distribution.metadata),
            "data": [folder / name for name in _DATA if (folder / name).exists()],
        }
    if mine:
        raise RuntimeError(f"{len(mine)} files are of no distribution, for example {min(mine)}")
    return found


def _licence(metadata: Any) -> str:
    told = metadata.get("License-Expression") or metadata.get("License") or ""
    classifiers = [line.rpartition(":: ")[2] for line in metadata.get_all("Classifier") or [] if "License ::" in line]
    first = told.strip().partition("\n")[0]
    return first if first and len(first) < 60 else "; ".join(classifiers)


def _source(metadata: Any) -> str:
    links = dict(line.split(", ", 1) for line in metadata.get_all("Project-URL") or [] if ", " in line)
    links = {name.lower(): link for name, link in links.items()}
    for name in ("source", "source code", "repository", "code", "github", "homepage", "home", "home page"):
        if name in links:
            return links[name]
    return metadata.get("Home-page") or next(iter(links.values()), "")


def _compile(entries: dict[str, bytes], target: Path, file: Path) -> None:
    """Add a file; Python as code that is not looked up in its source, which does not come with it."""
    data = file.read_bytes()
    if file.suffix == ".py":
        code = compile(data, str(target), "exec", dont_inherit=True)
        target, data = (
            target.with_suffix(".pyc"),
            bytes(
                importlib._bootstrap_external._code_to_hash_pyc(code, b"\0" * 8, False)  # type: ignore[attr-defined]
            ),
        )
    entries[str(target)] = data


def _write(archive: Path, entries: dict[str, bytes]) -> None:
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as packed:
        for name in sorted(entries):
            packed.writestr(zipfile.ZipInfo(name.lstrip("/"), _WHEN), entries[name], zipfile.ZIP_DEFLATED)


with contextlib.suppress(FileNotFoundError):
    os.makedirs("/run")
main  # noqa: B018 - what pack.mjs calls
