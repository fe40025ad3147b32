"""The database of a run: one for each lane, and as `migrate` leaves it before each claim. SQLite's stands here."""

import json
import os
import shutil
import sqlite3
import tempfile
from pathlib import Path
from typing import Any, Protocol

from lab.errors import LabError
from lab.guard import Guard

_FILE = "lab.sqlite3"


class Database(Protocol):
    """What `lab.project` asks of one. `version` names it; `alone` says that it carries one lane only."""

    version: str
    alone: bool

    def place(self, project: Path) -> Path:
        """Return what `LAB_DATABASE` names, a file in the folder `project`."""

    def lay_out(self, kept: Path) -> None:
        """Lay out what `migrate` makes; take it from beside the kept project, or leave it there where it is missing."""

    def move(self, folder: Path, seat: int) -> Path:
        """Return what `LAB_DATABASE` names for a lane: an untouched database, which no other lane's `seat` has."""

    def reset(self) -> None:
        """Lay the untouched database over the one in use, also under processes that have it open."""

    def stop(self) -> None:
        """End what is ours."""


def start(kind: str | None, guard: Guard) -> Database:
    """Return the database `kind`: `sqlite` or None, `mariadb`, or a URL; `LabError` where that can't be had."""
    if kind in (None, "sqlite"):
        return SQLite()
    # Its driver is there only where somebody has asked for it.
    from lab import lent_database, schemas

    if kind == "mariadb":
        return schemas.Private(guard.folder, guard)
    if "://" in str(kind):
        return lent_database.borrowed(str(kind), guard)
    raise LabError(f"--database {kind} is unknown: give sqlite, mariadb, or a URL such as mysql://user@localhost/name.")


def system(kind: str | None) -> str:
    """Return what the version of a database of this kind begins with."""
    return "SQLite" if kind in (None, "sqlite") else "MariaDB"


def settings(place: Path) -> dict[str, Any]:
    """Return Django's settings for what `LAB_DATABASE` names: SQLite's own file, or one with a server's address."""
    if place.suffix == ".json":
        found: dict[str, Any] = json.loads(place.read_text())
        return found
    import django

    # What a run leaves in its database need not outlive a power cut, and no claim shall wait for a disk.
    fast = "PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF;"
    wanted = {"transaction_mode": "IMMEDIATE", "init_command": fast} if django.VERSION >= (5, 1) else {}
    # An older Django has no such options: its own backend does the same.
    engine = "django.db.backends.sqlite3" if wanted else "lab.older_sqlite3"
    return {"ENGINE": engine, "NAME": str(place), "OPTIONS": {"timeout": 20, **wanted}}


def migrate() -> None:
    """Make the tables of this process's project."""
    from django.core.management import call_command
    from django.db import connection

    call_command("migrate", verbosity=0)
    connection.close()


class SQLite:
    """A file for each lane, with a copy of the untouched one in a folder beside it."""

    version = f"SQLite {sqlite3.sqlite_version}"
    alone = False

    def place(self, project: Path) -> Path:
        """Return the file."""
        return project / _FILE

    def lay_out(self, kept: Path) -> None:
        """Migrate where no earlier run has; the file is kept in the project."""
        migrated = kept / _FILE
        if not migrated.exists():
            migrate()
            with tempfile.TemporaryDirectory(dir=kept.parent) as scratch:
                fresh = Path(scratch) / _FILE
                copy(Path(os.environ["LAB_DATABASE"]), fresh)
                put(fresh, migrated)
        template().parent.mkdir(exist_ok=True)
        copy(migrated, template())
        self.reset()

    def move(self, folder: Path, seat: int) -> Path:
        """Return a file in the lane's folder."""
        (folder / "template").mkdir(parents=True)
        shutil.copy(template(), folder / "template")
        return Path(shutil.copy(template(), folder))

    def reset(self) -> None:
        """Copy the untouched file's pages into the one in use."""
        from django.db import connection

        connection.close()
        copy(template(), Path(connection.settings_dict["NAME"]))

    def stop(self) -> None:
        """Nothing runs."""


def template() -> Path:
    """Return the path of this process's untouched file of SQLite."""
    return Path(os.environ["LAB_DATABASE"]).parent / "template" / _FILE


def copy(source: Path, target: Path) -> None:
    """Lay one SQLite database over another, which may be open."""
    read, write = sqlite3.connect(source, timeout=20), sqlite3.connect(target, timeout=20)
    try:
        write.execute("PRAGMA synchronous=OFF")
        read.backup(write)
    finally:
        read.close()
        write.close()


def put(source: Path, target: Path) -> None:
    """Rename; of two first runs at the same time the second finds the place taken and uses what stands there."""
    try:
        source.rename(target)
    except OSError:
        if not target.exists():
            raise
