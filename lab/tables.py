"""The tables of a MySQL or MariaDB schema as `migrate` leaves them: noted once, and laid out anew in any schema."""

from dataclasses import dataclass
from typing import Any

# A table that tells other runs that a lent database is in use.
CLAIM = "celery_faq_lab"
_COUNTERS = "SELECT table_name, auto_increment FROM information_schema.tables WHERE table_schema = DATABASE()"


@dataclass
class Table:
    """A table: the statements that make it and fill it, the latter empty where it has no rows, and its next id."""

    create: str
    insert: str
    counter: int | None


def note(connection: Any) -> dict[str, Table]:
    """Return the tables of the schema in use, by name. `connection` is one of MySQLdb."""
    found = {}
    for name, counter in _rows(connection, _COUNTERS):
        if name == CLAIM:
            continue
        ((_, create),) = _rows(connection, f"SHOW CREATE TABLE `{name}`")
        rows = [f"({', '.join(map(_text(connection), row))})" for row in _rows(connection, f"SELECT * FROM `{name}`")]  # noqa: S608
        insert = f"INSERT INTO `{name}` VALUES {', '.join(rows)}" if rows else ""  # noqa: S608
        found[name] = Table(create, insert, counter)
    return found


def lay_out(connection: Any, tables: dict[str, Table]) -> None:
    """Make these tables what they were in the schema in use, whatever rows it has; make them where they are missing.

    Rows are deleted one by one: `TRUNCATE` would make the table's file anew, and wait for all who have it open.
    """
    there = dict(_rows(connection, _COUNTERS))
    made = [table.create if name not in there else f"DELETE FROM `{name}`" for name, table in tables.items()]  # noqa: S608
    filled = [table.insert for table in tables.values() if table.insert]
    _run(
        connection,
        [
            "SET foreign_key_checks = 0, unique_checks = 0, autocommit = 1",
            *made,
            "START TRANSACTION",
            *filled,
            "COMMIT",
        ],
    )
    now = dict(_rows(connection, _COUNTERS))
    moved = {name: table.counter for name, table in tables.items() if now[name] != table.counter}
    _run(connection, [f"ALTER TABLE `{name}` AUTO_INCREMENT = {counter}" for name, counter in moved.items()])


def _text(connection: Any) -> Any:
    return lambda value: connection.literal(value).decode()


def _rows(connection: Any, query: str) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(query)
        return list(cursor.fetchall())


def _run(connection: Any, statements: list[str]) -> None:
    """Run them in one go: each on its own would be a way to the server and back."""
    if not statements:
        return
    with connection.cursor() as cursor:
        cursor.execute(";\n".join(statements))
        while cursor.nextset() is not None:
            pass
