"""A run's database on MariaDB: a schema for each lane, as `migrate` leaves it before each claim."""

import itertools
import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lab import tables
from lab.database import Database, migrate, put
from lab.errors import LabError
from lab.guard import Guard
from lab.mariadb import Server, connected
from lab.tables import Table

_numbers = itertools.count()


class Schemas:
    """A server that answers, with a schema for each lane."""

    alone = False

    def __init__(self, account: dict[str, Any]) -> None:
        """Use the server as `account` says, which is Django's settings; all but the schema's `NAME`."""
        self.account = account
        self._tables: dict[str, Table] = {}
        with connected(account) as connection:
            # Before 11.0 it says 5.5.5 first, for clients that know no number above 5.
            number = connection.get_server_info().removeprefix("5.5.5-").partition("-")[0]
        self.version = f"MariaDB {number}"

    def place(self, project: Path) -> Path:
        """Return a file with the address of the first lane's schema."""
        return self._address(project, 0)

    def lay_out(self, kept: Path) -> None:
        """Migrate where no earlier run has on this version; what that makes is kept in a file beside the project."""
        own = self._settings(0)
        migrated = kept.with_name(f"{kept.name}-{self.version.replace(' ', '-')}.json")
        if not migrated.exists():
            migrate()
            with connected(own) as connection, tempfile.TemporaryDirectory(dir=kept.parent) as scratch:
                found = {name: asdict(table) for name, table in tables.note(connection).items()}
                fresh = Path(scratch) / migrated.name
                fresh.write_text(json.dumps(found))
                put(fresh, migrated)
        self._tables = {name: Table(**table) for name, table in json.loads(migrated.read_text()).items()}
        self._lay_out(own)

    def move(self, folder: Path, seat: int) -> Path:
        """Return a file with the address of the lane's schema."""
        place = self._address(folder, seat)
        self._lay_out(self._settings(seat))
        return place

    def reset(self) -> None:
        """Put the untouched rows, and no other, into the tables."""
        from django.db import connection

        connection.close()
        self._lay_out(connection.settings_dict)

    def stop(self) -> None:
        """Nothing is ours."""

    def _settings(self, seat: int) -> dict[str, Any]:
        return {"NAME": f"lab_{seat}", **self.account}

    def _address(self, folder: Path, seat: int) -> Path:
        with connected(self.account) as connection, connection.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE IF NOT EXISTS `{self._settings(seat)['NAME']}`")
        file = folder / "mariadb.json"
        file.touch(mode=0o600)
        file.write_text(json.dumps(self._settings(seat)))
        return file

    def _lay_out(self, own: dict[str, Any]) -> None:
        with connected(own) as connection:
            tables.lay_out(connection, self._tables)


class Private(Schemas):
    """On a `server` of the run's own, or of one claim's."""

    def __init__(self, folder: Path, guard: Guard, *options: str) -> None:
        """Start it in a folder of its own in `folder`, with `options` of `mariadbd`."""
        # A short name, as a socket's path has to be short.
        self.server = Server(folder / f"db{next(_numbers)}", guard, *options)
        super().__init__(self.server.account)

    def take(self, other: Database) -> None:
        """Make what is to be laid out the same as on the run's server."""
        if not isinstance(other, Schemas):
            raise LabError("A claim with the marker mariadb runs with --database mariadb only.")
        self._tables = other._tables
        with connected(self.account) as connection, connection.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE `{self.settings['NAME']}`")
        self._lay_out(self.settings)

    @property
    def settings(self) -> dict[str, Any]:
        """Django's settings for the first lane's schema."""
        return self._settings(0)

    def stop(self) -> None:
        """End the server."""
        self.server.kill()
