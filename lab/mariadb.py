"""MariaDB's server: one of ours in a folder, reached by a socket alone; and connections to any."""

import contextlib
import os
import pwd
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lab.errors import LabError
from lab.guard import Guard
from lab.waiting import wait_until

# For a server of somebody else's to answer, and for one of ours, on a busy machine, to start.
_PATIENCE = 5
_STARTS = 60.0
# Debian keeps the server where only root looks for programs.
_PLACES = os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin"])
_INSTEAD = "lend a database with --database URL, or leave --database away, which takes SQLite."
# What a socket's path may have, with the zero at its end, on the systems this runs on.
_LONGEST = 104
_OPTIONS = (
    # As Debian's server has it.
    "--character-set-server=utf8mb4",
    "--collation-server=utf8mb4_general_ci",
    # What a run leaves need not outlive a power cut, and no claim shall wait for a disk.
    "--innodb-flush-log-at-trx-commit=0",
    "--innodb-flush-method=nosync",
    "--innodb-log-file-size=16M",
    # Lanes have many workers.
    "--max-connections=1000",
)


class Server:
    """A server with `options` of `mariadbd`. `account` is Django's settings for it, all but the database's `NAME`."""

    def __init__(self, folder: Path, guard: Guard, *options: str) -> None:
        """Make and start it in `folder`, which the guard removes; `LabError` where it can't be had."""
        see_driver()
        program, install = (shutil.which(name, path=_PLACES) for name in ("mariadbd", "mariadb-install-db"))
        if not program or not install:
            raise LabError(f"There is no mariadbd here: on Debian and Ubuntu install mariadb-server, or {_INSTEAD}")
        folder.mkdir(mode=0o700)
        socket, first = folder / "socket", folder / "first.sql"
        if len(os.fsencode(socket)) >= _LONGEST:
            raise LabError(f"{socket} is too long a path for a socket: set TMPDIR to a folder with a shorter one.")
        self._log = folder / "log"
        self._guard = guard
        me = pwd.getpwuid(os.getuid()).pw_name
        # A server that starts removes the temporary tables of every other one that has them in the same folder.
        (folder / "tmp").mkdir()
        places = [f"--datadir={folder / 'data'}", f"--tmpdir={folder / 'tmp'}"]
        common = ["--no-defaults", *places, f"--user={me}", *_OPTIONS]
        if self._launch(install, *common, "--auth-root-authentication-method=normal", "--skip-test-db").wait():
            raise LabError(f"{install} failed ({self._why()}): mend it, {_INSTEAD}")
        reached = [f"--socket={socket}", f"--pid-file={folder / 'pid'}", "--skip-networking"]
        self._serving = [program, *common, *reached, *options]
        password = secrets.token_urlsafe(24)
        self.account = account_of(str(socket), "", "lab", password)
        # In a file, so that the password shows in no process list.
        first.touch(mode=0o600)
        # Everybody may be root without a password after the installation.
        statements = ["DELETE FROM mysql.global_priv WHERE User <> 'mariadb.sys'", "FLUSH PRIVILEGES"]
        statements += [f"CREATE USER lab@localhost IDENTIFIED BY '{password}'"]
        statements += ["GRANT ALL ON *.* TO lab@localhost WITH GRANT OPTION"]
        first.write_text("".join(f"{statement};\n" for statement in statements))
        self.start(f"--init-file={first}")
        first.unlink()

    def start(self, *options: str) -> None:
        """Start the server, with `options` too this time, and wait until it answers."""
        self._process = self._launch(*self._serving, *options)
        try:
            wait_until(self._answers, _STARTS, "the start of MariaDB")
        except LabError:
            self.kill()
            raise LabError(f"{self._serving[0]} did not start ({self._why()}): mend it, {_INSTEAD}") from None

    def stop(self) -> None:
        """End the server with SIGTERM, as a service is stopped."""
        self._process.terminate()
        self._process.wait()

    def kill(self) -> None:
        """End the server with -9: what it has not on disk yet is lost."""
        self._process.kill()
        self._process.wait()

    def _launch(self, *argv: str) -> "subprocess.Popen[bytes]":
        with self._log.open("wb") as log:
            process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        self._guard.register(process.pid)
        return process

    def _answers(self) -> bool:
        import MySQLdb

        if self._process.poll() is not None:
            raise LabError("MariaDB has ended.")
        with contextlib.suppress(MySQLdb.OperationalError), connected(self.account):
            return True
        return False

    def _why(self) -> str:
        """Return the first error that was logged: those after it come of it."""
        lines = self._log.read_text(errors="replace").strip().splitlines() or ["it printed nothing"]
        return next((line for line in lines if "ERROR" in line), lines[-1])


def see_driver() -> None:
    """Raise `LabError` where mysqlclient is missing."""
    try:
        import MySQLdb  # noqa: F401
    except ImportError:
        raise LabError(
            "MariaDB's driver, mysqlclient, is not installed here: run this through nox, for example "
            "nox -s examples -- --database mariadb."
        ) from None


def account_of(host: str, port: str, user: str, password: str) -> dict[str, Any]:
    """Return Django's settings for a server; all but the database's `NAME`."""
    return {
        "ENGINE": "django.db.backends.mysql",
        "USER": user,
        "PASSWORD": password,
        "HOST": host,
        "PORT": port,
        # What Alliance Auth's local.py has.
        "OPTIONS": {"charset": "utf8mb4"},
    }


@contextlib.contextmanager
def connected(settings: dict[str, Any]) -> Iterator[Any]:
    """Connect with MySQLdb, as Django does with these settings; without a `NAME`, to no database."""
    import MySQLdb

    place = {"unix_socket" if settings["HOST"].startswith("/") else "host": settings["HOST"]}
    if settings.get("PORT"):
        place["port"] = int(settings["PORT"])
    with contextlib.closing(
        MySQLdb.connect(
            user=settings["USER"],
            password=settings["PASSWORD"],
            database=settings.get("NAME", ""),
            charset="utf8mb4",
            connect_timeout=_PATIENCE,
            autocommit=True,
            **place,
        )
    ) as connection:
        yield connection
