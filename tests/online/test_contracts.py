"""What stands in for real parts does what they do, and refuses what it does not know."""

import importlib.util
import pwd
import sqlite3
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import redis
import redis.lock
from kombu.connection import Connection
from kombu.entity import Queue
from kombu.messaging import Consumer, Producer
from kombu.transport import redis as transport

from lab.pages.browser.standins import broker, collector, database, memory, threads

# Each script: its text as the library has it, keys, arguments, and what stands before.
_IF_KNOWN = (
    "local exists = redis.call('EXISTS', KEYS[1]) if (exists == 1) then "
    "return redis.call('INCRBY', KEYS[1], ARGV[1]) else return false end"
)
CASES: list[tuple[str, list[str], list[str], dict[str, str]]] = [
    (_IF_KNOWN, ["counter"], ["2"], {"counter": "40"}),
    (_IF_KNOWN, ["counter"], ["2"], {}),
    ("return redis.call('INCRBY', KEYS[1], ARGV[1])", ["counter"], ["3"], {}),
    (redis.lock.Lock.LUA_RELEASE_SCRIPT, ["lock"], ["mine"], {"lock": "mine"}),
    (redis.lock.Lock.LUA_RELEASE_SCRIPT, ["lock"], ["mine"], {"lock": "another"}),
    (redis.lock.Lock.LUA_RELEASE_SCRIPT, ["lock"], ["mine"], {}),
    (redis.lock.Lock.LUA_REACQUIRE_SCRIPT, ["lock"], ["mine", "5000"], {"lock": "mine"}),
    (redis.lock.Lock.LUA_REACQUIRE_SCRIPT, ["lock"], ["mine", "5000"], {"lock": "another"}),
    (transport.REFRESH_BINDING, ["table", "deadlines"], ["queue", "exchange", "60000"], {}),
    (transport.SWEEP_BINDINGS, ["deadlines"], ["table.", "permanent.", "100"], {}),
]


def _plays(client: redis.Redis, text: str, keys: list[str], arguments: list[str], before: dict[str, str]) -> Any:
    client.flushdb()
    for name, value in before.items():
        client.set(name, value)
    answer = client.eval(text, len(keys), *keys, *arguments)
    left = {key: client.type(key) for key in sorted(client.keys())}
    return answer, left, {key: client.get(key) for key, kind in left.items() if kind == b"string"}


@pytest.mark.parametrize("case", CASES, ids=[f"script {number}" for number in range(len(CASES))])
def test_a_lua_script_in_python_answers_and_leaves_what_the_real_one_does(case: Any, client: redis.Redis) -> None:
    assert _plays(memory.client(), *case) == _plays(client, *case)


def test_an_unknown_script_is_refused() -> None:
    with pytest.raises(redis.ResponseError, match="does not know this Lua script"):
        memory.client().eval("return 1", 0)


def test_a_script_is_asked_for_by_its_digest_as_of_the_real_server(client: redis.Redis) -> None:
    for each in (memory.client(), client):
        with pytest.raises(redis.exceptions.NoScriptError):
            each.evalsha("0" * 40, 0)
        digest = each.script_load(redis.lock.Lock.LUA_RELEASE_SCRIPT)
        assert each.script_exists(digest) == [True]
        assert each.evalsha(digest, 1, "nothing", "mine") == 0


def test_the_server_tells_its_version_where_the_real_one_does(client: redis.Redis) -> None:
    for each in (memory.client(), client):
        assert int(each.info()["redis_version"].split(".")[0]) >= 7


