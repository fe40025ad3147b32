"""What a call's run in a browser has in common with its run on real parts: tasks, ends, concurrency, duration."""

import re
from typing import Any

# Durations that differ by no more seconds are equal.
TOLERANCE = 0.25
# Tasks of fewer seconds may overlap or not: the machine decides.
_LONG = 0.15
# How far apart two tasks may start and still begin together, and end and begin at once.
_EDGE = 0.03
# Ids of tasks differ each time.
_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}")

Runs = list[dict[str, Any]]


def summary(runs: Runs) -> dict[str, Any]:
    """Return of a call's tasks what is the same each time it runs: how each ended, how many at once, for how long."""
    return {"tasks": _ends(runs), "at once": _at_once(runs), "seconds": round(_span(runs), 2)}


def difference(real: dict[str, Any], browser: dict[str, Any]) -> str:
    """Return what is not equal of two summaries; nothing where all is."""
    if real["tasks"] != browser["tasks"]:
        other = [task for task in browser["tasks"] if task not in real["tasks"]]
        return f"its tasks are {(other or browser['tasks'])[:3]}, and in reality {real['tasks'][:3]}"
    if real["at once"] != browser["at once"]:
        return f"{browser['at once']} of its tasks run at once, and in reality {real['at once']}"
    if abs(real["seconds"] - browser["seconds"]) > TOLERANCE:
        return f"its tasks take {browser['seconds']} s, and in reality {real['seconds']} s"
    return ""


def _ends(runs: Runs) -> list[str]:
    """Return each task with its arguments, and how it ended."""
    return sorted(
        # A sender and a worker write the same arguments in other brackets.
        re.sub(r"\W+", " ", _ID.sub("ID", f"{run['name']} {run.get('args')} {run.get('kwargs')} {run['state']}"))
        for run in runs
    )


def _at_once(runs: Runs) -> int:
    """Return how many tasks ran at once, at most."""
    spans = [(run["started"], run["ended"]) for run in runs if "started" in run and "ended" in run]
    long = [(began, ended) for began, ended in spans if ended - began > _LONG]
    return max((sum(a <= at + _EDGE < b - _EDGE for a, b in long) for at, _ in long), default=0)


def _span(runs: Runs) -> float:
    starts = [run["started"] for run in runs if "started" in run]
    return max((run.get("ended", 0.0) for run in runs), default=0.0) - min(starts, default=0.0)
