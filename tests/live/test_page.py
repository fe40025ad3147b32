"""What a live page is like: for whom it works, what it weighs, and that a published page has no trace of it."""

import gzip

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, expect

from lab.paths import ROOT
from tests.live.reader import Reader
from tests.live.server import Server
from tests.site.conftest import HTML

ADDED = [path for path in sorted((ROOT / "docs" / "_live").iterdir()) if path.suffix in (".js", ".css")]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [(360, 740), (1280, 900)], ids=["phone", "desktop"])
def test_a_live_page_has_no_accessibility_violation_and_no_horizontal_scroll(
    browser: Browser, live: Server, size: tuple[int, int], scheme: str
) -> None:
    reader = Reader(browser, live, "chains", viewport={"width": size[0], "height": size[1]}, color_scheme=scheme)
    reader.block("chains/demo.py").run()
    wide = reader.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert wide <= 0, f"{wide} px wider than the screen"
    found = Axe().run(reader.page)
    assert found.violations_count == 0, found.generate_report()
    assert reader.wrong == []
    reader.context.close()


def test_a_block_is_run_and_left_with_the_keyboard_alone(chains: Reader) -> None:
    call = chains.block("chains/demo.py")
    editor = call.figure.locator(".live-editor")
    editor.focus()
    editor.press("Control+Enter")
    expect(call.note).to_contain_text("Done")
    # A screen reader is told what became of it.
    expect(call.note).to_have_attribute("role", "status")
    editor.focus()
    editor.press("Control+Home")
    editor.press("Tab")
    assert editor.inner_text().startswith("    from")
    call.click("reset")
    editor.focus()
    editor.press("Escape")
    editor.press("Tab")
    expect(call.figure.locator(".live-run")).to_be_focused()
    # What the first run left is gone: the next word is the second's.
    call.note.evaluate("note => { note.textContent = ''; }")
    chains.page.keyboard.press("Enter")
    expect(call.note).to_contain_text("Done")


def test_the_editor_indents_and_colours_what_is_typed(chains: Reader) -> None:
    editor = chains.block("chains/demo.py").figure.locator(".live-editor")
    editor.focus()
    editor.press("Control+End")
    chains.page.keyboard.type("\nfor number in range(3):\nprint(number)")
    assert editor.inner_text().endswith("for number in range(3):\n    print(number)")
    expect(editor.locator(".token.keyword", has_text="for")).to_be_visible()


def test_live_adds_at_most_200_kb_to_a_page() -> None:
    assert len(ADDED) > 3
    assert sum(len(gzip.compress(path.read_bytes())) for path in ADDED) <= 200_000


def test_a_published_page_has_no_trace_of_it() -> None:
    for path in HTML.rglob("*.html"):
        assert "live.js" not in path.read_text(), path.name
    assert [path.name for path in ADDED if (HTML / "_static" / path.name).exists()] == []
