"""A lent broker in each form in which people have one: a short real run on each, and what is told of what can't be."""

import contextlib
import subprocess
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import psutil
import pytest

from lab import address, broker
from lab.errors import LabError
from lab.guard import Guard
from tests.bed import PATIENCE, Bed
from tests.lab.lender import NUMBER, Lender

ALL = ("~*", "&*", "+@all")
# Starts from the web server and from the test, a worker, locks in the cache, events, and retries.
CLAIMS = ["queue_once", "user_interface", "-k", "retry_keeps_the_lock or deleting_its_key or click_shows_the_message"]
FORBIDDEN = {f"rename-command__{name}": '""' for name in ("CONFIG", "FLUSHALL", "FLUSHDB")}


def _special(lender: Lender) -> str:
    # Each of these means something in a URL, to kombu or to Django's cache.
    return lender.tcp(lender.user("user@home", *ALL, password=f"{lender.password}/:@;,#%?&ü"))


FORMS: dict[str, Callable[[Lender], str]] = {
    "a password": lambda lender: lender.tcp(lender.nameless()),
    "another database number": lambda lender: lender.tcp(lender.nameless(), 15),
    "a user": lambda lender: lender.tcp(lender.user("lab", *ALL)),
    "special characters": _special,
    "TLS, an own authority": lambda lender: lender.tls(
        lender.user("lab", *ALL), ssl_cert_reqs="required", ssl_ca_certs=str(lender.ca)
    ),
    "TLS, checked by default": lambda lender: lender.tls(lender.nameless(), ssl_ca_certs=str(lender.ca)),
    "TLS, unchecked": lambda lender: lender.tls(lender.nameless(), ssl_cert_reqs="CERT_NONE"),
    "a socket": lambda lender: f"unix://{lender.user('lab', *ALL)}{quote(str(lender.socket))}?db={NUMBER}",
    "a socket, as kombu says it": lambda lender: (
        f"redis+socket://{lender.nameless()}{quote(str(lender.socket))}?virtual_host={NUMBER}"
    ),
    "CONFIG and FLUSH forbidden": lambda lender: lender.tcp(
        lender.user("lab", *ALL, "-config", "-flushall", "-flushdb")
    ),
    "no more than Auth needs": lambda lender: lender.tcp(lender.user("lab", *ALL, "-@dangerous", "+info")),
}


def _runs(bed: Bed, lender: Lender, url: str) -> None:
    """Run some claims on the database at `url`; demand that they hold, and that nothing else was touched or shown."""
    run = bed.start(*CLAIMS, REDIS_URL=url)
    listed: set[str] = set()

    while run.poll() is None:
        listed.update(" ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"]))
        # To list every process is work; what would show a password lives for seconds.
        with contextlib.suppress(subprocess.TimeoutExpired):
            run.wait(0.1)
    told = bed.told()
    assert run.returncode == 0, told
    assert told.count("✓") == 3, told
    for words in (told, *listed):
        assert lender.password not in words
    assert lender.untouched()
    with address.client(address.normal(url), PATIENCE) as client:
        assert client.dbsize() == 0
    assert not lender.commands() & {"config", "flushall", "flushdb"}
    assert not bed.folders()


@pytest.mark.parametrize("form", FORMS)
def test_claims_hold_on_a_broker_in_every_form(bed: Bed, lender: Lender, form: str) -> None:
    _runs(bed, lender, FORMS[form](lender))


@pytest.mark.parametrize("lender", [FORBIDDEN], indirect=True)
def test_claims_hold_where_config_and_flush_are_renamed_away(bed: Bed, lender: Lender) -> None:
    _runs(bed, lender, lender.tcp(lender.nameless()))


def _refusal(url: str, tmp_path: Path) -> str:
    folder = tmp_path / "run"
    folder.mkdir()
    guard = Guard(folder)
    try:
        with pytest.raises(LabError) as raised:
            broker.start(url, guard)
    finally:
        assert guard.finish()
    (sentence,) = str(raised.value).splitlines()
    return sentence


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("redis://:se/cret@127.0.0.1:1/0", "percent form"),
        ("redis://:12?secret=1@127.0.0.1:1/0", "percent form"),
        ("redis://me:12/cret@127.0.0.1:1/0", "percent form"),
        ("redis://:secret@127.0.0.1:1/first", "database in redis://127.0.0.1:1/first is no number"),
        ("redis://:secret@127.0.0.1:1/0?socket_timeout=5", "Celery does not take socket_timeout"),
        ("redis://:secret@127.0.0.1:1/0?ssl_ca_certs=/a", "leave it out. With rediss:// it takes ssl_ca_certs"),
        ("sentinel://:secret@127.0.0.1:1/0", "give one like redis://"),
        ("unix://:secret@/nowhere/redis.sock?db=1", "No broker answers at unix:///nowhere/redis.sock?db=1"),
        ("rediss://:secret@127.0.0.1:1/0?ssl_ca_certs=/nowhere.pem", "nowhere.pem"),
    ],
)
def test_a_url_that_can_not_be_used_is_one_sentence_without_the_password(url: str, words: str, tmp_path: Path) -> None:
    told = _refusal(url, tmp_path)
    assert words in told
    assert "cret" not in told


def test_a_certificate_of_an_unknown_authority_is_one_sentence_that_says_where_to_name_it(
    lender: Lender, tmp_path: Path
) -> None:
    assert "?ssl_ca_certs=PATH" in _refusal(lender.tls(lender.nameless()), tmp_path)


# Auth's own check of the Redis version asks for INFO; Redis 7 gives a new user no channel.
@pytest.mark.parametrize("rights", [("~*", "resetchannels", "+@all"), (*ALL, "-@dangerous")])
def test_a_user_who_may_not_do_what_auth_does_is_one_sentence_with_the_rights(
    lender: Lender, rights: tuple[str, ...], tmp_path: Path
) -> None:
    assert "(~* &* +@all -@dangerous +info)" in _refusal(lender.tcp(lender.user("lab", *rights)), tmp_path)
    with lender.client() as client:
        assert client.dbsize() == 0


@pytest.mark.parametrize(
    ("given", "redis_py", "celery"),
    [
        ("redis://h", "redis://h/0", "redis://h/0"),
        ("redis://[::1]:7/2", "redis://[::1]:7/2", "redis://[::1]:7/2"),
        ("redis://h?db=4", "redis://h/4", "redis://h/4"),
        ("redis://:a;b,c@h/1", "redis://:a%3Bb%2Cc@h/1", "redis://:a%3Bb%2Cc@h/1"),
        ("rediss://h/1", "rediss://h/1?ssl_cert_reqs=required", "rediss://h/1?ssl_cert_reqs=required"),
        ("unix:///a%20b?db=2", "unix:///a%20b?db=2", "redis+socket:///a%20b?virtual_host=2"),
        ("redis+socket://u:p@/a", "unix://u:p@/a?db=0", "redis+socket://u:p@/a?virtual_host=0"),
    ],
)
def test_a_url_is_spelled_as_each_library_takes_it(given: str, redis_py: str, celery: str) -> None:
    assert address.normal(given) == redis_py
    assert address.for_celery(redis_py) == celery
