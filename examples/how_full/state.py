import json
import time
from datetime import UTC, datetime

from celery import current_app
from django.core.cache import cache

QUEUES = ("celery", "services")


def messages():
    """Return what waits in Redis, by queue and priority, and the headers of what workers have taken: one instant."""
    lists = [(queue, priority) for queue in QUEUES for priority in range(10)]
    with current_app.connection_for_read() as connection:
        channel = connection.default_channel
        with channel.client.pipeline() as pipe:
            for queue, priority in lists:
                name = f"{queue}{channel.sep}{priority}" if priority else queue
                pipe.llen(name)
                pipe.lindex(name, -1)
            pipe.hvals("unacked")
            *found, taken = pipe.execute()
    waiting = [
        {"queue": queue, "priority": priority, "count": count, "seconds": age(message)}
        for (queue, priority), count, message in zip(lists, found[::2], found[1::2], strict=True)
        if count
    ]
    return waiting, [json.loads(message)[0]["headers"] for message in taken]


def age(message):
    """Return for how many seconds a message has waited; None where its sender did not note the time."""
    sent_at = json.loads(message)["headers"].get("sent_at") if message else None
    return sent_at and round(time.time() - sent_at)


def workers(wait):
    """Return what each worker runs, as far as it answers within `wait` seconds, and which ones do not answer."""
    with current_app.connection_for_read() as connection:
        table = connection.default_channel.get_table("celery.pidbox")
    known = {mailbox.removesuffix(".celery.pidbox") for *_, mailbox in table}
    # With `limit` the last answer ends the wait.
    answers = current_app.control.inspect(timeout=wait, limit=len(known)).active() if known else None
    running = {node: {task["id"]: task["name"] for task in tasks} for node, tasks in (answers or {}).items()}
    return running, sorted(known - running.keys())


def state(wait=3):
    """Return how full the queues are, what runs, and what went wrong, as JSON can hold it."""
    waiting, taken = messages()
    running, silent = workers(wait)
    begun = {task for tasks in running.values() for task in tasks}
    rest = [headers for headers in taken if headers["id"] not in begun]
    now = datetime.now(UTC)
    due = [headers for headers in rest if not headers["eta"] or datetime.fromisoformat(headers["eta"]) < now]
    failed = sorted(cache.iter_keys("how_full:failed:*"))
    return {
        "waiting": waiting,
        "held": len(due),
        "scheduled": len(rest) - len(due),
        "running": {node: sorted(tasks.values()) for node, tasks in sorted(running.items())},
        "silent": silent,
        "locks": sum(1 for _ in cache.iter_keys("qo_*")),
        "failed": {key.removeprefix("how_full:failed:"): cache.get(key) for key in failed},
    }
