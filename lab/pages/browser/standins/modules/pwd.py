"""In place of `pwd`, which Pyodide leaves out as there are no users. python-crontab imports it."""

from typing import NoReturn


def getpwuid(uid: int) -> NoReturn:
    """Know nobody."""
    raise KeyError(f"getpwuid(): uid not found: {uid}")


def getpwnam(name: str) -> NoReturn:
    """Know nobody."""
    raise KeyError(f"getpwnam(): name not found: {name!r}")
