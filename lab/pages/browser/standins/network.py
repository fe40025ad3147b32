"""In place of a socket that listens: nobody can connect to a page, and Pyodide ends at the attempt."""

import errno
import socket
from typing import Any


def _refuse(*_: Any) -> None:
    raise OSError(errno.EOPNOTSUPP, "nothing can listen in a browser")


def install() -> None:
    """Let each attempt raise `OSError`, so that the call which makes it gets no Run."""
    socket.socket.listen = _refuse  # type: ignore[method-assign]
