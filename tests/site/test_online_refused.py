"""Run on the built site: before it is pressed, where it can't be, and what is told where it fails."""

import json
import re
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from lab.pages.browser import pack
from lab.paths import BUILD
from tests.browser import another
from tests.online.host import HTML, policy, serve
from tests.online.tab import Stumbling, Tab
from tests.site.conftest import PAGES


def test_the_button_names_the_megabytes_and_no_page_breaks_the_policy(browser: Browser, strict: str) -> None:
    (folder,) = (HTML / "_static").glob("online-*")
    kept = sum(path.stat().st_size for path in folder.glob("*.bin"))
    context = browser.new_context()
    wrong: dict[str, list[str]] = {}
    # The page for what is not there asks at the published address, which this build may not know.
    for name in [name for name in PAGES if name != "404.html"]:
        tab = Tab(context, strict, name)
        wrong |= {name: tab.wrong} if tab.wrong or tab.loaded() else {}
        for button in tab.page.locator(".online-bar button").all():
            found = re.search(r"\((\d+) MB\)", button.inner_text())
            assert found
            assert 0 <= int(found[1]) * 1e6 - kept < 1e6
        tab.page.close()
    assert wrong == {}
    context.close()


def _refused(browser: Browser, base: str) -> tuple[Tab, Any]:
    tab = Tab(browser.new_context(), base)
    tab.offer().click()
    return tab, expect(tab.block().note)


def test_a_lost_network_and_a_blocked_worker_are_told_in_one_sentence_and_loading_can_be_cancelled(
    browser: Browser, strict: str
) -> None:
    with serve(policy(), by=Stumbling) as base:
        tab, told = _refused(browser, base)
        told.to_have_text("The network was lost while loading. Press Run to try again.")
        tab.page.context.close()
    with serve(policy().replace("worker-src 'self'", "worker-src 'none'")) as base:
        tab, told = _refused(browser, base)
        told.to_contain_text("lets no Web Worker start, so nothing can run here.")
        tab.page.context.close()
    tab, told = _refused(browser, strict)
    told.to_contain_text(re.compile(r"[\d.]+ of [\d.]+ MB"))
    stop = tab.block().figure.locator(".live-stop")
    expect(stop).to_have_text("Cancel")
    stop.click()
    told.to_have_text("Cancelled. Run loads it again.")
    expect(tab.block().figure.locator(".cell_output")).to_be_visible()
    tab.page.context.close()


@pytest.mark.parametrize("lacks", ["JSPI", "WebAssembly"])
def test_a_browser_that_can_not_switch_stacks_is_told(browser: Browser, strict: str, lacks: str) -> None:
    """No flag of today's Chromium turns JSPI off: it is taken away before the page begins."""
    lesser = another(browser.browser_type, *(["--js-flags=--jitless"] if lacks == "WebAssembly" else []))
    context = lesser.new_context()
    if lacks == "JSPI":
        context.add_init_script("delete WebAssembly.Suspending; delete WebAssembly.promising;")
    tab = Tab(context, strict)
    expect(tab.page.locator(".online-bar button")).to_have_count(0)
    told = tab.page.get_by_text("No Run on this page: your browser can't switch stacks in WebAssembly (JSPI).")
    expect(told).to_have_count(1)
    assert tab.wrong == []
    lesser.close()


def test_all_that_is_loaded_is_listed_with_licence_and_source(browser: Browser, strict: str) -> None:
    packed = json.loads((BUILD / "online" / "shipped.json").read_text())
    tab = Tab(browser.new_context(), strict, "shipped.html")
    rows = tab.page.locator("main table tbody tr")
    listed = rows.locator("th").all_inner_texts()
    assert {*packed, "Pyodide", "CPython", "CodeJar", "Prism"} == set(listed)
    versions = [cell.partition(": ")[2] for cell in rows.locator("td:nth-child(2)").all_text_contents()]
    assert dict(zip(listed, versions, strict=True))["Pyodide"] == pack._PYODIDE
    for link in tab.page.locator("main table a[href*='licences/']").all():
        answer = tab.page.request.get(str(link.evaluate("node => node.href")))
        assert answer.ok
        assert len(answer.text()) > 200, link.inner_text()
    tab.page.context.close()
