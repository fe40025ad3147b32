"""What a browser's events have in common with those of the real run: tasks, ends, concurrency, duration."""

import ast
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from lab.paths import EVIDENCE, EXAMPLES, chapters

# Durations that differ by no more are equal.
TOLERANCE = 0.25
# Ids of tasks; and keys of rows, which depend on what a claim has laid out before.
_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}|\b\d\b")
# Such a claim does more than to play one call on one worker as supervisor.conf starts it.
_MORE = re.compile(
    r"for .*demo|paused|kill|beat|WorkerSpec|web|delay\(|apply_async|define|redefine|settings|stage\(|concurrency|"
    # These send more by themselves, or play the call again.
    r"\bstart\(|assert_nothing_was_sent|for count in"
)
# Shorter tasks may or may not overlap.
_LONG = 0.15
_EDGE = 0.03


@dataclass(frozen=True)
class Play:
    """A claim that plays one call, and the events of its real run."""

    claim: str
    call: str
    events: list[dict[str, Any]]


@dataclass
class _Task:
    name: str = ""
    args: str = ""
    started: float | None = None
    ended: float | None = None
    state: str = "sent"


def plays() -> Iterator[Play]:
    """Yield the claims that can be compared: they play one call, and all that it sent has ended."""
    recorded = json.loads(EVIDENCE.read_text())["chapters"]
    for chapter in chapters():
        text = (EXAMPLES / chapter / f"test_{chapter}.py").read_text()
        claims = {claim["test"]: claim for claim in recorded[chapter]["claims"]}
        for node in ast.parse(text).body:
            if not isinstance(node, ast.FunctionDef) or node.name not in claims:
                continue
            first = node.decorator_list[0].lineno if node.decorator_list else node.lineno
            body = "\n".join(text.splitlines()[first - 1 : node.end_lineno])
            demos = re.findall(r'\.demo\((?:"([\w.]+)")?\)', body)
            tasks = _tasks(claims[node.name]["events"])
            if len(demos) != 1 or _MORE.search(body.rpartition('"""')[2]) or not tasks:
                continue
            if all(task.ended is not None for task in tasks):
                call = f"{chapter}/{demos[0] or 'demo.py'}"
                yield Play(f"{chapter}/{node.name}", call, claims[node.name]["events"])


def difference(real: list[dict[str, Any]], browser: list[dict[str, Any]]) -> str:
    """Return what is not equal; nothing where all is."""
    one, other = _tasks(real), _tasks(browser)
    if _ends(one) != _ends(other):
        return f"tasks and ends: {sorted(set(_ends(one)) ^ set(_ends(other)))[:4]}"
    if _overlap(one) != _overlap(other):
        return f"concurrency: {_overlap(one)} in reality, {_overlap(other)} in the browser"
    if abs(_span(one) - _span(other)) > TOLERANCE:
        return f"duration: {_span(one):.2f} s in reality, {_span(other):.2f} s in the browser"
    return ""


def _tasks(events: list[dict[str, Any]]) -> list[_Task]:
    found: dict[Any, _Task] = {}
    for event in events:
        if not event["type"].startswith("task-"):
            continue
        task = found.setdefault(event["id"], _Task())
        task.name, task.args = event.get("name") or task.name, event.get("args") or task.args
        kind = event["type"].removeprefix("task-")
        task.state = kind if kind != "sent" else task.state
        if kind == "started" and task.started is None:
            task.started = event["at"]
        if kind in ("succeeded", "failed", "rejected", "revoked"):
            task.ended = event["at"]
    return list(found.values())


def _ends(tasks: list[_Task]) -> list[tuple[str, str, str]]:
    return sorted((task.name, re.sub(r"\W+", " ", _ID.sub("ID", task.args)).strip(), task.state) for task in tasks)


def _overlap(tasks: list[_Task]) -> int:
    changes: list[tuple[float, int]] = []
    for task in tasks:
        if task.started is not None and task.ended is not None and task.ended - task.started > _LONG:
            changes += [(task.started + _EDGE, 1), (task.ended - _EDGE, -1)]
    most = now = 0
    for _, change in sorted(changes):
        now += change
        most = max(most, now)
    return most


def _span(tasks: list[_Task]) -> float:
    starts = [task.started for task in tasks if task.started is not None]
    return max((task.ended or 0.0 for task in tasks), default=0.0) - min(starts, default=0.0)
