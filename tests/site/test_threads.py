"""Each thread in which people asked has a section that answers it, and that page names the thread."""

import tomllib
from html.parser import HTMLParser
from typing import Any

import pytest

from lab.paths import BUILD, ROOT

ASKED = sorted((ROOT / "docs" / "asked").glob("*.toml"))


class _Page(HTMLParser):
    """Notes a page's anchors and where its links lead."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: set[str] = set()
        self.feed((BUILD / "html" / name).read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if given.get("id"):
            self.anchors.add(str(given["id"]))
        if tag == "a":
            self.links.add(given.get("href") or "")


@pytest.mark.parametrize("file", ASKED, ids=lambda file: file.stem)
def test_each_thread_is_answered_by_a_section_that_exists_and_named_on_the_page(file: Any) -> None:
    threads = tomllib.loads(file.read_text())["thread"]
    own = _Page(f"{file.stem}.html")
    numbers = [(thread["repository"], thread["number"]) for thread in threads]
    assert len(numbers) == len(set(numbers)), "a thread stands twice"
    for thread in threads:
        page, _, anchor = thread["section"].partition("#")
        assert anchor in _Page(page).anchors, f"{thread}: there is no such section"
        link = f"https://github.com/{thread['repository']}/issues/{thread['number']}"
        assert link in own.links, f"{file.stem}.html does not name {link}"
