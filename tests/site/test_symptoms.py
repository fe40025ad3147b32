"""From the first page every symptom reaches its section in two clicks, and each of its causes leads on."""

import tomllib
from html.parser import HTMLParser
from pathlib import Path

from lab.paths import BUILD, ROOT

HTML = BUILD / "html"
PAGE = "something_is_wrong.html"
# The section that is no symptom.
FIRST = "look-first"
_NOTES = ("details", "small")


class _Sections(HTMLParser):
    """Notes the anchors of a page, the links of each section, and those of each of its causes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: dict[str, list[str]] = {}
        self.causes: dict[str, list[list[str]]] = {}
        self._sections: list[str] = []
        self._inside = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if given.get("id"):
            self.anchors.add(given["id"])
        if tag == "section":
            self._sections.append(given.get("id", ""))
        if not self._sections:
            return
        section = self._sections[-1]
        # What stands in a note is no cause.
        self._inside += tag in _NOTES
        if tag in ("li", "dd") and not self._inside:
            self.causes.setdefault(section, []).append([])
        if tag == "a" and given.get("href") and not self._inside and "headerlink" not in given.get("class", ""):
            self.links.setdefault(section, []).append(given["href"])
            if self.causes.get(section):
                self.causes[section][-1].append(given["href"])

    def handle_endtag(self, tag: str) -> None:
        if tag == "section":
            self._sections.pop()
        self._inside -= bool(self._sections) and tag in _NOTES


def _sections(page: str) -> _Sections:
    return _Sections((HTML / page).read_text())


def _lands(link: str) -> bool:
    page, _, anchor = link.partition("#")
    return bool(anchor) and anchor in _sections(page or PAGE).anchors


def test_every_symptom_reaches_its_section_in_two_clicks_from_the_first_page() -> None:
    first, symptoms = _sections("index.html"), _sections(PAGE)
    wanted = set(symptoms.causes) - {FIRST, "something-is-wrong"}
    assert len(wanted) > 12
    clicks = {link for links in first.links.values() for link in links}
    assert {f"{PAGE}#{symptom}" for symptom in wanted} <= clicks
    assert PAGE in clicks
    for symptom in wanted:
        for cause in symptoms.causes[symptom]:
            leads = [link for link in cause if "#" in link and not link.startswith(("#claim", "proof/"))]
            assert leads, f"{symptom}: a cause leads nowhere"
            assert [link for link in leads if not _lands(link)] == [], symptom


def test_the_first_link_of_the_first_page_is_for_who_is_in_trouble() -> None:
    links = [link for links in _sections("index.html").links.values() for link in links]
    assert links[0] == PAGE


def test_a_lock_that_a_crash_left_behind_ends_in_a_command_to_copy() -> None:
    for page in (PAGE, "queue_once.html"):
        assert 'data-file="examples/queue_once/demo_free.py"' in (HTML / page).read_text(), page


def test_every_section_that_answers_a_phrasing_is_there() -> None:
    told = tomllib.loads(Path(ROOT / "tests" / "site" / "phrasings.toml").read_text())["phrasing"]
    assert len(told) >= 40
    assert [link for phrasing in told for link in phrasing["sections"] if not _lands(link)] == []
