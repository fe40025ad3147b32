"""In place of a Redis server: fakeredis, one server for all of this process, with the Lua scripts in Python.

fakeredis needs a Lua interpreter for scripts, which is compiled and has no wheel for Pyodide. A script is known by its
library's own text: another text is an error. What fakeredis has no command for (`INFO`) is answered here.
"""

import hashlib
import time
from collections.abc import Callable
from typing import Any

import redis.lock
from fakeredis import FakeRedisConnection, FakeServer
from fakeredis._command_args_parsing import Int
from fakeredis._commands import SUPPORTED_COMMANDS, command
from fakeredis._helpers import SimpleError
from fakeredis._socket import FakeSocket
from kombu.transport import redis as transport

from lab.pages.browser.standins import threads

SERVER = FakeServer(version=(7, 4))
VERSION = "7.4.0"
# A worker in a process of its own may take a message, and run its task, before its sender's next line. Turns and no
# time, which would run out half-way on a slow machine; and not without end, as a task may send another one.
_HEAD_START = 100


class Connection(FakeRedisConnection):  # type: ignore[misc]
    """A connection to the one server; who sends a message gives way, as a thread does that waits for an answer."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("server", SERVER)
        # Connections are checked for life where they have been quiet; these can't die.
        kwargs["health_check_interval"] = 0
        super().__init__(*args, **kwargs)

    def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        """Send it; wake who waits for messages."""
        super().send_packed_command(command, check_health)
        sent = b"".join(command) if isinstance(command, list) else command
        pushed = b"LPUSH" in sent
        if pushed or b"PUBLISH" in sent:
            while waiting:
                threads.SCHEDULER.wake(waiting.pop())
            if pushed and threads.main():
                threads.SCHEDULER.stand_back(_HEAD_START)
            else:
                threads.SCHEDULER.park(time.monotonic())


waiting: list[threads.Stack] = []


def wait(timeout: float) -> None:
    """Give way until a message is sent, at most `timeout` seconds."""
    waiting.append(threads.SCHEDULER.current)
    threads.SCHEDULER.park(time.monotonic() + timeout)
    if threads.SCHEDULER.current in waiting:
        waiting.remove(threads.SCHEDULER.current)


def client() -> redis.Redis:
    """Return a client of the server."""
    return redis.Redis(connection_pool=redis.ConnectionPool(connection_class=Connection))


def _call(server: Any, *args: Any) -> Any:
    words = [arg if isinstance(arg, bytes) else str(arg).encode() for arg in args]
    function, signature = server._name_to_func(words[0].decode().lower())
    return server._run_command(function, signature, words[1:], True)


def _increase_known(server: Any, keys: list[bytes], args: list[bytes]) -> Any:
    return _increase(server, keys, args) if _call(server, "exists", keys[0]) == 1 else None


def _increase(server: Any, keys: list[bytes], args: list[bytes]) -> Any:
    return _call(server, "incrby", keys[0], args[0])


def _release(server: Any, keys: list[bytes], args: list[bytes]) -> int:
    if _call(server, "get", keys[0]) != args[0]:
        return 0
    _call(server, "del", keys[0])
    return 1


def _reacquire(server: Any, keys: list[bytes], args: list[bytes]) -> int:
    if _call(server, "get", keys[0]) != args[0]:
        return 0
    _call(server, "pexpire", keys[0], args[1])
    return 1


def _refresh_binding(server: Any, keys: list[bytes], args: list[bytes]) -> None:
    _call(server, "sadd", keys[0], args[0])
    _call(server, "zadd", keys[1], "GT", int(time.time() * 1000) + int(float(args[2])), args[1])


def _sweep_bindings(server: Any, keys: list[bytes], args: list[bytes]) -> int:
    overdue = _call(server, "zrangebyscore", keys[0], "-inf", int(time.time() * 1000), "LIMIT", 0, args[2]) or []
    for exchange in overdue:
        if _call(server, "exists", args[1] + exchange) == 0:
            _call(server, "del", args[0] + exchange)
        _call(server, "zrem", keys[0], exchange)
    return len(overdue)


def _flat(text: str | bytes) -> bytes:
    return b" ".join((text if isinstance(text, bytes) else text.encode()).split())


_IF_KNOWN = """local exists = redis.call('EXISTS', KEYS[1]) if (exists == 1) then
return redis.call('INCRBY', KEYS[1], ARGV[1]) else return false end"""
SCRIPTS: dict[bytes, Callable[[Any, list[bytes], list[bytes]], Any]] = {
    # Of django-redis, where they have no name.
    _flat(_IF_KNOWN): _increase_known,
    _flat("return redis.call('INCRBY', KEYS[1], ARGV[1])"): _increase,
    _flat(redis.lock.Lock.LUA_RELEASE_SCRIPT): _release,
    _flat(redis.lock.Lock.LUA_REACQUIRE_SCRIPT): _reacquire,
    _flat(transport.REFRESH_BINDING): _refresh_binding,
    _flat(transport.SWEEP_BINDINGS): _sweep_bindings,
}


def _run_script(self: Any, script: bytes, count: int, args: tuple[bytes, ...]) -> Any:
    known = SCRIPTS.get(_flat(script))
    if known is None:
        raise SimpleError(f"ERR the browser's Redis does not know this Lua script: {script.decode()[:80]}")
    return known(self, list(args[:count]), list(args[count:]))


def _digest(script: bytes) -> bytes:
    return hashlib.sha1(script, usedforsecurity=False).hexdigest().encode()


def _eval(self: Any, script: bytes, count: int, *args: bytes) -> Any:
    self._server.script_cache[_digest(script)] = script
    return _run_script(self, script, count, args)


def _evalsha(self: Any, digest: bytes, count: int, *args: bytes) -> Any:
    if digest not in self._server.script_cache:
        raise SimpleError("NOSCRIPT No matching script. Please use EVAL.")
    return _run_script(self, self._server.script_cache[digest], count, args)


def _script_load(self: Any, script: bytes) -> bytes:
    self._server.script_cache[_digest(script)] = script
    return _digest(script)


def _script_exists(self: Any, *digests: bytes) -> list[int]:
    return [int(digest in self._server.script_cache) for digest in digests]


def _info(_self: Any, *_sections: bytes) -> bytes:
    return f"# Server\r\nredis_version:{VERSION}\r\nredis_mode:standalone\r\n".encode()


for _name, _fixed, _repeat, _function in (
    ("eval", (bytes, Int), (bytes,), _eval),
    ("evalsha", (bytes, Int), (bytes,), _evalsha),
    ("script load", (bytes,), (), _script_load),
    ("script exists", (), (bytes,), _script_exists),
    ("info", (), (bytes,), _info),
):
    # A fakeredis that brings its own is used.
    if _name not in SUPPORTED_COMMANDS:
        command(name=_name, fixed=_fixed, repeat=_repeat)(_function)
        setattr(FakeSocket, _function.__name__, _function)
