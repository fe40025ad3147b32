"""A MariaDB database that the user lends: refused where it holds a table, given back empty."""

import json
import os
import sys
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from lab.errors import LabError
from lab.guard import Guard
from lab.mariadb import account_of, connected, see_driver
from lab.schemas import Schemas
from lab.tables import CLAIM


class Lent(Schemas):
    """One database, which carries one lane."""

    alone = True

    def __init__(self, account: dict[str, Any], guard: Guard) -> None:
        """Use the database that `account` names."""
        super().__init__(account)
        self._guard = guard

    def lay_out(self, kept: Path) -> None:
        """Do what every run on MariaDB does; before, tell the guard by what names it knows our tables."""
        from django.apps import apps

        self._guard.borrow("lab.lent_database", _told(self.account, list(apps.app_configs)))
        super().lay_out(kept)


def borrowed(url: str, guard: Guard) -> Lent:
    """Return the database at `url`, such as mysql://user:password@host:3306/name, or with ?unix_socket=/a/path.

    A password that is missing there is taken from `MYSQL_PWD`. Raises `LabError` where the database can't be had.
    """
    see_driver()
    import MySQLdb

    parts = urlsplit(url)
    name = unquote(parts.path.lstrip("/"))
    place = parts.netloc.rpartition("@")[2]
    shown = f"{parts.scheme}://{place}{parts.path}"
    host, _, port = place.partition(":")
    if parts.scheme != "mysql" or not parts.username or not name or not f"{port}0".isdecimal():
        raise LabError(f"{shown} is no database this project knows: give a URL such as mysql://user@localhost/name.")
    password = unquote(parts.password or "") or os.environ.get("MYSQL_PWD", "")
    socket = parse_qs(parts.query).get("unix_socket", [""])[0]
    account = account_of(socket or host, port, unquote(parts.username), password) | {"NAME": name}
    try:
        with connected(account) as connection, connection.cursor() as cursor:
            if "MariaDB" not in connection.get_server_info():
                raise LabError(f"{shown} is on a server that is no MariaDB, which nobody has tried: lend one that is.")
            cursor.execute("SHOW TABLES")
            if count := len(cursor.fetchall()):
                raise LabError(
                    f"The database at {shown} holds {count} table{'s' if count > 1 else ''} and is left alone: "
                    "name an empty one."
                )
            # Django's tests, which a chapter runs, make it, and drop it in the end.
            cursor.execute(f"CREATE DATABASE `test_{name}`")
            cursor.execute(f"DROP DATABASE `test_{name}`")
            guard.borrow("lab.lent_database", _told(account, []))
            cursor.execute(f"CREATE TABLE `{CLAIM}` (pid int)")
    except MySQLdb.Error as error:
        raise LabError(_sentence(error.args[0], str(error.args[-1]), shown, name)) from None
    return Lent(account, guard)


def _sentence(number: int, text: str, shown: str, name: str) -> str:
    match number:
        case 1045:
            return f"The server of {shown} refuses the user or the password: correct the URL, or MYSQL_PWD."
        case 1049:
            return f"There is no database at {shown}: create it, or correct the URL."
        case 1050:
            return f"Another run uses the database at {shown}: wait for it, or name another."
        case 1007:
            return f"There is a database test_{name} beside {shown}, which Django's tests would drop: name another one."
        case 1044 | 1142:
            return (
                f"The user of {shown} may not do all that is needed ({text}): grant all rights on {name} and on "
                f"test_{name}, which Django's tests make."
            )
    return f"No database answers at {shown} ({text}): start the server, or correct the URL, or leave --database away."


def _told(account: dict[str, Any], apps: list[str]) -> str:
    return json.dumps({"account": account, "apps": apps})


def give_back(account: dict[str, Any], apps: list[str]) -> None:
    """Leave the database as empty as it was found: drop the tables of `apps`, Django's own, and no other."""
    ours = (*(f"{app}_" for app in apps), "django_", CLAIM)
    with connected(account) as connection, connection.cursor() as cursor:
        cursor.execute("SET foreign_key_checks = 0")
        cursor.execute("SHOW TABLES")
        for (table,) in cursor.fetchall():
            if table.startswith(ours):
                cursor.execute(f"DROP TABLE `{table}`")
        # That it was not there before has been seen.
        cursor.execute(f"DROP DATABASE IF EXISTS `test_{account['NAME']}`")


if __name__ == "__main__":
    give_back(**json.loads(Path(sys.argv[1]).read_text()))
