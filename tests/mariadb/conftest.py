"""A server that the tests share."""

from collections.abc import Iterator

import pytest

from lab.guard import Guard
from lab.mariadb import Server


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Start a server."""
    folder = tmp_path_factory.mktemp("server")
    (folder / "guarded").mkdir()
    guard = Guard(folder / "guarded")
    server = Server(folder / "mariadb", guard)
    yield server
    server.kill()
    guard.finish()
