"""What stands in for real parts does what they do: Lua scripts against a real server."""

from typing import Any

import pytest
import redis
import redis.lock
from kombu.transport import redis as transport

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
    memory = pytest.importorskip("lab.pages.browser.standins.memory")
    assert _plays(memory.client(), *case) == _plays(client, *case)


def test_an_unknown_script_is_refused() -> None:
    memory = pytest.importorskip("lab.pages.browser.standins.memory")
    with pytest.raises(redis.ResponseError, match="does not know this Lua script"):
        memory.client().eval("return 1", 0)
