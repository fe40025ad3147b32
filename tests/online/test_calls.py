"""Run in Chromium does what it did in reality."""

from collections.abc import Callable

import pytest

from tests.online.engine import Engine
from tests.online.proof import CHECKS

pytestmark = pytest.mark.xdist_group("engine")


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_engine_does_what_it_did_in_reality(engine: Engine, check: Callable[[Engine], str]) -> None:
    assert check(engine) == ""
