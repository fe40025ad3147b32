"""Run on the built site: which calls have it, and what they print."""

import html
import re
from collections.abc import Iterator

import pytest
from _ext import online
from playwright.sync_api import Browser, BrowserContext, expect

from tests.live.reader import Block
from tests.online.host import HTML
from tests.online.tab import PATIENCE, Tab
from tests.site.conftest import PAGES

pytestmark = pytest.mark.xdist_group("online")
# Pages with a call that is offered.
OFFERING = [name for name in PAGES if "data-version=" in (HTML / name).read_text()]


def test_each_call_that_a_page_shows_was_tried_in_a_browser_as_it_is_now() -> None:
    old = online.outdated()
    assert not old, f"docs/recorded/online.json does not hold for {', '.join(old)}: nox -s online writes it anew."


def test_a_call_that_was_not_proven_has_no_run_and_says_why() -> None:
    told = {}
    for name in PAGES:
        for figure in re.findall(r'<figure class="block.*?</figure>', (HTML / name).read_text(), re.S):
            file = re.search(r'data-file="examples/([^"]+)"', figure)
            if file and "everything" not in name and (why := re.search(r"No Run in your browser: (.*?)\.</p>", figure)):
                assert "data-online" not in figure
                told[file[1]] = html.unescape(why[1])
    assert told == {call: online.refusal(call) for call in online.calls() if online.refusal(call)}


@pytest.fixture(scope="module")
def context(browser: Browser) -> Iterator[BrowserContext]:
    """A reader who goes from page to page: what was loaded for one is there for the next."""
    context = browser.new_context()
    yield context
    context.close()


@pytest.mark.parametrize("name", OFFERING)
def test_each_call_of_a_page_in_order_prints_what_was_recorded(context: BrowserContext, strict: str, name: str) -> None:
    tab = Tab(context, strict, name)
    different = {}
    figures = tab.page.locator("figure[data-online=call]")
    for number in range(figures.count()):
        block = Block(figures.nth(number))
        recorded = block.figure.locator(".cell_output, .recorded pre").first
        told = (recorded.text_content() or "").strip() if recorded.count() else ""
        block.figure.locator(".live-run, .online-bar button").click()
        expect(block.note).to_contain_text(re.compile("Done|error|Not ended"), timeout=PATIENCE)
        if (printed := (block.out.text_content() or "").strip()) != told:
            different[block.figure.get_attribute("data-file")] = (printed, told)
    assert tab.wrong == []
    assert different == {}
    tab.page.close()
