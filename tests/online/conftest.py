"""What the tests of Run without a page share: an engine in Chromium, and the stand-ins on this machine's Python."""

import sys
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from lab.pages.browser.pack import tools
from tests.online.engine import Engine, started

# fakeredis is not of the environment that all share: it comes with what packs.
sys.path.append(str(tools()))


@pytest.fixture(scope="module")
def engine(browser: Browser) -> Iterator[Engine]:
    """One engine for a module's tests."""
    page = browser.new_page()
    with started(page) as found:
        yield found
    page.close()
