"""Where a broker is: its URL, as redis-py and as Celery spell it, and a client that does not wait for long.

Celery takes from a URL no more than redis-py, and of a Unix socket another spelling. So a URL that is given is brought
into one form, which redis-py and Django's cache take as it is, and Celery in its own spelling.
"""

from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from lab.errors import LabError

_FORMS = "redis://USER:PASSWORD@HOST:PORT/NUMBER, rediss://… or unix:///PATH?db=NUMBER"
_SOCKETS = {"unix", "redis+socket"}
# redis-py takes more of them, Celery no other.
_TLS = {"ssl_ca_certs", "ssl_cert_reqs", "ssl_certfile", "ssl_check_hostname", "ssl_keyfile"}
_CHECKS = {"cert_none": "none", "cert_optional": "optional", "cert_required": "required"}


def shown(url: str) -> str:
    """Return `url` without user and password, also where it is none that can be read."""
    scheme, separator, rest = url.partition("://")
    return scheme + separator + rest.rpartition("@")[2]


def normal(url: str) -> str:
    """Return `url` as redis-py spells it, what is special in it in percent form; `LabError` where that can't be.

    Without `ssl_cert_reqs`, rediss:// asks for a certificate that is valid: Celery alone would ask for none.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
        if "@" in parts.path + parts.query + parts.fragment:
            # A password with a slash: what comes before that would pass for a host, and be told.
            raise ValueError
    except ValueError:
        raise LabError(
            f"The broker's URL {shown(url)} can't be read: write what is special in it in percent form, such as %2F "
            "for a slash in the password, and %40 for an @ in a path."
        ) from None
    if parts.scheme not in {"redis", "rediss", *_SOCKETS}:
        raise LabError(f"{shown(url)} is no broker URL this project knows: give one like {_FORMS}.")
    query = dict(parse_qsl(parts.query))
    socket = parts.scheme in _SOCKETS
    number = query.pop("db", "") or query.pop("virtual_host", "") or (parts.path.strip("/") if not socket else "")
    unknown = sorted(query.keys() - (_TLS if parts.scheme == "rediss" else set()))
    if unknown:
        raise LabError(
            f"Celery does not take {unknown[0]} in the URL {shown(url)}: leave it out. "
            f"With rediss:// it takes {', '.join(sorted(_TLS))}."
        )
    if number and not number.isdecimal():
        raise LabError(f"The database in {shown(url)} is no number: give one like {_FORMS}.")
    user = "".join(
        [
            quote(unquote(parts.username or ""), safe=""),
            f":{quote(unquote(parts.password), safe='')}" if parts.password else "",
            "@" if parts.username or parts.password else "",
        ]
    )
    if socket:
        return f"unix://{user}{quote(unquote(parts.path))}?db={number or 0}"
    if parts.scheme == "rediss":
        checks = query.get("ssl_cert_reqs", "required").lower()
        query["ssl_cert_reqs"] = _CHECKS.get(checks, checks)
    place = (f"[{host}]" if ":" in host else host) + (f":{port}" if port else "")
    return f"{parts.scheme}://{user}{place}/{number or 0}" + (f"?{urlencode(query)}" if query else "")


def for_celery(url: str) -> str:
    """Return a URL that `normal` returned as Celery spells it."""
    if not url.startswith("unix://"):
        return url
    place, _, number = url.removeprefix("unix://").partition("?db=")
    return f"redis+socket://{place}?virtual_host={number}"


def local(port: int, password: str) -> str:
    """Return the URL of the first database of a server on this machine."""
    return f"redis://:{password}@127.0.0.1:{port}/0"


def client(url: str, patience: float) -> redis.Redis:
    """Return a client that waits `patience` seconds for each answer, and does not try again."""
    # Left to itself, redis-py tries for seconds, even where a password is missing.
    options = {"socket_connect_timeout": patience, "socket_timeout": patience, "retry": Retry(NoBackoff(), 0)}
    found: redis.Redis = redis.Redis.from_url(url, **options)
    return found


def version(client: redis.Redis) -> str:
    """Return what the server is, and its version."""
    info = client.info("server")
    if "valkey_version" in info:
        return f"Valkey {info['valkey_version']}"
    return f"Redis {info['redis_version']}"
