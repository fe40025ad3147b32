"""The lab's manners with MariaDB: what it says when it can't have one, what it shows, and what it leaves behind."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest

from lab.guard import Guard
from lab.mariadb import Server, connected
from lab.waiting import wait_until
from tests.bed import PATIENCE, Bed
from tests.lab.test_manners import ends_with_all

CHAPTER = "first_task"
OWN = ("--database", "mariadb")


class Lent:
    """A database that is lent to the user `lender`, and what is in it."""

    def __init__(self, server: Server) -> None:
        self.root = server.account
        self.url = f"mysql://lender:secret@localhost/lent?unix_socket={server.account['HOST']}"
        self.does("DROP DATABASE IF EXISTS lent")
        self.does("CREATE DATABASE lent CHARACTER SET utf8mb4")
        self.does("CREATE OR REPLACE USER lender@localhost IDENTIFIED BY 'secret'")
        for name in ("lent", "test_lent"):
            self.does(f"GRANT ALL ON `{name}`.* TO lender@localhost")

    def does(self, statement: str) -> list[Any]:
        """Run a statement as one who may do everything, and return the first column of what it finds."""
        with connected(self.root) as connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return [row[0] for row in cursor.fetchall()]

    def tables(self) -> list[Any]:
        """Return the names of the tables."""
        return self.does("SHOW TABLES FROM lent")


@pytest.fixture
def lent(server: Server) -> Lent:
    """An empty database on a server that is somebody else's."""
    return Lent(server)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("maria", "--database maria is unknown"),
        ("postgres://me:secret@localhost/auth", "postgres://localhost/auth is no database this project knows"),
        ("mysql://localhost/auth", "mysql://localhost/auth is no database this project knows"),
        ("mysql://me:secret@127.0.0.1:1/auth", "No database answers at mysql://127.0.0.1:1/auth"),
    ],
)
def test_what_can_not_be_had_is_one_sentence_without_the_password(bed: Bed, url: str, words: str) -> None:
    done = bed.refused(CHAPTER, "--database", url, words=words)
    assert "secret" not in done.err + done.out


def test_no_mariadb_on_path_is_one_sentence(bed: Bed, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # Debian's own place is looked at whatever PATH says: a server that can't start stands in front of it.
    program = tmp_path / "mariadb-install-db"
    program.write_text("#!/bin/sh\necho 'ERROR: no such thing'\nexit 1\n")
    program.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    bed.refused(CHAPTER, *OWN, words="mariadb-install-db failed (ERROR: no such thing)", PATH=path)


def test_a_run_on_a_server_of_its_own_is_green_and_says_which(bed: Bed) -> None:
    done = bed.run(CHAPTER, *OWN)
    assert done.code == 0, done.out + done.err
    assert "· MariaDB 1" in done.out
    recorded = json.loads(Path(bed.env["LAB_EVIDENCE"]).read_text())["chapters"][CHAPTER]
    assert recorded["versions"]["database"].startswith("MariaDB 1")
    assert not bed.folders()


def test_a_server_that_starts_leaves_the_temporary_tables_of_another_alone(
    server: Server, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("another")
    (folder / "guarded").mkdir()
    guard = Guard(folder / "guarded")
    with connected(server.account) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE DATABASE IF NOT EXISTS scratch")
        cursor.execute("CREATE TEMPORARY TABLE scratch.kept (number INT) ENGINE=MyISAM")
        Server(folder / "mariadb", guard).kill()
        cursor.execute("INSERT INTO scratch.kept VALUES (1)")
        cursor.execute("DROP TABLE scratch.kept")
    guard.finish()


def _servers(bed: Bed) -> list[psutil.Process]:
    return [process for process in bed.registered() if process.name() == "mariadbd"]


def test_the_server_listens_at_its_socket_only_and_keeps_its_password_to_itself(bed: Bed) -> None:
    run = bed.start(CHAPTER, *OWN)
    addresses = wait_until(lambda: list(bed.tmp.glob("celery-faq-*/lane-*/mariadb.json")), PATIENCE, "the first lane")
    (server,) = _servers(bed)
    assert server.net_connections("inet") == []
    account = json.loads(addresses[0].read_text())
    assert addresses[0].stat().st_mode & 0o777 == 0o600
    assert Path(account["HOST"]).parent.stat().st_mode & 0o777 == 0o700
    shown = " ".join(word for process in bed.registered() for word in [*process.cmdline(), *process.environ().values()])
    assert account["PASSWORD"] not in shown
    with pytest.raises(Exception, match="Access denied"), connected({**account, "USER": "root", "PASSWORD": ""}):
        pass
    assert run.wait(PATIENCE) == 0, bed.told()


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_is_ended_leaves_neither_server_nor_folder(bed: Bed, sign: signal.Signals) -> None:
    run = bed.start(CHAPTER, *OWN)
    wait_until(lambda: list(bed.tmp.glob("celery-faq-*/lane-*/mariadb.json")), PATIENCE, "the first lane")
    ends_with_all(bed, run, sign, least=4)


def test_a_lent_database_is_as_empty_as_it_was_found_and_a_table_of_somebody_stays(bed: Bed, lent: Lent) -> None:
    run = bed.start(CHAPTER, "--database", lent.url.replace(":secret", ""), MYSQL_PWD="secret")
    wait_until(lent.tables, PATIENCE, "a table in the database")
    lent.does("CREATE TABLE lent.somebodys (number int)")
    assert run.wait(PATIENCE) == 0, bed.told()
    assert lent.tables() == ["somebodys"]
    assert lent.does("SHOW DATABASES LIKE 'test%'") == []
    assert not bed.folders()


def test_a_run_on_a_lent_database_that_is_killed_leaves_it_empty(bed: Bed, lent: Lent) -> None:
    run = bed.start("--database", lent.url)
    wait_until(lambda: len(lent.tables()) > 20, PATIENCE, "the tables")
    ends_with_all(bed, run, signal.SIGKILL, least=3)
    assert lent.tables() == []


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("CREATE TABLE lent.auth_user (number int)", "holds 1 table and is left alone"),
        ("CREATE DATABASE test_lent", "There is a database test_lent beside mysql://localhost/lent"),
        ("REVOKE ALL ON test_lent.* FROM lender@localhost", "grant all rights on lent and on test_lent"),
        ("ALTER USER lender@localhost IDENTIFIED BY 'another'", "refuses the user or the password"),
    ],
)
def test_what_is_not_lent_is_left_alone(bed: Bed, lent: Lent, statement: str, words: str) -> None:
    lent.does(statement)
    before = lent.tables()
    done = bed.refused(CHAPTER, "--database", lent.url, words=words)
    assert "secret" not in done.err + done.out
    assert lent.tables() == before
    lent.does("DROP DATABASE IF EXISTS test_lent")


def test_two_runs_do_not_share_a_lent_database(bed: Bed, lent: Lent) -> None:
    first = bed.start(CHAPTER, "--database", lent.url)
    wait_until(lent.tables, PATIENCE, "the run's claim on the database")
    second = bed.run(CHAPTER, "--database", lent.url)
    assert second.code != 0
    assert "left alone" in second.sentence
    assert first.wait(PATIENCE) == 0, bed.told()
