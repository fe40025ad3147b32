"""Measure the live server: `nox -s bench` prints how long a reader waits for the worker's line."""

import gzip
import statistics
import sys
import time

from playwright.sync_api import expect, sync_playwright

from tests.browser import launch
from tests.live.reader import Block, Reader
from tests.live.server import start
from tests.live.test_page import ADDED

_TIMES = 10
# From the click to the worker's line in the page, in the page's own clock: milliseconds.
_CLICK = """figure => new Promise(done => {
    const began = performance.now();
    const look = new MutationObserver(() => {
        if (!figure.querySelector(".live-output").textContent.includes("[worker]")) return;
        look.disconnect();
        done(performance.now() - began);
    });
    look.observe(figure, {childList: true, subtree: true, characterData: true});
    figure.querySelector(".live-run").click();
})"""


def _click(call: Block) -> float:
    took: float = call.figure.evaluate(_CLICK)
    expect(call.note).to_contain_text("Done")
    return took


def main() -> int:
    """Print the medians of ten first Runs, each of a new page, and of ten more on the last of these pages."""
    with sync_playwright() as playwright:
        browser = launch(playwright)
        began = time.monotonic()
        server = start()
        first, warm = [], []
        for number in range(_TIMES):
            reader = Reader(browser, server, "first_task")
            if not number:
                print(f"{'live: command to a block that can be run':<42}{time.monotonic() - began:6.1f} s", flush=True)
            call = reader.block("first_task/demo.py")
            first.append(_click(call))
            if number == _TIMES - 1:
                warm = [_click(call) for _ in range(_TIMES)]
            reader.context.close()
        server.stop()
    for name, times in (("first Run of a page", first), ("a warm Run", warm)):
        spread = f"({min(times):.0f} to {max(times):.0f})"
        print(f"{f'live: {name}, median of {_TIMES}':<42}{statistics.median(times):6.0f} ms {spread}")
    added = sum(len(gzip.compress(path.read_bytes())) for path in ADDED)
    print(f"{'live: weight added to a page, gzip':<42}{added / 1000:6.1f} KB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
