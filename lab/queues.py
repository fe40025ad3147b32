"""How Celery's queues stand in Redis."""

import redis


def queue_keys(client: redis.Redis) -> list[str]:
    r"""Return the Redis lists that are Celery's queues: `NAME` for priority 0, `NAME\x06\x16N` for the others."""
    # Replies to remote control wait in lists too; nobody may have fetched the last of them.
    return [key.decode() for key in client.scan_iter(_type="list", count=1000) if b"pidbox" not in key]
