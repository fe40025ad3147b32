"""A database that the user lends for a run: taken only when empty, and given back as empty."""

import secrets
import sys
from pathlib import Path

import redis

from lab import address
from lab.errors import LabError
from lab.guard import Guard

# For a server of somebody else's to answer, in seconds.
_PATIENCE = 5.0
# What Celery, kombu and Alliance Auth write. Only these are ever removed.
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


def borrow(url: str, guard: Guard) -> str:
    """Claim the database at `url` for this run and return its server's version; `LabError` where it can't be had."""
    shown = address.shown(url)
    try:
        with address.client(url, _PATIENCE) as client:
            keys = client.dbsize()
            version = address.version(client)
            if keys:
                raise LabError(
                    f"The database at {shown} holds {keys} key{'s' if keys > 1 else ''} and is left alone: "
                    "name an empty one, for example another number at the end of the URL."
                )
            # Celery's events and remote control need channels, which a user made with Redis's defaults may not use.
            client.publish(_CLAIM, "")
            token = secrets.token_hex()
            guard.borrow("lab.lent_broker", f"{url}\n{token}")
            if not client.set(_CLAIM, token, nx=True):
                raise LabError(f"Another run uses the database at {shown}: wait for it, or name another number.")
    except redis.AuthenticationError:
        raise LabError(f"The broker at {shown} refuses the password: correct it in REDIS_URL or --broker.") from None
    except redis.exceptions.NoPermissionError as error:
        raise LabError(
            f"The broker at {shown} denies its user what Celery and Alliance Auth need ({first_line(error)}): "
            "allow all keys, channels and commands but the dangerous ones, and INFO (~* &* +@all -@dangerous +info)."
        ) from None
    except (redis.RedisError, OSError, ValueError) as error:
        raise LabError(f"No broker answers at {shown} ({first_line(error)}): {_remedy(error)}") from None
    return version


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, without a full stop."""
    return (str(error) or repr(error)).splitlines()[0].rstrip(".")


def _remedy(error: Exception) -> str:
    if "certificate verify failed" in str(error):
        return "name the file of the authority that signed its certificate with ?ssl_ca_certs=PATH in the URL."
    return "start it, or correct the URL, or use --broker embedded."


def wipe(client: redis.Redis) -> None:
    """Remove from a borrowed database the keys that this stack writes, and no other."""
    for key in client.scan_iter(count=1000):
        if (key.startswith(_OURS) and key != _CLAIM.encode()) or b".reply.celery.pidbox" in key:
            client.delete(key)


def give_back(url: str, token: str) -> bool:
    """Leave a database that was claimed with `token` as empty as it was found; return whether its server let us."""
    try:
        with address.client(url, _PATIENCE) as client:
            if client.get(_CLAIM) in (None, token.encode()):
                wipe(client)
                client.delete(_CLAIM)
    except redis.RedisError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(not give_back(*Path(sys.argv[1]).read_text().splitlines()))
