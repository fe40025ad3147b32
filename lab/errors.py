"""The lab's errors. The message of each is meant for the person at the keyboard."""

import sys
from collections.abc import Callable


class LabError(Exception):
    """One clear sentence: what is wrong, where, and the remedy."""


class TimedOut(LabError, TimeoutError):
    """Something did not happen in time; the message names it."""


class Unequal(LabError, AssertionError):
    """A claim's test found something else than the claim says; the message has what it found."""


def told(main: Callable[[list[str]], int]) -> int:
    """Run a command on the words of its command line and return its exit code; 1 where a `LabError` ended it."""
    try:
        return main(sys.argv[1:])
    except LabError as error:
        print(error, file=sys.stderr)
        return 1
