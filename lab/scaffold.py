"""`nox -s new -- <stem>`: write a chapter that is green at once, and say what to fill in; `--remove` takes it back.

What is taken back is exactly what was written. Where one character of it has changed since, it is somebody's work, and
nothing is removed.
"""

import importlib.util
import keyword
import re
import shutil
import sys
from pathlib import Path

from lab.paths import BUILD, EXAMPLES, ROOT, chapters

_TEMPLATE = Path(__file__).parent / "template"
_STEM, _FILL_IN = "STEM", "Fill in"
_ENTRY = f"[{_FILL_IN} the question of {_STEM}]({_STEM}.md)\n: {_FILL_IN} what the page tells, in a line.\n\n"
_CHAPTERS, _INDEX = EXAMPLES / "CHAPTERS", ROOT / "docs" / "index.md"
# What comes into which file, and where: behind all, above the toctree that has the last chapter, behind that chapter.
_LAST = "LAST"
_LISTS = (
    (_CHAPTERS, f"{_STEM}\n", r"\Z"),
    (_INDEX, _ENTRY, rf"(?m)^(?=```\{{toctree\}}\n(?:(?!```).*\n)*{_LAST}$)"),
    (_INDEX, f"{_STEM}\n", rf"(?m)(?<=^{_LAST}\n)"),
)
# Alliance Auth's project, what `nox -s mutants` calls its settings, the examples' conftest, pages that Sphinx makes.
_OURS = {"myauth", "settings", "conftest", "search", "genindex"}
# A module in one of them is found before the chapter, or is a Django app that has the same name.
_PACKAGES = ("", "allianceauth.", "django.contrib.")


def main(argv: list[str]) -> None:
    """Write the chapter that `argv` names, or take it back; exit with one sentence where that can't be."""
    match argv:
        case ["--remove", stem] | [stem, "--remove"]:
            _remove(stem)
        case [stem]:
            _write(stem)
        case _:
            sys.exit("Name one chapter: nox -s new -- rate_limits, or nox -s new -- --remove rate_limits.")


def _files(stem: str) -> dict[Path, str]:
    named = {path.relative_to(_TEMPLATE).with_suffix(""): path.read_text() for path in _TEMPLATE.rglob("*.txt")}
    return {ROOT / str(path).replace(_STEM, stem): text.replace(_STEM, stem) for path, text in sorted(named.items())}


def _write(stem: str) -> None:
    if not re.fullmatch("[a-z][a-z0-9_]*", stem) or keyword.iskeyword(stem):
        sys.exit(f"{stem!r} can't be a chapter's name: take lower-case letters, digits and underscores.")
    files = _files(stem)
    there = [
        *(str(path.relative_to(ROOT)) for path in (EXAMPLES / stem, *files) if path.exists()),
        *(name for package in _PACKAGES if (name := package + stem) in _OURS or importlib.util.find_spec(name)),
    ]
    if there:
        sys.exit(f"There is a file, page, module or app {there[0]} already: choose another name than {stem!r}.")
    last = chapters()[-1]
    for path, piece, place in _LISTS:
        files[path] = re.sub(
            place.replace(_LAST, last), piece.replace(_STEM, stem), files.get(path) or path.read_text(), count=1
        )
    for path, text in files.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    todo = [
        f"  {path.relative_to(ROOT)}:{number}: {line}"
        for path, text in files.items()
        for number, line in enumerate(text.splitlines(), 1)
        if _FILL_IN in line
    ]
    print(
        f"The chapter {stem!r} is written, as the last in examples/CHAPTERS. What is yours to fill in:",
        *todo,
        f"Next: nox -s examples -- {stem}, nox -s falsify -- {stem}, nox -s docs. CONTRIBUTING.md says the rest.",
        sep="\n",
    )


def _remove(stem: str) -> None:
    files, lists = _files(stem), {path: path.read_text() for path in (_CHAPTERS, _INDEX)}
    there = {path for path in (EXAMPLES / stem).rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    changed = [
        path
        for path in there | files.keys()
        if path not in files or not path.exists() or path.read_bytes() != files[path].encode()
    ]
    for path, piece, _ in _LISTS:
        lists[path], count = re.subn(f"(?m)^{re.escape(piece.replace(_STEM, stem))}", "", lists[path])
        changed += [path] if count != 1 else []
    if changed:
        sys.exit(
            f"Nothing was removed: {min(changed).relative_to(ROOT)} is not what nox -s new -- {stem} wrote. Use git, "
            "or delete the chapter's folder, its page, and its lines in examples/CHAPTERS and docs/index.md."
        )
    for path, text in lists.items():
        path.write_text(text)
    (ROOT / "docs" / f"{stem}.md").unlink()
    shutil.rmtree(EXAMPLES / stem)
    # Sphinx leaves a page in its output when the source is gone.
    shutil.rmtree(BUILD / "html", ignore_errors=True)
    print(f"The chapter {stem!r} is gone.")


if __name__ == "__main__":
    main(sys.argv[1:])
