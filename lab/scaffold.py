"""`nox -s new -- <stem>`: write a chapter that is green at once, and say what to fill in; `--remove` takes it back.

What is taken back is exactly what was written. Where one character of it has changed since, it is somebody's work, and
nothing is removed.
"""

import argparse
import importlib.util
import keyword
import re
import shutil
import sys
from pathlib import Path

from lab.errors import LabError
from lab.paths import BUILD, EXAMPLES, ROOT, chapters

_TEMPLATE = Path(__file__).parent / "template"
_STEM = "STEM"
_FILL_IN = "Fill in"
_CHAPTERS = EXAMPLES / "CHAPTERS"
_INDEX = ROOT / "docs" / "index.md"
_ENTRY = f"\n[{_FILL_IN} the question of {_STEM}]({_STEM}.md)\n: {_FILL_IN} what the page tells, in a line.\n"
_TOCTREE, _END = "\n```{toctree}\n", "\n```\n"
# Alliance Auth's project, what `nox -s mutants` calls its settings, the examples' conftest, pages that Sphinx makes.
_OURS = {"myauth", "settings", "conftest", "search", "genindex"}
# Whose modules have the names of Django apps, or are found before the chapter's.
_PACKAGES = ("", "allianceauth.", "django.contrib.")


def main(argv: list[str]) -> int:
    """Write the chapter that `argv` names, or take it back; 1 and one sentence where that can't be."""
    parser = argparse.ArgumentParser(prog="nox -s new --", description=__doc__)
    parser.add_argument("stem", nargs="?", default="", help="the chapter's name, such as rate_limits")
    parser.add_argument("--remove", action="store_true", help="take back what was written, if it is unchanged")
    known = parser.parse_args(argv)
    try:
        print(_remove(known.stem) if known.remove else _write(known.stem))
    except LabError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _files(stem: str) -> dict[Path, str]:
    """Return the chapter's files and their texts."""
    paths = {path: path.relative_to(_TEMPLATE).as_posix() for path in sorted(_TEMPLATE.rglob("*.txt"))}
    named = {path: name.removesuffix(".txt").replace(_STEM, stem) for path, name in paths.items()}
    return {ROOT / name: path.read_text().replace(_STEM, stem) for path, name in named.items()}


def _write(stem: str) -> str:
    files = _files(stem)
    problem = _problem(stem, files)
    if problem:
        raise LabError(problem)
    before, toctree, after = _INDEX.read_text().partition(_TOCTREE)
    listed, end, rest = after.partition(_END)
    entry = _ENTRY.replace(_STEM, stem)
    files[_INDEX] = f"{before}{entry}{toctree}{listed}\n{stem}{end}{rest}"
    files[_CHAPTERS] = f"{_CHAPTERS.read_text()}{stem}\n"
    for path, text in files.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    todo = [
        f"  {path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path, text in files.items()
        for number, line in enumerate(text.splitlines(), 1)
        if _FILL_IN in line
    ]
    return "\n".join(
        [
            f"The chapter {stem!r} is written, and the last in examples/CHAPTERS. What is yours to fill in:",
            *todo,
            f"Next: nox -s examples -- {stem}, nox -s falsify -- {stem}, nox -s docs. CONTRIBUTING.md says the rest.",
        ]
    )


def _problem(stem: str, files: dict[Path, str]) -> str:
    """Return why `stem` can't be a chapter's name; empty if it can."""
    if not re.fullmatch("[a-z][a-z0-9_]*", stem) or keyword.iskeyword(stem):
        return f"{stem!r} can't be a chapter's name: take lower-case letters, digits and underscores."
    there = [path for path in (EXAMPLES / stem, *files) if path.exists()]
    if there:
        return f"{there[0].relative_to(ROOT)} is there already: choose another name than {stem!r}."
    modules = [f"{package}{stem}" for package in _PACKAGES]
    taken = [name for name in modules if name in _OURS or importlib.util.find_spec(name)]
    return f"{taken[0]!r} is a module, an app or a page already: choose another name than {stem!r}." if taken else ""


def _remove(stem: str) -> str:
    if stem not in chapters():
        raise LabError(f"There is no chapter {stem!r}. The chapters are: {', '.join(chapters())}.")
    files = _files(stem)
    there = [path for path in (EXAMPLES / stem).rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    changed = [path for path in there if path not in files]
    changed += [path for path, text in files.items() if not path.exists() or path.read_bytes() != text.encode()]
    lists = {path: path.read_text() for path in (_CHAPTERS, _INDEX)}
    line = f"\n{stem}\n"
    for path, written, stays in ((_CHAPTERS, line, "\n"), (_INDEX, line, "\n"), (_INDEX, _ENTRY, "")):
        piece = written.replace(_STEM, stem)
        changed += [path] if lists[path].count(piece) != 1 else []
        lists[path] = lists[path].replace(piece, stays)
    if changed:
        raise LabError(
            f"Nothing was removed, as {min(changed).relative_to(ROOT)} is not as nox -s new wrote it: use git, or "
            "delete the chapter's folder, its page, and its lines in examples/CHAPTERS and docs/index.md."
        )
    for path, text in lists.items():
        path.write_text(text)
    (ROOT / "docs" / f"{stem}.md").unlink()
    shutil.rmtree(EXAMPLES / stem)
    # Sphinx leaves the page of a source that is gone where it was built.
    shutil.rmtree(BUILD / "html", ignore_errors=True)
    return f"The chapter {stem!r} is gone."


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
