"""Run on the built site: what a reader does, in a headless Chromium, from a host as strict as one may be."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, expect

from tests.bed import slowness
from tests.live.reader import Block
from tests.online.tab import PATIENCE, Tab

# A task that loops lets nobody else have a turn: what it prints or logs is told after it.
_SAYS = 'import js\njs.console.log("round and round")\n'
_SECONDS = 6.0
WHAT = "your browser: Python 3.14, Redis in memory, simulated time."
pytestmark = pytest.mark.xdist_group("online")


@pytest.fixture(scope="module")
def first(browser: Browser, strict: str) -> Iterator[Tab]:
    """A tab in which Run was pressed once, with the keyboard alone."""
    context = browser.new_context()
    tab = Tab(context, strict)
    assert tab.loaded() == [], "something of it was loaded before Run was pressed"
    tab.offer().focus()
    tab.page.keyboard.press("Enter")
    block = tab.block()
    expect(block.figure.locator(".live-stop")).to_be_focused()
    expect(block.note).to_contain_text("Done", timeout=PATIENCE)
    expect(block.figure.locator(".live-run")).to_be_focused()
    yield tab
    assert tab.wrong == []
    assert [path for path in tab.asked if "://" in path and not path.startswith(("data:", "blob:"))] == []
    context.close()


def test_the_output_says_what_it_is_and_has_a_timeline_and_the_broker(first: Tab) -> None:
    block = first.block()
    assert "Updated corporation 98000006" in block.run()
    place = block.figure.locator(".live-place")
    expect(place).to_contain_text(f"In {WHAT} Where tasks race, this is one order; a server may take another.")
    assert "Ran on" not in block.figure.inner_text()
    expect(block.figure.locator(".live-timeline svg")).to_be_visible()
    expect(first.page.locator(".live-state")).to_contain_text("Ready")


def test_an_edited_block_is_the_readers_own_run_and_reset_restores(first: Tab) -> None:
    block = first.block()
    before = block.figure.locator(".live-editor").inner_text()
    block.edit("98000006", "98000042")
    assert "Updated corporation 98000042" in block.run()
    expect(block.figure.locator(".live-place")).to_contain_text(f"Your own run, in {WHAT}")
    block.click("reset")
    assert block.figure.locator(".live-editor").inner_text().strip() == before.strip()
    expect(block.out).to_be_hidden()
    expect(block.figure.locator(".live-place")).to_be_hidden()


def test_edited_tasks_are_what_the_worker_runs_next_here_alone(first: Tab, strict: str) -> None:
    """A second tab loads from the cache and knows nothing of it, and its end is nothing to the first."""
    task, block = first.block("chains/tasks.py", "sleep("), first.block()
    task.edit("Updated corporation", "Visited corporation")
    assert "Visited corporation 98000006" in block.run()
    expect(block.figure.locator(".live-place")).to_contain_text("Your own run")
    second = Tab(first.page.context, strict)
    expect(second.offer()).to_have_text("Run in your browser")
    assert "Updated corporation 98000006" in second.start().out.inner_text()
    assert [path for path in second.loaded() if path.endswith(".bin")] == []
    second.page.close()
    assert "Visited corporation 98000006" in block.run()
    task.click("reset")
    assert "Updated corporation 98000006" in block.run()


def test_a_mistake_is_told_with_its_last_line_and_the_next_run_works(first: Tab) -> None:
    block = first.block()
    block.edit("from chains", "1 / 0\nfrom chains")
    assert "ZeroDivisionError: division by zero" in block.run("Ended with an error")
    block.click("reset")
    assert "Updated corporation 98000006" in block.run()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_the_open_front_end_has_no_accessibility_violation_and_fits(first: Tab, width: int, scheme: Any) -> None:
    first.page.set_viewport_size({"width": width, "height": 800})
    first.page.emulate_media(color_scheme=scheme)
    wide = first.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert wide <= 0, f"{wide} px wider than the screen"
    found = Axe().run(first.page)
    assert found.violations_count == 0, found.generate_report()


def test_stop_ends_any_loop_in_six_seconds_the_next_run_works_and_a_full_cache_is_told(
    browser: Browser, strict: str
) -> None:
    """In a call, in a call into C, in a task."""
    context = browser.new_context()
    tab = Tab(context, strict)
    quota = {"origin": "/".join(strict.split("/")[:3]), "quotaSize": 2_000_000}
    context.new_cdp_session(tab.page).send("Storage.overrideQuotaForOrigin", quota)
    block = tab.start()
    expect(block.figure.locator(".live-place")).to_contain_text("Your browser's storage is full")
    task = tab.block("chains/tasks.py", "sleep(")
    for loop in ("while True:\n    pass\n", "sum(range(10**15))\n"):
        block.edit("from chains", f"{_SAYS}{loop}from chains")
        _stopped(tab, block)
    inside = f"{_SAYS}while True:\n    pass\nlogger.info".replace("\n", "\n    ")
    task.edit("logger.info", inside)
    _stopped(tab, block)
    task.click("reset")
    block.click("run")
    expect(block.note).to_contain_text("Done", timeout=PATIENCE)
    assert "Updated corporation 98000006" in block.out.inner_text()
    context.close()


def _stopped(tab: Tab, block: Block) -> None:
    with tab.page.expect_console_message(lambda told: "round and round" in told.text, timeout=PATIENCE):
        block.click("run")
    most = _SECONDS * slowness()
    began = time.monotonic()
    block.click("stop")
    while tab.page.workers and time.monotonic() - began < most:
        tab.page.wait_for_timeout(50)
    assert tab.page.workers == [], f"it still ran {most:.0f} s after Stop"
    expect(block.note).to_contain_text("Stopped.")
    block.click("reset")
