"""What goes into the archive for the browser, by the files that a run used; and of whom it is, under which licence."""

from collections.abc import Iterable
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any

from lab.errors import LabError
from lab.paths import EXAMPLES, ROOT
from lab.project import kept

_HERE = "/faq"
# Whole, as what a reader writes decides which files of it are read: time zones.
_WHOLE = ("tzdata",)
# What `importlib.metadata` reads at run time.
_DATA = ("METADATA", "entry_points.txt")
_LICENCES = ("licen", "copying", "notice", "authors")
_SOURCES = ("source", "source code", "repository", "code", "github", "github: repo", "homepage", "home", "home page")


def collect(used: list[str], mounts: dict[str, Path]) -> tuple[dict[str, Any], dict[str, str]]:
    """Return what is shipped, by the names of distributions, and the archive's entries: path in it, mounted file."""
    entries = {file: f"/mounted/repo{file.removeprefix(_HERE)}" for file in used if file.startswith(f"{_HERE}/lab/")}
    shipped: dict[str, Any] = {}
    left = [file for file in used if file.startswith("/mounted/") and ".dist-info/" not in file]
    # In the order in which they are imported from: the first that has a file is whose it is.
    for place in ("/mounted/wasm", "/mounted/more", "/mounted/site"):
        mine = {file.removeprefix(f"{place}/"): file for file in left if file.startswith(f"{place}/")}
        for distribution in distributions(path=[str(mounts[place])]):
            files = {str(file) for file in distribution.files or []}
            owned = mine.keys() & files
            if not owned:
                continue
            if distribution.name in _WHOLE:
                mine |= {name: f"{place}/{name}" for name in files if name.startswith(f"{distribution.name}/zoneinfo/")}
                owned = mine.keys() & files
            folder = Path(str(distribution._path))  # type: ignore[attr-defined]
            entries |= {f"{_HERE}/site-packages/{name}": mine.pop(name) for name in owned}
            for name in _DATA:
                if (folder / name).exists():
                    entries[f"{_HERE}/site-packages/{folder.name}/{name}"] = f"{place}/{folder.name}/{name}"
            shipped[distribution.name] = _described(distribution, folder)
        if mine:
            raise LabError(f"{len(mine)} files are of no distribution, for example {min(mine)}: what is their licence?")
    entries |= _ours()
    return shipped, entries


def _ours() -> dict[str, str]:
    found = {}
    for path in EXAMPLES.rglob("*"):
        if path.is_file() and path.suffix not in (".pyc", ".toml") and not path.name.startswith(("test_", "conftest")):
            name = path.relative_to(ROOT)
            found[f"{_HERE}/{name}"] = f"/mounted/repo/{name}"
    for path in kept().rglob("*"):
        name = path.relative_to(kept())
        if path.is_file() and path.suffix != ".pyc" and name.parts[0] != "log":
            target = f"template/{name}" if path.suffix == ".sqlite3" else str(name)
            found[f"{_HERE}/myauth/{target}"] = f"/mounted/project/{name}"
    # Alliance Auth logs into it.
    return {**found, f"{_HERE}/myauth/log/.gitkeep": "/mounted/project/log/.gitkeep"}


def _described(distribution: Distribution, folder: Path) -> dict[str, Any]:
    texts = {
        str(file.relative_to(folder)): file.read_text(errors="replace")
        for file in sorted(folder.rglob("*"))
        if file.is_file() and any(word in file.name.lower() for word in _LICENCES)
    }
    links = [line.split(", ", 1) for line in distribution.metadata.get_all("Project-URL") or []]
    return {
        "version": distribution.version,
        "licence": _licence(distribution),
        "texts": texts,
        "source": _source({name.lower(): link for name, link in links}.items()) or distribution.metadata["Home-page"],
    }


def _licence(distribution: Distribution) -> str:
    data = distribution.metadata
    told = (data["License-Expression"] or data["License"] or "").strip().partition("\n")[0]
    named = [line.rpartition(":: ")[2] for line in data.get_all("Classifier") or [] if line.startswith("License ::")]
    return told if told and len(told) < 60 else "; ".join(named)


def _source(links: Iterable[tuple[str, str]]) -> str:
    known = dict(links)
    return next((known[name] for name in _SOURCES if name in known), next(iter(known.values()), ""))
