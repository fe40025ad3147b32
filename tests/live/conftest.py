"""What the tests of the live server share: one server, a reader."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.live.reader import Reader
from tests.live.server import Server, start


@pytest.fixture(scope="session")
def live() -> Iterator[Server]:
    """Start one live server for all tests that don't end it."""
    server = start()
    yield server
    server.stop()


@pytest.fixture
def chains(browser: Browser, live: Server) -> Iterator[Reader]:
    """A reader of the page on chains."""
    reader = Reader(browser, live, "chains")
    yield reader
    assert reader.wrong == []
    reader.context.close()
