"""Every block of every chapter runs on the live page as it stands."""

import re
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from lab.paths import chapters
from tests.live.reader import Block, Reader
from tests.live.server import Server

_ENDED = re.compile("Done|The worker has it")
# Among what the build does not execute is a chain of a thousand links: twelve seconds of work for two idle cores.
_LONG = 300_000
_ENDED_OR_WAITS = re.compile("Done|The worker has it|Still waits")
# Which of its two tasks comes to the lock first, each run settles anew.
_RACE = "examples/locks/demo_across.py"


def _told(file: str | None, output: str) -> list[Any]:
    """Return the lines of an output; of tasks that race for a lock, each one's two lines, whoever comes first."""
    lines = output.strip().splitlines()
    return sorted(zip(lines[::2], lines[1::2], strict=True)) if file == _RACE else lines


@pytest.mark.parametrize("chapter", chapters())
def test_each_block_runs_as_it_stands_and_gives_the_recorded_output(
    browser: Browser, live: Server, chapter: str
) -> None:
    reader = Reader(browser, live, chapter)
    # A reader opens what is folded: whole files.
    reader.page.evaluate("for (const folded of document.querySelectorAll('main details')) folded.open = true")
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
        if told:
            expect(block.note).to_contain_text(_ENDED)
            outputs[file] = (_told(file, block.out.inner_text()), _told(file, told))
            continue
        # Some that the build does not execute have a countdown of minutes, or a task that never tells its end.
        expect(block.note).to_contain_text(_ENDED_OR_WAITS, timeout=_LONG)
        if "Still waits" in block.note.inner_text():
            block.click("stop")
            expect(block.note).to_contain_text("Stopped")
    assert reader.wrong == []
    assert {file: pair for file, pair in outputs.items() if pair[0] != pair[1]} == {}
    reader.context.close()
