"""A stranger's way to a chapter: what CONTRIBUTING.md names, and what `nox -s new` writes and takes back."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lab.paths import ROOT
from lab.plugin import _MARKERS
from lab.rig import Rig as Fixture
from tests.bed import PATIENCE, Bed
from tests.site_bed import SiteBed

NEW = "lab.scaffold"
BUILD = ("-W", "--keep-going", "-q", "-c", ".", "docs", "build/html")


@pytest.fixture
def here(bed: Bed, tmp_path: Path) -> Bed:
    """A checkout of its own, with one chapter that is proven."""
    bed.root = SiteBed(tmp_path / "site").folder
    shutil.copy(ROOT / "pyproject.toml", bed.root)
    del bed.env["LAB_EVIDENCE"]
    return bed


def sources(here: Bed) -> dict[Path, bytes]:
    """Return every file that is no product of a run."""
    paths = (path for name in ("docs", "examples") for path in (here.root / name).rglob("*"))
    return {path: path.read_bytes() for path in paths if path.is_file() and path.suffix != ".pyc"}


def test_the_page_for_contributors_names_every_marker_and_all_that_the_fixture_offers() -> None:
    tables = (ROOT / "CONTRIBUTING.md").read_text().partition("### Markers\n")[2].partition("\n## ")[0]
    named = {name for row in re.findall(r"^\| (.*?) \| ", tables, re.M) for name in re.findall(r"`(\w+)", row)}
    markers = {re.split(r"\W", marker)[0] for marker in _MARKERS}
    assert named == markers | {name for name in vars(Fixture) if not name.startswith("_")}


def test_a_new_chapter_is_green_at_once_and_is_taken_back_to_the_last_byte(here: Bed) -> None:
    before, page = sources(here), here.root / "build" / "html" / "demo.html"
    tasks = here.root / "examples" / "demo" / "tasks.py"
    for module, words in {NEW: ["demo"], "lab": ["demo"], "lab.falsify": ["demo"], "sphinx": BUILD}.items():
        done = here.run(*words, module=module)
        assert done.code == 0, done.out + done.err
    assert "Hello Aiko Danuja" in page.read_text()
    tasks.write_text(f"{tasks.read_text()}#")
    assert ": examples/demo/tasks.py is not what nox" in here.run("--remove", "demo", module=NEW).sentence
    tasks.write_text(tasks.read_text()[:-1])
    assert [here.run("--remove", "demo", module=NEW).code, here.run(*BUILD, module="sphinx").code] == [0, 0]
    assert (sources(here), page.exists()) == (before, False)


def test_a_file_that_changes_while_it_is_tested_is_not_proven(here: Bed) -> None:
    assert here.run("demo", module=NEW).code == 0
    folder = here.root / "examples" / "demo"
    changes = f"""

def test_that_its_file_changes(rig):
    '''A file changes.'''
    with open({str(folder / "tasks.py")!r}, "a") as file:
        file.write("#")
"""
    (folder / "test_demo.py").write_text((folder / "test_demo.py").read_text() + changes)
    assert here.run("demo").code == 0
    again = here.run("demo", "--needed")
    assert "its file changes" in again.out, again.out + again.err


@pytest.mark.parametrize(
    ("stem", "why"),
    [
        ("celery", "module or app celery already"),
        ("notifications", "app allianceauth.notifications already"),
        ("settings", "settings already"),
        ("greetings", "examples/greetings already"),
        ("index", "docs/index.md already"),
        ("class", "'class' can't be a chapter's name"),
        ("Rate-limits", "'Rate-limits' can't be a chapter's name"),
    ],
)
def test_a_name_that_can_not_be_is_one_sentence_and_nothing_is_written(here: Bed, stem: str, why: str) -> None:
    before = sources(here)
    done = here.run(stem, module=NEW)
    assert (done.code, why in done.sentence, sources(here)) == (1, True, before), done.err


def test_on_windows_each_job_ends_with_one_sentence_that_names_wsl() -> None:
    # As nox does before it looks which job is asked for.
    command = ["-c", "import nox, runpy, sys; sys.platform = 'win32'; runpy.run_path('noxfile.py')"]
    done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode, done.stderr.count("\n"), "WSL" in done.stderr) == (1, 1, True), done.stderr
