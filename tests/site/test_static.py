"""The built site as files: what can be told without a browser. `nox -s site` runs it."""

import filecmp
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

from lab import evidence
from lab.paths import BUILD, ROOT, chapters

HTML = BUILD / "html"
# The anchors of the original, one-page FAQ.
OLD = re.findall(
    r"\S+",
    """
    celery-faq when-should-i-use-celery-in-my-app duration recurrence what-is-a-celery-task
    how-should-i-use-celery-in-my-app how-should-i-use-celery-tasks-in-the-ui can-i-use-long-running-tasks
    how-can-i-define-periodic-tasks-for-my-app how-can-i-use-priorities-for-tasks
    rate-limiting-and-smoothing-of-task-execution offset-crontabs subset-tasks celery-eta-countdown
    celery-etacountdown celery-rate-limits what-special-features-should-i-be-aware-of celery-once task-priorities
    """,
)


class _Page(HTMLParser):
    """Counts code and what it stands in; notes anchors and links."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.blocks: list[str] = []
        self.evidence = 0
        self.bare = 0
        self._inside = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        classes = given.get("class", "").split()
        if given.get("id"):
            self.anchors.add(given["id"])
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
        if tag == "figure" and "block" in classes:
            self.blocks.append(given["id"])
            self._inside += 1
        if tag == "details" and "evidence" in classes:
            self.evidence += bool(self._inside)
        if tag == "pre" and not self._inside:
            self.bare += 1

    def handle_endtag(self, tag: str) -> None:
        if tag == "figure" and self._inside:
            self._inside -= 1


def _page(name: str) -> _Page:
    return _Page((HTML / name).read_text())


def test_each_block_in_the_html_is_listed_with_its_evidence_and_no_code_is_without() -> None:
    listed = {(block["page"], block["anchor"]) for block in json.loads((HTML / "evidence.json").read_text())["blocks"]}
    found = set()
    for path in HTML.rglob("*.html"):
        page = _page(path.relative_to(HTML).as_posix())
        if path.parent.name == "proof":
            # The source of a chapter's tests, which is no example.
            continue
        assert page.bare == 0, f"{path.name}: {page.bare} pieces of code belong to no block"
        assert page.evidence == len(page.blocks), f"{path.name}: a block is without evidence"
        found |= {(path.stem, anchor) for anchor in page.blocks}
    assert found == listed
    assert len(found) > len(chapters())


def test_what_the_list_says_of_a_block_is_true() -> None:
    recorded = evidence.load()["chapters"]
    for block in json.loads((HTML / "evidence.json").read_text())["blocks"]:
        path = ROOT / block["file"]
        assert block["sha256"] == evidence.sha256(path), f"{block['file']} has changed since"
        assert 1 <= min(block["lines"]) <= max(block["lines"]) <= len(path.read_text().splitlines())
        chapter = block["file"].split("/")[1]
        tests = {f"{chapter}/{claim['test']}" for claim in recorded[chapter]["claims"]}
        assert set() < set(block["claims"]) < tests, f"{block['file']} is run by none or by all of its chapter's claims"
        assert {"allianceauth", "celery", "broker"} <= block["versions"].keys()


def test_every_old_anchor_is_there_and_leads_to_the_heading_it_had() -> None:
    old = _page("celery-faq.html")
    assert set(OLD) <= old.anchors
    items = re.findall(
        r"<li><p>((?:<span id=\"[^\"]+\"></span>)*)<a [^>]*href=\"([^\"]+)\"", (HTML / "celery-faq.html").read_text()
    )
    leads = {anchor: link for marks, link in items for anchor in re.findall(r'id="([^"]+)"', marks)}
    for anchor in OLD[1:]:
        page, _, place = leads[anchor].partition("#")
        assert place in _page(page).anchors, f"{anchor} leads to {leads[anchor]}, which is not there"


def test_every_page_is_there_for_those_who_read_with_a_machine() -> None:
    told = (HTML / "llms.txt").read_text()
    for chapter in chapters():
        text = (HTML / f"{chapter}.md").read_text()
        assert f"{chapter}.md" in told
        assert "```python" in text
        assert "{block}" not in text
        assert "{claim}" not in text


def test_each_page_has_a_description_and_asks_no_other_host_for_anything() -> None:
    for path in HTML.rglob("*.html"):
        text = path.read_text()
        asked = re.findall(r"<(?:script|img|iframe|link)\b[^>]*?(?:src|href)=\"((?:https?:)?//[^\"]+)\"", text)
        canonical = re.findall(r'<link rel="canonical" href="([^"]+)"', text)
        assert set(asked) <= set(canonical), f"{path.name} asks {asked}"
        if path.parent.name != "proof" and path.stem != "search":
            assert '<meta name="description"' in text, path.name


def test_two_builds_from_the_same_evidence_differ_in_no_byte_of_text(tmp_path: Path) -> None:
    again = tmp_path / "html"
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "sphinx",
            "-W",
            "-q",
            "-j",
            "auto",
            "-c",
            ".",
            "-d",
            tmp_path / "doctrees",
            "docs",
            again,
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    names = sorted(path.relative_to(HTML) for path in HTML.rglob("*") if _is_text(path))
    assert names == sorted(path.relative_to(again) for path in again.rglob("*") if _is_text(path))
    _, differ, missing = filecmp.cmpfiles(HTML, again, [str(name) for name in names], shallow=False)
    assert (differ, missing) == ([], [])


def _is_text(path: Path) -> bool:
    # .buildinfo and what Sphinx keeps for itself are not part of the site.
    return path.suffix in {".html", ".md", ".txt", ".json", ".js", ".css", ".svg", ".xml"}
