"""What others build on: sections to link to, whole Markdown, and what a published site tells of its address."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lab.paths import ROOT, chapters
from tests.site.conftest import HTML
from tests.site_bed import SiteBed

ADDRESS = "https://docs.example.org/faq"


def test_another_project_links_to_pages_and_sections_with_intersphinx(tmp_path: Path) -> None:
    inventory = json.dumps(str(HTML / "objects.inv"))
    (tmp_path / "conf.py").write_text(
        "extensions = ['sphinx.ext.intersphinx', 'myst_parser']\n"
        f"intersphinx_mapping = {{'faq': ('{ADDRESS}/', {inventory})}}\nnitpicky = True\n"
    )
    (tmp_path / "index.md").write_text(
        "# Theirs\n\n{external+faq:doc}`chains` and "
        "{external+faq:ref}`chains:When a link fails` and [](inv:faq#chains)\n"
    )
    command = [sys.executable, "-m", "sphinx", "-W", "-q", str(tmp_path), str(tmp_path / "html")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "html" / "index.html").read_text()
    links = re.findall(rf'href="{ADDRESS}/([^"]+)"', page)
    assert "chains.html" in links
    (section,) = {link for link in links if "#" in link}
    assert f'id="{section.partition("#")[2]}"' in (HTML / "chains.html").read_text()


@pytest.mark.parametrize("chapter", chapters())
def test_a_pages_markdown_keeps_its_tables_its_lists_and_its_claims(chapter: str) -> None:
    source, text = (ROOT / "docs" / f"{chapter}.md").read_text(), (HTML / f"{chapter}.md").read_text()
    for start in ("|", "- ", ": "):
        count = sum(line.startswith(start) for line in source.splitlines())
        assert sum(line.startswith(start) for line in text.splitlines()) >= count, f"lines with {start!r} are gone"
    marks = set(re.findall(r"\[\^(\d+)\](?!:)", text))
    told = dict(re.findall(r"^\[\^(\d+)\]: (.+) \(\[test_", text, re.MULTILINE))
    assert marks == set(told) != set()
    assert "{" + "claim}" not in text


def test_the_verdicts_are_a_table_in_markdown_too() -> None:
    text = (HTML / "measured.md").read_text()
    assert text.count("\n| [") > 50
    assert "does not hold" in text


def test_a_published_page_names_its_address_its_card_and_where_to_mend_and_report_it(tmp_path: Path) -> None:
    site = SiteBed(tmp_path)
    built = site.build(SITE_URL=ADDRESS, REPOSITORY_URL="https://gitlab.com/somebody/faq.git")
    assert built.code == 0, built.told
    page = site.text()
    assert f'<link rel="canonical" href="{ADDRESS}/greetings.html">' in page
    assert f'content="{ADDRESS}/_static/card.png"' in page
    assert f"<loc>{ADDRESS}/greetings.html</loc>" in (tmp_path / "build" / "html" / "sitemap.xml").read_text()
    assert "https://gitlab.com/somebody/faq/-/edit/main/docs/greetings.md" in page
    (report,) = re.findall(r'"(https://gitlab.com/somebody/faq/-/issues/new[^"]+)"', page)
    assert "greetings" in report
    assert "Celery+1.2.3" in report


def test_nothing_is_published_without_an_address() -> None:
    """The session says it in one sentence, before anything is run; both hosts' files ask for it."""
    for name in (".readthedocs.yaml", ".gitlab-ci.yml"):
        assert "nox -s docs -- --published" in (ROOT / name).read_text()
    command = [sys.executable, "-m", "nox", "-s", "docs", "--", "--published"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env={"PATH": ""})
    assert done.returncode != 0
    assert "The site can't be published without its address: set SITE_URL to it." in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
