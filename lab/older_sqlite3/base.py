"""The backend, under the name by which Django looks for it."""

from typing import Any

from django.db.backends.sqlite3 import base


class DatabaseWrapper(base.DatabaseWrapper):  # type: ignore[misc]
    """Begins each transaction as one that writes, and waits for no disk."""

    def get_new_connection(self, conn_params: Any) -> Any:
        """Connect."""
        connection = super().get_new_connection(conn_params)
        connection.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF;")
        return connection

    def _start_transaction_under_autocommit(self) -> None:
        self.cursor().execute("BEGIN IMMEDIATE")
