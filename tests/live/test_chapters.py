"""Every block of every chapter runs on the live page as it stands."""

import re

import pytest
from playwright.sync_api import Browser, expect

from lab.paths import chapters
from tests.live.reader import DONE, Block, Reader
from tests.live.server import Server

_END = re.compile("Done|The worker has it|Still waits")


@pytest.mark.parametrize("chapter", chapters())
def test_each_block_runs_as_it_stands_and_gives_the_recorded_output(
    browser: Browser, live: Server, chapter: str
) -> None:
    reader = Reader(browser, live, chapter)
    figures = reader.page.locator("figure.block:has(.live-run)")
    assert figures.count() > 1
    outputs = {}
    for number in range(figures.count()):
        block = Block(figures.nth(number))
        file = block.figure.get_attribute("data-file")
        recorded = block.figure.locator(".cell_output")
        # Asked before: it gives way to the reader's own.
        told = recorded.inner_text().strip() if recorded.count() else ""
        block.click("run")
        expect(block.note).to_contain_text(_END, timeout=DONE)
        if "Still waits" in block.note.inner_text():
            # A countdown of minutes, or a task that never tells its end: no call of a page has one.
            assert not told, f"{file} does not end"
            block.click("stop")
            expect(block.note).to_contain_text("Stopped", timeout=DONE)
        elif told:
            outputs[file] = (block.out.inner_text().strip(), told)
    assert reader.wrong == []
    assert {file: pair for file, pair in outputs.items() if pair[0] != pair[1]} == {}
    reader.context.close()
