"""The lab's settings, on the Redis in memory and a SQLite that gives way."""

from lab.settings import *  # noqa: F403

from .standins import database, memory

DATABASES["default"]["OPTIONS"] |= {"timeout": 0, "factory": database.Connection}  # noqa: F405
CACHES["default"].setdefault("OPTIONS", {})["CONNECTION_POOL_KWARGS"] = {  # noqa: F405
    "connection_class": memory.Connection
}
