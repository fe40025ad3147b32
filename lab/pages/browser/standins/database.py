"""In place of SQLite's own wait for a lock, which stops the whole process: who finds the database locked gives way."""

import sqlite3
import time
from collections.abc import Callable
from functools import cache, wraps
from pathlib import Path
from typing import Any

# As the lab's settings have it.
_PATIENCE = 20.0
_AGAIN = 0.005


def _patient(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def tried(*args: Any, **kwargs: Any) -> Any:
        until = time.monotonic() + _PATIENCE
        while True:
            try:
                return function(*args, **kwargs)
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > until:
                    raise
            time.sleep(_AGAIN)

    return tried


@cache
def _cursor(factory: type[sqlite3.Cursor]) -> type[sqlite3.Cursor]:
    """Return a class of cursors that waits, on Django's or on SQLite's own."""

    class Cursor(factory):  # type: ignore[misc, valid-type]
        execute = _patient(factory.execute)
        executemany = _patient(factory.executemany)

    return Cursor


class Connection(sqlite3.Connection):
    """A connection whose statements wait by giving way; Django takes it by the option `factory`."""

    commit = _patient(sqlite3.Connection.commit)

    def cursor(self, factory: type[sqlite3.Cursor] = sqlite3.Cursor) -> Any:  # type: ignore[override]
        """Return a cursor that waits."""
        return super().cursor(_cursor(factory))


class Keeper:
    """Keeps a database open: what SQLite maps into memory for the first connection is not given back in Pyodide."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path)
        self._connection.execute("SELECT count(*) FROM sqlite_master").fetchone()

    def tidy(self) -> None:
        """Empty the write-ahead log, as the last connection does when it closes."""
        self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
