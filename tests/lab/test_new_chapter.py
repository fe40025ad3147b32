"""A stranger's way to a chapter: what CONTRIBUTING.md names, and what `nox -s new` writes and takes back."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lab.bench import Lab as Fixture
from lab.paths import ROOT
from lab.plugin import _MARKERS
from tests.bed import PATIENCE, Bed
from tests.site_bed import SiteBed

SCAFFOLD = "lab.scaffold"


@pytest.fixture
def site(tmp_path: Path) -> SiteBed:
    """A checkout of its own, with one chapter that is proven."""
    site = SiteBed(tmp_path / "site")
    shutil.copy(ROOT / "pyproject.toml", site.folder)
    return site


@pytest.fixture
def here(bed: Bed, site: SiteBed) -> Bed:
    """A bed for what is run in that checkout."""
    bed.root = site.folder
    del bed.env["LAB_EVIDENCE"]
    return bed


def sources(site: SiteBed) -> dict[Path, bytes]:
    """Return every file that is no product of a run."""
    paths = [path for name in ("docs", "examples") for path in (site.folder / name).rglob("*")]
    return {path: path.read_bytes() for path in paths if path.is_file() and "__pycache__" not in path.parts}


def named(heading: str) -> set[str]:
    """Return the names in the first column of the table of CONTRIBUTING.md that stands under `heading`."""
    text = (ROOT / "CONTRIBUTING.md").read_text().partition(f"### {heading}\n")[2].partition("\n#")[0]
    return {name for line in text.splitlines() for name in re.findall(r"`(\w+)", line.split(" | ")[0])}


def test_the_page_for_contributors_names_every_marker_and_all_that_the_fixture_offers() -> None:
    assert named("Markers") == {re.split(r"\W", marker)[0] for marker in _MARKERS}
    assert named("What `lab` offers") == {name for name in vars(Fixture) if not name.startswith("_")}


def test_a_new_chapter_is_green_at_once_and_is_taken_back_to_the_last_byte(here: Bed, site: SiteBed) -> None:
    before = sources(site)
    for module in (SCAFFOLD, "lab", "lab.falsify"):
        done = here.run("demo", module=module)
        assert done.code == 0, done.out + done.err
    built = site.build()
    assert built.code == 0, built.told
    assert "Hello Aiko Danuja" in site.text("demo")
    tasks = site.folder / "examples" / "demo" / "tasks.py"
    written = tasks.read_text()
    tasks.write_text(f"{written}# Mine.\n")
    refused = here.run("--remove", "demo", module=SCAFFOLD)
    assert refused.code == 1
    assert "examples/demo/tasks.py is not as nox -s new wrote it" in refused.sentence
    tasks.write_text(written)
    assert here.run("--remove", "demo", module=SCAFFOLD).code == 0
    assert sources(site) == before
    built = site.build()
    assert built.code == 0, built.told
    assert not (site.folder / "build" / "html" / "demo.html").exists()


@pytest.mark.parametrize(
    ("stem", "why"),
    [
        ("celery", "'celery' is a module"),
        ("notifications", "'allianceauth.notifications' is a module, an app"),
        ("settings", "'settings' is"),
        ("greetings", "examples/greetings is there already"),
        ("index", "docs/index.md is there already"),
        ("class", "'class' can't be a chapter's name"),
        ("Rate-limits", "'Rate-limits' can't be a chapter's name"),
    ],
)
def test_a_name_that_can_not_be_is_one_sentence_and_nothing_is_written(
    here: Bed, site: SiteBed, stem: str, why: str
) -> None:
    before = sources(site)
    done = here.run(stem, module=SCAFFOLD)
    assert done.code == 1
    assert why in done.sentence
    assert sources(site) == before


@pytest.mark.parametrize("what", ["run_path('noxfile.py')", "run_module('lab')", "run_module('lab.live')"])
def test_on_windows_a_command_ends_with_one_sentence_that_names_wsl(what: str) -> None:
    code = f"import nox, runpy, sys; sys.platform = 'win32'; runpy.{what}"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 1
    assert "WSL" in done.stderr
    assert len(done.stderr.splitlines()) == 1
