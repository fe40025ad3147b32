"""What the lab's tests share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.lender import Lender


@pytest.fixture
def lender(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Lender]:
    """A server; indirect parameters are more lines of its redis.conf."""
    folder = tmp_path / "lender"
    folder.mkdir()
    lender = Lender(folder, **getattr(request, "param", {}))
    yield lender
    lender.end()
