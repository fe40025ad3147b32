"""Before each claim the tables are what `migrate` made of them, whatever the last claim has left."""

from collections.abc import Iterator
from typing import Any

import pytest

from lab import tables
from lab.mariadb import Server, connected

MADE = (
    "CREATE TABLE pilot (id int AUTO_INCREMENT PRIMARY KEY, name varchar(20) UNIQUE, born datetime(6), flag bit)",
    "CREATE TABLE ship (id int AUTO_INCREMENT PRIMARY KEY, pilot int, FOREIGN KEY (pilot) REFERENCES pilot (id))",
    r"""INSERT INTO pilot VALUES (1, 'Aiko \\ "50 %" ✓', '2026-11-26 12:00:00.123456', NULL), (7, 'Bo', NULL, 1)""",
)
LEFT = (
    "DELETE FROM pilot WHERE id = 1",
    "UPDATE pilot SET name = 'Caro' WHERE id = 7",
    "INSERT INTO pilot (name) VALUES ('Bo')",
    "INSERT INTO ship (pilot) VALUES (7), (8)",
    "DROP TABLE ship",
)


@pytest.fixture
def schema(server: Server) -> Iterator[Any]:
    """Connect to a schema with two tables, one of which has rows."""
    with connected(server.account) as connection:
        does(connection, "SET foreign_key_checks = 0", "CREATE OR REPLACE DATABASE fleet", "SET foreign_key_checks = 1")
        does(connection, "USE fleet", *MADE)
        yield connection


def does(connection: Any, *statements: str) -> list[Any]:
    """Run statements and return the rows that the last one finds."""
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
        return list(cursor.fetchall())


def found(connection: Any) -> list[Any]:
    """Return the rows of both tables, what makes them, and the next id of each."""
    queries = ("SELECT * FROM pilot", "SELECT * FROM ship", "SHOW CREATE TABLE pilot", "SHOW CREATE TABLE ship")
    return [does(connection, query) for query in queries]


@pytest.mark.parametrize("count", range(len(LEFT) + 1))
def test_what_a_claim_has_left_is_gone_and_ids_begin_anew(schema: Any, count: int) -> None:
    before, noted = found(schema), tables.note(schema)
    does(schema, *LEFT[:count], "SELECT 1")
    tables.lay_out(schema, noted)
    assert found(schema) == before


def test_another_schema_gets_the_same_tables(schema: Any) -> None:
    before, noted = found(schema), tables.note(schema)
    does(schema, "CREATE DATABASE other", "USE other")
    tables.lay_out(schema, noted)
    assert found(schema) == before


def test_rows_are_laid_out_under_a_connection_that_has_read_them(schema: Any, server: Server) -> None:
    noted = tables.note(schema)
    with connected(server.account | {"NAME": "fleet"}) as other:
        does(other, "UPDATE pilot SET name = 'Caro' WHERE id = 7", "SELECT * FROM pilot")
        tables.lay_out(schema, noted)
        assert does(other, "SELECT name FROM pilot WHERE id = 7") == [("Bo",)]
