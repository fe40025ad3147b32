"""Which figure is drawn from which claim's events, and how."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lab import figure

from .proof import Claim


@dataclass(frozen=True)
class Recipe:
    """A figure: the claims it is drawn from, and the function that draws it."""

    claims: tuple[str, ...]
    draw: Callable[..., figure.Figure]


def _ran(claim: Claim, name: str) -> list[dict[str, Any]]:
    """Return the runs of the tasks called `name` that have started and ended, in the order of their start."""
    found = [run for run in claim.runs if run["name"] == name and "started" in run and "ended" in run]
    if not found:
        raise ValueError(f"no run of {name} in {claim.test}")
    return found


def chain_against_loop(chain: Claim, loop: Claim) -> figure.Figure:
    """The same tasks, once in a chain and once in a loop: what ran when, by lanes."""
    bars = []
    ran = []
    for group, claim in (("a loop of .delay()", loop), ("a chain", chain)):
        # The loop's claim runs a second loop, whose tasks it holds.
        found = _ran(claim, "chains.tasks.update_corporation")[:6]
        began = found[0]["started"]
        for number, run in enumerate(found, 1):
            kind = "one" if claim is chain else "two"
            bars.append(figure.Bar(group, str(number), run["started"] - began, run["ended"] - began, kind))
        ran.append(found)
    looped, chained = ran
    first_end = min(run["ended"] for run in looped)
    return figure.timeline(bars).with_values(
        count=len(chained),
        seconds=f"{statistics.median(run['ended'] - run['started'] for run in chained):.2f}",
        together=sum(run["started"] < first_end for run in looped),
    )


def ten_priorities(claim: Claim) -> figure.Figure:
    """The order in which tasks of all priorities were sent, and that in which they ran."""
    orders = [claim.data[key] for key in ("sent", "ran")]
    sent, ran = ([f"priority {number}" for number in order] for order in orders)
    kinds = {f"priority {number}": "two" if number < 5 else "three" if number > 5 else "one" for number in range(10)}
    return figure.order(sent, ran, ("sent", "ran"), kinds).with_values(
        count=len(sent), **{key: ", ".join(map(str, claim.data[key])) for key in ("sent", "ran")}
    )


def starvation(claim: Claim) -> figure.Figure:
    """A steady flow of urgent tasks, and what waits behind it."""
    bars = []
    priorities = claim.data["priorities"]
    found = [(priorities[name], run) for name in priorities for run in _ran(claim, name)]
    began = min(run["started"] for _, run in found)
    high, low = min(priorities.values()), max(priorities.values())
    late = [run["started"] for priority, run in found if priority == low]
    for priority, run in sorted(found, key=lambda pair: (pair[0], pair[1]["started"])):
        kind = "one" if priority == high else "two"
        group = f"priority {priority}"
        if priority == low:
            bars.append(figure.Bar(group, "", 0, run["started"] - began, "wait"))
        bars.append(figure.Bar(group, "", run["started"] - began, run["ended"] - began, kind))
    legend = [("one", f"runs, priority {high}"), ("two", f"runs, priority {low}")]
    return figure.timeline(bars, legend=legend).with_values(
        high=high,
        low=low,
        late=len(late),
        before=sum(run["started"] < min(late) for priority, run in found if priority == high),
    )


def scatter(claim: Claim) -> figure.Figure:
    """Starts with and without a countdown."""
    data = claim.data["scatter"]
    series = {"in a loop": data["at once"], "scattered": data["scattered"]}
    return figure.staircase(series, "seconds", "started").with_values(
        count=len(data["scattered"]), loop=f"{max(data['at once']):.1f}", scattered=f"{max(data['scattered']):.1f}"
    )


def eta_limit(claim: Claim) -> figure.Figure:
    """More countdowns than a worker holds: when it fetched them, when they started, and when an urgent task did."""
    data = claim.data["eta_limit"]
    series = {"fetched": [pair[0] for pair in data["held"]], "started": [pair[1] for pair in data["held"]]}
    sent, started = data["urgent"]
    marks = [(sent, "urgent task sent"), (started, "urgent task starts")]
    return figure.staircase(series, "seconds", "tasks", marks).with_values(
        fetched=sum(at < sent for at in series["fetched"]), run=sum(at < started for at in series["started"])
    )


def rate_limit_staircase(claim: Claim) -> figure.Figure:
    """Tasks with a rate limit that workers started side by side: those of one of them, and of ever more together."""
    data = claim.data["rate_limit_staircase"]
    names = {f"{count} worker{'s' if count != '1' else ''}": starts for count, starts in data.items()}
    started = [f"{name} {len(starts)} tasks in {max(starts):.1f} s" for name, starts in names.items()]
    return figure.staircase(names, "seconds", "started").with_values(started=", ".join(started))


def installs(claim: Claim) -> figure.Figure:
    """The load of many installs on one service, minute by minute."""
    hourly, by_hand, levelled = (claim.data["installs"][name] for name in ("on the hour", "by hand", "apply_offset"))
    series = {"on the hour": hourly, "by hand": by_hand, "apply_offset": levelled}
    return figure.bars(series, "minute of the hour", "installs that call in this minute").with_values(
        installs=sum(levelled),
        hourly=max(hourly),
        hour=hourly.index(max(hourly)),
        hand=max(by_hand),
        minute=by_hand.index(max(by_hand)),
        mean=round(statistics.mean(levelled)),
        most=max(levelled),
    )


def accepted_and_rejected(claim: Claim) -> figure.Figure:
    """Starts of a QueueOnce task: those that were accepted waited and ran, the others were rejected."""
    accepted = _ran(claim, claim.data["task"])
    began = accepted[0]["sent"]
    coming = iter(accepted)
    bars = []
    for number, attempt in enumerate(claim.data["attempts"], 1):
        group = f"start {number}"
        if attempt["accepted"]:
            run = next(coming)
            sent, started, ended = (run[what] - began for what in ("sent", "started", "ended"))
            bars.append(figure.Bar(group, "waits", sent, started, "wait"))
            bars.append(figure.Bar(group, "runs", started, ended, "one", "accepted"))
        else:
            at = attempt["at"] - began
            bars.append(figure.Bar(group, "", at, at + 0.005, "two", "rejected"))
    attempts = [attempt["accepted"] for attempt in claim.data["attempts"]]
    legend = [("one", "accepted: waits, then runs"), ("two", "rejected")]
    return figure.timeline(bars, legend=legend).with_values(attempts=len(attempts), rejected=attempts.count(False))


FIGURES: dict[str, Recipe] = {
    "chain_against_loop": Recipe(
        (
            "chains/test_a_chain_runs_its_links_in_order_one_at_a_time",
            "chains/test_a_loop_of_delay_runs_five_at_once",
        ),
        chain_against_loop,
    ),
    "ten_priorities": Recipe(("priorities/test_zero_runs_first_and_nine_last",), ten_priorities),
    "starvation": Recipe(("priorities/test_a_steady_flow_of_priority_one_starves_nine",), starvation),
    "scatter": Recipe(("smoothing/test_a_scatter_takes_its_time_and_a_loop_does_not",), scatter),
    "eta_limit": Recipe(("smoothing/test_an_urgent_task_waits_until_all_hundred_held_countdowns_have_run",), eta_limit),
    "rate_limit_staircase": Recipe(("smoothing/test_each_worker_keeps_a_rate_limit_of_its_own",), rate_limit_staircase),
    "installs": Recipe(("smoothing/test_a_minute_chosen_by_hand_moves_the_peak_and_an_offset_levels_it",), installs),
    "accepted_and_rejected": Recipe(
        ("queue_once/test_with_two_workers_too_a_start_is_rejected_until_the_one_before_has_ended",),
        accepted_and_rejected,
    ),
}
