"""What the tests share: a bed for runs, Redis servers to point them at, a browser."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from playwright.sync_api import Browser, sync_playwright

from lab import broker
from lab.guard import Guard
from tests.bed import Bed
from tests.browser import launch


@pytest.fixture
def bed(tmp_path: Path) -> Bed:
    """A bed for runs; its temporary folder is empty."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    return Bed(folder)


@pytest.fixture
def lent(tmp_path: Path) -> Iterator[str]:
    """The URL of an empty database on a server that is somebody else's."""
    folder = tmp_path / "server"
    folder.mkdir()
    guard = Guard(folder)
    server = broker.start("embedded", guard)
    yield server.database(3)
    server.stop()
    guard.finish()


@pytest.fixture
def client(lent: str) -> Iterator[redis.Redis]:
    """A client on the lent database."""
    with redis.Redis.from_url(lent) as client:
        yield client


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Start a browser."""
    with sync_playwright() as playwright:
        yield launch(playwright)
