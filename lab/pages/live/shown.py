"""What a live page shows beside the lines: what the broker holds, and where each task of a run was."""

import json
from typing import Any

import redis

from lab import figure
from lab.events import TaskRun
from lab.queues import queue_keys

# A timeline of more tasks could not be read.
_DRAWN = 30
_GROUPS = ("in the queue", "held by the worker", "runs in a thread")


def held(client: redis.Redis) -> dict[str, Any]:
    """Return what the broker's database holds: messages per priority, taken, scheduled, QueueOnce's locks."""
    waiting: dict[str, int] = {}
    for key in queue_keys(client):
        name, _, priority = key.partition("\x06\x16")
        if name == "celery":
            waiting[priority or "0"] = int(client.llen(key))
    scheduled = [bool(json.loads(raw)[0].get("headers", {}).get("eta")) for raw in client.hvals("unacked")]
    locks = sorted(key.decode().split(":", 2)[2] for key in client.scan_iter(match=":1:qo_*"))
    return {"waiting": waiting, "taken": scheduled.count(False), "scheduled": scheduled.count(True), "locks": locks}


def timeline(runs: list[TaskRun], name: str, seconds: float) -> str:
    """Return the figure of what waited and what ran when; empty where no task was seen to start."""
    ran = [task for task in runs if task.started is not None]
    if not ran:
        return ""
    bars = []
    for number, task in enumerate(ran[:_DRAWN], 1):
        label = f"{number} {task.name.rpartition('.')[2]}{task.args}"
        sent, started = task.sent or 0.0, task.started or 0.0
        received = min(task.received or started, started)
        bars.append(figure.Bar(_GROUPS[0], label, sent, received, "wait"))
        bars.append(figure.Bar(_GROUPS[1], label, received, started, "three"))
        bars.append(figure.Bar(_GROUPS[2], label, started, task.ended or seconds))
    part = f"The first {_DRAWN} of {len(ran)} tasks" if len(ran) > _DRAWN else f"{len(ran)} task{'s' * (len(ran) > 1)}"
    bars.sort(key=lambda bar: _GROUPS.index(bar.group))
    return figure.timeline(bars).markup(name, f"{part} of your run: where each was, and when. The table has the names.")
