"""A Redis server as people have it: users with passwords, TLS with an authority of its own, a Unix socket."""

import secrets
import shutil
import subprocess
from pathlib import Path
from urllib.parse import quote, urlencode

import redis

from lab import broker
from lab.guard import Guard

# Debian's package is built with TLS; the embedded Valkey is not.
MISSING = "These tests need {}: on Debian and Ubuntu, apt install redis-server openssl."
NUMBER = 3
# What stands in the server's other databases, under names that Celery and Django's cache use too.
OTHERS = {0: "celery", NUMBER + 1: ":1:somebody's"}


class Lender:
    """A server of somebody else's; the database `NUMBER` is empty, others are not."""

    def __init__(self, folder: Path, **options: str) -> None:
        """Start the server in `folder`, with more `options` of redis.conf, where `__` stands for a space."""
        self.folder = folder
        self.socket = folder / "a socket"
        self.ca = folder / "an authority.pem"
        program = shutil.which("redis-server")
        assert program, MISSING.format("redis-server")
        self._make_certificates()
        self.tls_port = broker.free_port()
        given: dict[str, object] = {
            "dir": folder,
            "save": '""',
            "unixsocket": f'"{self.socket}"',
            "tls-port": self.tls_port,
            "tls-cert-file": folder / "server.pem",
            "tls-key-file": folder / "server.key",
            "tls-ca-cert-file": f'"{self.ca}"',
            "tls-auth-clients": "no",
            **{name.replace("__", " "): value for name, value in options.items()},
        }
        self.guard = Guard(folder)
        self.password = secrets.token_hex()
        self.port = broker.free_port()
        log = folder / "log"
        self.process, version = broker.launch(program, self.port, self.password, given, log, self.guard)
        assert version, log.read_text()
        for number, name in OTHERS.items():
            with self.client(number) as client:
                client.rpush(name, "somebody's")

    def _make_certificates(self) -> None:
        assert shutil.which("openssl"), MISSING.format("openssl")
        made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        authority = ["-subj", "/CN=authority", "-keyout", "ca.key", "-out", self.ca.name]
        signed = ["-subj", "/CN=server", "-CA", self.ca.name, "-CAkey", "ca.key", "-keyout", "server.key"]
        named = ["-out", "server.pem", "-addext", "subjectAltName=IP:127.0.0.1"]
        for command in ([*made, *authority], [*made, *signed, *named]):
            subprocess.run(command, cwd=self.folder, check=True, capture_output=True)

    def client(self, number: int = NUMBER) -> redis.Redis:
        """Return a client that may do everything."""
        return redis.Redis("127.0.0.1", self.port, number, self.password)

    def nameless(self) -> str:
        """Return what stands in a URL for the user that has a password alone."""
        return f":{self.password}@"

    def user(self, name: str, *rights: str, password: str = "") -> str:
        """Make a user and return what stands for it in a URL; without a `password` it has the server's."""
        password = password or self.password
        with self.client() as client:
            client.execute_command("ACL", "SETUSER", name, "on", f">{password}", *rights)
        return f"{quote(name, safe='')}:{quote(password, safe='')}@"

    def tcp(self, user: str, number: int = NUMBER) -> str:
        """Return the URL of a database, for a user as `user` returns it."""
        return f"redis://{user}127.0.0.1:{self.port}/{number}"

    def tls(self, user: str, **query: str) -> str:
        """Return the URL over TLS."""
        asked = f"?{urlencode(query)}" if query else ""
        return f"rediss://{user}127.0.0.1:{self.tls_port}/{NUMBER}{asked}"

    def untouched(self) -> bool:
        """Return whether each of the server's other databases holds what it held."""
        for number, name in OTHERS.items():
            with self.client(number) as client:
                if client.keys() != [name.encode()] or client.lrange(name, 0, -1) != [b"somebody's"]:
                    return False
        return True

    def commands(self) -> set[str]:
        """Return the names of all commands that anybody has sent."""
        with self.client() as client:
            return {name.removeprefix("cmdstat_").partition("|")[0] for name in client.info("commandstats")}

    def end(self) -> None:
        """End the server, also a stopped one."""
        self.process.kill()
        self.process.wait()
        self.guard.finish()
