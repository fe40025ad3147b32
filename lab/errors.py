"""The lab's errors. The message of each is meant for the person at the keyboard."""

import os
import signal
import sys
import threading
from collections.abc import Callable
from functools import partial
from types import FrameType

# Set by Ctrl-C. What is raised while Python forks is lost, and printed; who waits for forks looks here too.
interrupted = threading.Event()


class _Here(threading.local):
    forks = False


_here = _Here()


class LabError(Exception):
    """One clear sentence: what is wrong, where, and the remedy."""


class TimedOut(LabError, TimeoutError):
    """Something did not happen in time; the message names it."""


class Unequal(LabError, AssertionError):
    """A claim's test found something else than the claim says; the message has what it found."""


def told(main: Callable[[list[str]], int]) -> int:
    """Run a command on the words of its command line and return its exit code.

    1 where a `LabError` ended it, 130, as shells have it, where Ctrl-C did.
    """
    begins, is_over = partial(setattr, _here, "forks", True), partial(setattr, _here, "forks", False)
    os.register_at_fork(before=begins, after_in_parent=is_over, after_in_child=is_over)
    signal.signal(signal.SIGINT, _interrupt)
    try:
        return main(sys.argv[1:])
    except LabError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Stopped by Ctrl-C.", file=sys.stderr)
        return 130


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    interrupted.set()
    if not _here.forks:
        raise KeyboardInterrupt
