"""Waiting for what happens elsewhere."""

import time
from collections.abc import Callable
from typing import TypeVar

from lab.errors import TimedOut

T = TypeVar("T")
# So many times its deadline a wait may last while there is progress.
_LONGEST = 3


def wait_until(
    condition: Callable[[], T],
    timeout: float,
    what: str,
    *,
    progress: Callable[[], object] = lambda: None,
    pause: Callable[[], object] = lambda: time.sleep(0.01),
) -> T:
    """Wait until `condition()` is true and return its value; `TimedOut` with `what` after `timeout` seconds.

    They count from the last time that `progress()` returned something new: a busy machine gets on more slowly, but it
    gets on. Three times as many are the end in any case.
    """
    began = moved = time.monotonic()
    seen = progress()
    while not (value := condition()):
        before, seen = seen, progress()
        if seen != before:
            moved = time.monotonic()
        if time.monotonic() > min(moved + timeout, began + _LONGEST * timeout):
            raise TimedOut(f"{what} did not happen within {timeout:g} s")
        pause()
    return value
