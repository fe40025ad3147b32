"""The search: it finds sections by what people type, loads when it is used, and needs neither a mouse nor eyes."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from tests.site.conftest import HTML

PHRASINGS = tomllib.loads((Path(__file__).parent / "phrasings.toml").read_text())["phrasing"]


@pytest.fixture
def page(site: str, browser: Browser) -> Iterator[Page]:
    """A page of the site, on a phone."""
    context = browser.new_context(viewport={"width": 360, "height": 740})
    page = context.new_page()
    page.goto(urljoin(site, "chains.html"), wait_until="networkidle")
    yield page
    context.close()


def _type(page: Page, text: str) -> list[str]:
    """Type into the field and return where the results lead, from the site's root."""
    page.get_by_role("searchbox").fill(text)
    expect(page.locator(".found [role=status]")).to_contain_text("found")
    links = page.locator(".found a").evaluate_all("links => links.map(link => link.href)")
    return [f"{urlsplit(link).path.lstrip('/')}#{urlsplit(link).fragment}" for link in links]


def _sections() -> dict[str, str]:
    """Return by each address of a section, of which it may have several, the one that the search gives."""
    found = {}
    for path in HTML.glob("*.html"):
        for first, more in re.findall(r'<section id="([^"]+)">\n((?:<span id="[^"]+"></span>)*)', path.read_text()):
            for anchor in [first, *re.findall(r'id="([^"]+)"', more)]:
                found[f"{path.name}#{anchor}"] = f"{path.name}#{first}"
    return found


def test_nothing_of_the_search_is_loaded_before_the_field_is_used(page: Page) -> None:
    asked: list[str] = []
    loaded = page.evaluate("performance.getEntriesByType('resource').map(entry => entry.name)")
    assert not [name for name in loaded if "search" in name or "sections" in name]
    page.on("request", lambda request: asked.append(request.url.rpartition("/")[2]))
    page.get_by_role("searchbox").focus()
    page.wait_for_function("window.searched")
    assert set(asked) == {"search.js", "minisearch.js", "base-stemmer.js", "english-stemmer.js", "sections.js"}


def test_for_36_of_40_phrasings_the_right_section_is_among_the_first_three_and_none_finds_nothing(page: Page) -> None:
    missed, anchors = {}, _sections()
    for phrasing in PHRASINGS:
        found = _type(page, phrasing["typed"])
        assert found, phrasing["typed"]
        if not set(found[:3]) & {anchors[section] for section in phrasing["sections"]}:
            missed[phrasing["typed"]] = found[:3]
    assert len(PHRASINGS) >= 40
    assert len(missed) <= len(PHRASINGS) // 10, missed


def test_a_word_is_found_by_what_stands_for_it_and_where_another_word_is_nowhere(page: Page) -> None:
    for text in ("duplicated", "hangs", "killed xyzzy", "distribute", "timezone", "AlreadyQueued"):
        assert _type(page, text), text


def test_what_is_nowhere_is_said_to_be(page: Page) -> None:
    page.get_by_role("searchbox").fill("xyzzyplugh")
    expect(page.locator(".found [role=status]")).to_have_text("Nothing was found for “xyzzyplugh”.")


def test_the_keyboard_is_enough_and_the_results_are_accessible(page: Page) -> None:
    page.keyboard.press("Control+k")
    page.keyboard.type("priority")
    expect(page.locator(".found a").first).to_be_visible()
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    page.keyboard.press("ArrowDown")
    expect(page.locator(".found a").first).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_role("searchbox")).to_be_focused()
    expect(page.locator(".found")).to_be_hidden()
    page.keyboard.press("Enter")
    page.wait_for_url("**/search.html?q=priority")
    expect(page.locator(".found a").first).to_be_visible()
    page.keyboard.press("ArrowDown")


def test_a_result_leads_to_its_section_with_what_was_looked_for_in_its_excerpt(page: Page) -> None:
    _type(page, "AlreadyQueued")
    first = page.locator(".found li").first
    expect(first).to_contain_text("AlreadyQueued")
    first.get_by_role("link").click()
    page.wait_for_url("**/*.html#*")
    assert page.evaluate("document.getElementById(decodeURIComponent(location.hash.slice(1))) !== null")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_the_search_works_where_the_pages_are_opened_as_files(browser: Browser) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.goto((HTML / "index.html").as_uri())
    assert _type(page, "visibility timeout")
    context.close()
