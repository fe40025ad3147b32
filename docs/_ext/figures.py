"""Which figure is drawn from which claim's events, and how."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from . import svg


@dataclass(frozen=True)
class Recipe:
    """A figure: the claims it is drawn from, and the function that draws it."""

    claims: tuple[str, ...]
    draw: Callable[..., svg.Figure]


FIGURES: dict[str, Recipe] = {}


def runs(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return each task of a claim with `name`, `args`, `worker` and its instants, in the order of their sending."""
    found: dict[int, dict[str, Any]] = {}
    for event in events:
        if not event["type"].startswith("task-"):
            continue
        run = found.setdefault(event["id"], {"name": "", "args": "", "worker": ""})
        kind = event["type"].removeprefix("task-")
        for key in ("name", "args", "kwargs", "eta"):
            run[key] = event.get(key) or run.get(key, "")
        if kind != "sent":
            run["worker"] = event.get("worker", "")
        run.setdefault("ended" if kind in ("succeeded", "failed", "rejected", "revoked") else kind, event["at"])
    return list(found.values())