class _Alone:
    """An `Engine` for one stack: there is nobody to give way to."""

    def skip(self, seconds: float) -> None: ...

    def gate(self) -> Any: ...

    def open(self, gate: Any) -> None: ...

    def wait(self, gate: Any) -> None: ...

    def spawn(self, function: Any) -> None: ...


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the stand-ins believe that this is the only stack."""
    monkeypatch.setattr(threads, "SCHEDULER", threads.Scheduler(_Alone()), raising=False)


def _order(connection: Connection) -> list[int]:
    """Send ten messages of mixed priority to two queues, and return the order in which they come."""
    found: list[int] = []

    def note(body: int, message: Any) -> None:
        found.append(body)
        message.ack()

    queues = [Queue(name, routing_key=name) for name in ("one", "other")]
    with connection as connected, connected.channel() as channel:
        bound = [queue(channel) for queue in queues]
        for queue in bound:
            queue.declare()
        producer = Producer(channel)
        for number in range(10):
            name = queues[number % 2].name
            producer.publish(number, routing_key=name, priority=(7 * number) % 10, serializer="json")
        with Consumer(channel, bound, callbacks=[note], accept=["json"], prefetch_count=1):
            while len(found) < 10:
                connected.drain_events(timeout=10)
    return found


def test_messages_come_in_the_order_in_which_the_real_broker_gives_them(alone: None, lent: str) -> None:
    options = {"priority_steps": list(range(10)), "queue_order_strategy": "sorted"}
    real = _order(Connection(lent, transport_options=options))
    assert _order(Connection("redis://", transport=broker.Transport, transport_options=options)) == real
    assert sorted(real) == list(range(10))


def _locked(lock: Any) -> list[object]:
    """Return what a lock answers, one thing after the other."""
    found: list[object] = [lock.locked(), lock.acquire(), lock.locked(), lock.acquire(blocking=False)]
    found += [lock.acquire(timeout=0.01), lock.release(), lock.locked()]
    for wrong in (lock.release, lambda: lock.acquire(False, 1)):
        with pytest.raises((RuntimeError, ValueError)) as raised:
            wrong()
        found.append((raised.type, str(raised.value)))
    with lock as entered:
        found.append((entered, lock.locked()))
    return found


def test_a_lock_answers_as_the_real_one(alone: None) -> None:
    assert _locked(threads.Lock()) == _locked(threading.Lock())


def test_every_stack_waiting_for_another_is_an_error_and_no_silence(alone: None) -> None:
    lock = threads.Lock()
    lock.acquire()
    with pytest.raises(RuntimeError, match="every thread waits for another one"):
        lock.acquire()


def test_no_thread_starts_but_by_threading() -> None:
    with pytest.raises(NotImplementedError):
        threads._refuse()


def test_who_finds_the_database_locked_waits_as_sqlite_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "db.sqlite3"
    holder = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    holder.execute("CREATE TABLE t (n)")
    holder.execute("BEGIN IMMEDIATE")
    threading.Timer(0.2, holder.commit).start()
    for factory, timeout in ((database.Connection, 0.0), (sqlite3.Connection, 20.0)):
        with factory(path, timeout=timeout) as waiting:
            waiting.cursor().execute("INSERT INTO t VALUES (1)")
        waiting.close()
    holder.execute("BEGIN IMMEDIATE")
    monkeypatch.setattr(database, "_PATIENCE", 0.05)
    for factory, timeout in ((database.Connection, 0.0), (sqlite3.Connection, 0.05)):
        with pytest.raises(sqlite3.OperationalError, match="database is locked"):
            factory(path, timeout=timeout).cursor().execute("INSERT INTO t VALUES (1)")
    holder.close()


def _module(name: str) -> ModuleType:
    """Load a stand-in that libraries import by name."""
    spec = importlib.util.spec_from_file_location(
        f"standin_{name}", Path(threads.__file__).parent / f"modules/{name}.py"
    )
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_an_unknown_user_is_told_as_by_the_real_module() -> None:
    told = []
    for module in (_module("pwd"), pwd):
        for ask, name in ((module.getpwuid, 4321987), (module.getpwnam, "nobody-here")):
            with pytest.raises(KeyError) as raised:
                ask(name)
            told.append(str(raised.value))
    assert told[:2] == told[2:]


def test_the_client_for_http_refuses() -> None:
    client = _module("httpx2_jsfetch").JavascriptFetchTransport()
    with pytest.raises(OSError, match="there is no network in this page"):
        client.handle_request(None)


def test_a_collection_of_the_middle_collects_as_the_real_one() -> None:
    for generation in (0, 1, 2):
        circle: list[Any] = []
        circle.append(circle)
        del circle
        assert collector.collect(generation) > 0
