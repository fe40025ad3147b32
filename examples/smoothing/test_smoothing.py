"""What is said about offsets, subsets, countdowns and rate limits."""

import json
import random
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import chain, pairwise
from random import Random

import pytest
from allianceauth.crontab.models import CronOffset, random_default
from allianceauth.crontab.schedulers import OffsetDatabaseScheduler
from allianceauth.crontab.utils import offset_cron
from allianceauth.eveonline.models import EveCorporationInfo
from celery import current_app
from celery.schedules import crontab, schedule
from django.core.cache import cache
from django.db import transaction
from django_celery_beat.models import CrontabSchedule, PeriodicTask

from smoothing import tasks

UPDATE = "smoothing.tasks.update_corporation"
HISTORY = "smoothing.tasks.update_corporation_history"
TRICKLE = "smoothing.tasks.trickle_corporations"
HAND = "smoothing_scatter_corporations"
SUBSET = "smoothing_update_subset"

# Alliance Auth's transport options, to which a break adds a visibility timeout.
TRANSPORT = {"priority_steps": list(range(10)), "queue_order_strategy": "priority"}
# An import of a demo, and what a break puts in its place: no offset, one that carries over, another drawn number.
OFFSET = "from allianceauth.crontab.utils import offset_cron\n"
NO_OFFSET = "offset_cron = lambda given: given\n"
CARRYING = 'offset_cron = lambda given: crontab(10, 3, day_of_week="tue", day_of_month=2, month_of_year="*/3")\n'
HALF = f"{OFFSET}from allianceauth.crontab.models import CronOffset\nCronOffset.objects.update(minute=0.5, hour=0.5)\n"
# With this seed three draws of 1 to 600 seconds are others than those of 2 to 600 and of 1 to 601.
SEED = 2292
# Celery counts a pace with one clock, and events tell of another.
ROUNDING = 0.01


def make_corporations(count, first=98000001):
    EveCorporationInfo.objects.bulk_create(
        EveCorporationInfo(corporation_id=first + number, corporation_name=f"Corporation {number}", member_count=1)
        for number in range(count)
    )


def set_offset(minute=0.0, hour=0.0):
    """Give this installation numbers of our choice; Alliance Auth draws them at random."""
    everything = {"day_of_month": 0.5, "month_of_year": 0.5, "day_of_week": 0.5}
    CronOffset.objects.update_or_create(defaults={"minute": minute, "hour": hour, **everything})


def fields(given):
    """Return a crontab as one writes it."""
    names = ("minute", "hour", "day_of_month", "month_of_year", "day_of_week")
    return " ".join(str(getattr(given, f"_orig_{name}")) for name in names)


def in_database(name):
    return fields(PeriodicTask.objects.get(name=name).crontab.schedule)


def messages(rig):
    """Return the headers of every message that waits in Redis."""
    return [json.loads(raw)["headers"] for key in rig.waiting() for raw in rig.redis.lrange(key, 0, -1)]


def seconds_of(eta):
    return datetime.fromisoformat(eta).timestamp()


def starts(rig):
    return [run.started for run in rig.runs(UPDATE) if run.started is not None]


def started(rig):
    """Return how many starts were told of: a task may start twice."""
    return sum(event["type"] == "task-started" for event in rig.events)


def receipts(rig, ids=None):
    """Return the event of each receipt by a worker, or of those of the tasks with `ids`."""
    return [e for e in rig.events if e["type"] == "task-received" and (ids is None or e["uuid"] in ids)]


def received(rig, count):
    """Wait until workers have fetched `count` messages."""
    rig.wait(lambda: len(receipts(rig)) >= count, f"the receipt of {count} messages")


def due_times(rig):
    """Return when each task with a countdown was due, by its id, in seconds since the claim began as a run's are."""
    runs = {run.id: run for run in rig.runs()}
    found = {}
    for event in receipts(rig):
        if event["eta"]:
            found[event["uuid"]] = seconds_of(event["eta"]) - event["timestamp"] + runs[event["uuid"]].received
    return found


def waiting_for_the_limit(rig):
    return sum(run.received is not None and run.started is None for run in rig.runs(HISTORY))


def none_held(rig):
    """Return the ids of the limited tasks that a worker has fetched, once all of them have ended."""
    fetched = [run for run in rig.runs(HISTORY) if run.received is not None]
    return {run.id for run in fetched} if all(run.over for run in fetched) else None


def prefetch(worker):
    """Ask a worker how many messages it may hold."""
    stats = current_app.control.inspect(destination=[worker.node], limit=1, timeout=5).stats()
    return stats[worker.node]["prefetch_count"]


def held_or_late(rig, ids, until):
    """Return whether a worker has fetched the tasks with `ids`, or it is too late for that."""
    return len(receipts(rig, ids)) == len(ids) or time.monotonic() > until


def urgent_behind(rig, delays, others=()):
    """Send countdown tasks and, when the worker holds all it will of them, an urgent task; return their ids.

    They are due `delays` seconds after all this is done: a machine that takes longer gets more time. The first of
    them are `others`, names of tasks and their number of retries.
    """
    names = [*others, *[(UPDATE, 0)] * (len(delays) - len(others))]
    ahead = 0.6
    for _ in range(4):
        began = time.monotonic()
        due = datetime.now(UTC) + timedelta(seconds=ahead)
        ids = []
        for number, ((name, retries), delay) in enumerate(zip(names, delays, strict=True)):
            eta = due + timedelta(seconds=delay)
            ids.append(current_app.send_task(name, [number], priority=7, eta=eta, retries=retries).id)
        rig.wait(partial(held_or_late, rig, ids[:100], began + ahead), "the receipt of what can be held")
        urgent = tasks.update_corporation.apply_async(args=[98000001], priority=0).id
        took = time.monotonic() - began
        rig.settle(timeout=30)
        if took < ahead:
            break
        ahead = 2 * took
    return ids, urgent


def make_older(rig, seconds):
    """Make what workers hold look `seconds` older to Redis than it is."""
    for tag in rig.redis.zrange("unacked_index", 0, -1):
        rig.redis.zincrby("unacked_index", -seconds, tag)


def ages(rig):
    """Return for how many seconds each message has been held, as it looks to Redis."""
    return [time.time() - since for _, since in rig.redis.zrange("unacked_index", 0, -1, withscores=True)]


def sweep():
    """Put back what nobody has acknowledged within the visibility timeout, as each worker does now and then."""
    with current_app.connection_for_read() as connection:
        connection.default_channel.qos.restore_visible(interval=1)


# ---- offsets


def beat_reads(**schedule):
    """Let Alliance Auth's scheduler store the entries `schedule` as it does when beat starts."""
    OffsetDatabaseScheduler(app=current_app, lazy=True).update_from_dict(schedule)


@pytest.mark.workers
@pytest.mark.broken_by(
    r"the database says",
    file="local.py",
    old="crontab(minute=28),",
    new='crontab(minute=28),\n    "apply_offset": True,',
)
def test_an_entry_without_apply_offset_keeps_its_minute(rig):
    """Beat stores an entry without `apply_offset` as `local.py` writes it, whatever the installation's offset."""
    set_offset(minute=0.25, hour=0.25)
    beat_reads(**{HAND: dict(current_app.conf.beat_schedule[HAND])})
    assert in_database(HAND) == "28 * * * *", f"the database says {in_database(HAND)}"
    assert PeriodicTask.objects.get(name=HAND).task == "smoothing.tasks.scatter_corporations"


@pytest.mark.workers
@pytest.mark.broken_by(r"the database says", file="local.py", old='"apply_offset": True', new='"apply_offset": False')
def test_the_offset_outlives_a_restart_of_beat(rig):
    """With `apply_offset` beat stores the shifted crontab, and the same one again after a restart."""
    beat_reads(**{SUBSET: dict(current_app.conf.beat_schedule[SUBSET])})
    first = in_database(SUBSET)
    PeriodicTask.objects.all().delete()
    beat = rig.start_beat()
    # Beat stores the entries in the order of local.py.
    rig.wait(lambda: PeriodicTask.objects.filter(name=HAND).exists(), "beat's last entry")
    # Told to stop while it still starts, Celery's beat builds its schedule once more, and takes its time.
    rig.kill(beat)
    shift = round(60 * CronOffset.get_solo().minute)
    expected = ",".join(str(minute) for minute in sorted((minute + shift) % 60 for minute in range(0, 60, 6)))
    rig.same([first, in_database(SUBSET)], [f"{expected} * * * *"] * 2, "the database says {}")
    rig.same(PeriodicTask.objects.get(name=SUBSET).task, "smoothing.tasks.update_subset", "beat would send {!r}")


@pytest.mark.workers
@pytest.mark.broken_by(r"the database says", file="local.py", old='"apply_offset": True', new='"apply_offset": False')
def test_the_offset_reaches_entries_that_are_in_the_database_already(rig):
    """An entry that is in the database already, even edited by hand, gets the shifted crontab when beat reads it.

    No message is sent for that.
    """
    set_offset(minute=0.05)
    edited = CrontabSchedule.objects.create(minute="59", hour="12")
    PeriodicTask.objects.create(name=SUBSET, task="smoothing.tasks.update_subset", crontab=edited)
    beat_reads(**{SUBSET: dict(current_app.conf.beat_schedule[SUBSET])})
    assert in_database(SUBSET) == "3,9,15,21,27,33,39,45,51,57 * * * *", f"the database says {in_database(SUBSET)}"
    assert rig.waiting() == {}, f"{rig.waiting()} waits"


@pytest.mark.workers
@pytest.mark.broken_by(r"stored as", file="local.py", old='"apply_offset": True', new='"apply_offset": False')
def test_the_offset_leaves_an_interval_alone(rig):
    """`apply_offset` shifts crontabs only: the same entry with a plain interval is stored as it was written."""
    set_offset(minute=0.05)
    entry = dict(current_app.conf.beat_schedule[SUBSET])
    beat_reads(as_crontab=dict(entry), as_interval={**entry, "schedule": schedule(timedelta(minutes=6))})
    interval = PeriodicTask.objects.get(name="as_interval")
    rig.same(
        [in_database("as_crontab").split()[0], interval.crontab, str(interval.interval)],
        ["3,9,15,21,27,33,39,45,51,57", None, "every 360 seconds"],
        "stored as {}",
    )


@pytest.mark.workers
@pytest.mark.broken_by(r"became", file="demo_offset.py", old=OFFSET, new=NO_OFFSET)
def test_the_offset_shifts_minutes_and_hours(rig, capsys):
    """With offsets of 6 minutes and 5 hours `0 * * * *` becomes `6 * * * *`, `*/30` 6 and 36, `*/4` 1, 5, 9, ….

    A field that is `*` stays `*`.
    """
    set_offset(minute=0.1, hour=0.2)
    rig.demo("demo_offset.py")
    shifted = ("6 * * * *", "6,36 * * * *", "6 1,5,9,13,17,21 * * *")
    expected = [f"<crontab: {one} (m/h/dM/MY/d)>" for one in shifted]
    rig.same(capsys.readouterr().out.splitlines()[:3], expected, "became {}")


@pytest.mark.workers
@pytest.mark.broken_by(r"printed", file="demo_next_runs.py", old=OFFSET, new=NO_OFFSET)
def test_with_an_offset_of_its_own_a_crontab_runs_at_other_hours_of_utc(rig):
    """With offsets of 6 minutes and 5 hours `0 */6 * * *` runs at 5:06, 11:06, 17:06 and 23:06 of UTC.

    What was tried is undone: the installation keeps its offset.
    """
    set_offset(minute=0.5, hour=0.5)
    rig.prints(
        "demo_next_runs.py",
        "<crontab: 6 5,11,17,23 * * * (m/h/dM/MY/d)>\n"
        "Sat 04 Apr 17:06 UTC, 03:06 in Sydney\nSat 04 Apr 23:06 UTC, 09:06 in Sydney\n"
        "Sun 05 Apr 05:06 UTC, 15:06 in Sydney\nSun 05 Apr 11:06 UTC, 21:06 in Sydney\n",
    )
    offset = CronOffset.get_solo()
    assert (offset.minute, offset.hour) == (0.5, 0.5), "the installation's own offset is another now"


@pytest.mark.workers
@pytest.mark.broken_by(r"became", file="demo_offset.py", old=OFFSET, new=CARRYING)
def test_the_offset_moves_no_day_and_carries_nothing(rig, capsys):
    """Days, weekdays and months never move, and nothing is carried: `50 22 1 */3 *` becomes `10 3 1 */3 *`.

    The offsets of that example are 20 minutes and 5 hours, so the job runs 19 hours and 40 minutes earlier on the same
    day; and of two jobs at 22:30 and 22:50 the second becomes the first, at 3:10 and 3:50.
    """
    set_offset(minute=1 / 3, hour=0.2)
    rig.demo("demo_offset.py")
    expected = [f"<crontab: {one} (m/h/dM/MY/d)>" for one in ("10 3 * * mon", "10 3 1 */3 *")]
    rig.same(capsys.readouterr().out.splitlines()[3:], expected, "became {}")
    assert timedelta(hours=22, minutes=50) - timedelta(hours=3, minutes=10) == timedelta(hours=19, minutes=40)
    rig.same(
        [fields(offset_cron(crontab(minute=minute, hour=22))) for minute in (30, 50)],
        ["50 3 * * *", "10 3 * * *"],
        "followers became {}",
    )


@pytest.mark.workers
@pytest.mark.broken_by(r"became", file="demo_offset.py", old=OFFSET, new=HALF)
def test_the_offset_may_be_nothing(rig):
    """A drawn number just below 1 is a whole hour, or a whole day, and so shifts nothing."""
    set_offset(minute=0.999, hour=0.999)
    shifted = rig.demo("demo_offset.py")
    rig.same([fields(shifted[name]) for name in ("hourly", "weekly")], ["0 * * * *", "50 22 * * mon"], "became {}")


def minutes_of(entry):
    """Return the minutes at which an installation runs `entry`, of which beat shifts those with `apply_offset`."""
    given = entry["schedule"]
    return (offset_cron(given) if entry.get("apply_offset") else given).minute


@pytest.mark.workers
@pytest.mark.broken_by(
    r"the busiest minutes",
    file="local.py",
    old="crontab(minute=28),",
    new='crontab(minute=28),\n    "apply_offset": True,',
)
def test_a_minute_chosen_by_hand_moves_the_peak_and_an_offset_levels_it(rig):
    """Of 1,000 installs that copy one hourly line, all 1,000 call in its minute; with `apply_offset` at most 35 do.

    Each install draws its offset as Alliance Auth does, and no minute of the hour is left out.
    """
    by_hand = current_app.conf.beat_schedule[HAND]
    entries = {
        "on the hour": {**by_hand, "schedule": crontab(minute=0)},
        "by hand": by_hand,
        "apply_offset": {**by_hand, "apply_offset": True},
    }
    loads = {name: Counter() for name in entries}
    random.seed(1)
    with transaction.atomic():
        set_offset()
        for _ in range(1000):
            CronOffset.objects.update(minute=random_default(), hour=random_default())
            for name, entry in entries.items():
                loads[name].update(minutes_of(entry))
    # What beat stores for the last of them is what was counted.
    beat_reads(**{name: dict(entry) for name, entry in entries.items()})
    rig.same(
        {name: PeriodicTask.objects.get(name=name).crontab.schedule.minute for name in entries},
        {name: minutes_of(entry) for name, entry in entries.items()},
        "beat stored {}",
    )
    busiest = {name: load.most_common(1)[0] for name, load in loads.items()}
    peaks = [busiest["on the hour"], busiest["by hand"]] == [(0, 1000), (28, 1000)]
    levelled = busiest["apply_offset"][1] <= 35 and len(loads["apply_offset"]) == 60
    assert peaks, f"the busiest minutes are {busiest}"
    assert levelled, f"the busiest minutes are {busiest}, of {len(loads['apply_offset'])}"
    (hour, hourly), (minute, hand), (_, most) = busiest.values()
    installs = loads["apply_offset"].total()
    rig.chart(
        "installs",
        "bars",
        [(name, [load[at] for at in range(60)]) for name, load in loads.items()],
        unit="minute of the hour",
        counted="installs that call in this minute",
        values={
            "installs": installs,
            "hourly": hourly,
            "hour": hour,
            "hand": hand,
            "minute": minute,
            "mean": round(installs / 60),
            "most": most,
        },
    )


# ---- countdowns in Redis


@pytest.mark.workers
@pytest.mark.broken_by(r"the countdowns are", file="tasks.py", old="countdown=number * seconds / len(ids),\n", new="")
def test_a_scatter_spreads_its_tasks_over_ten_minutes(rig):
    """A scatter of 60 corporations sends 60 messages at once, due one every ten seconds over the next ten minutes."""
    make_corporations(60)
    began = time.time()
    tasks.scatter_corporations()
    sent = {event["args"]: event["timestamp"] for event in rig.events}
    due = {message["argsrepr"]: seconds_of(message["eta"]) if message["eta"] else began for message in messages(rig)}
    ids = [f"[{98000001 + number}]" for number in range(60)]
    assert sorted(due) == ids, f"the messages are {sorted(due)}"
    # A countdown begins between our call and the moment when its message is told to have been sent.
    even = all(began <= due[one] - 10 * number <= sent[one] for number, one in enumerate(ids))
    assert even, f"the countdowns are {[due[one] - began for one in ids]}"


@pytest.mark.workers
@pytest.mark.broken_by(
    r"messages",
    file="demo_twice.py",
    old="    update_corporation.apply_async(args=[corporation_id])\n",
    new="",
)
def test_calling_apply_async_twice_queues_every_corporation_twice(rig):
    """A plain `apply_async()` beside the one with `countdown` queues every corporation twice, once to run at once.

    The other is due within ten minutes.
    """
    random.seed(SEED)
    began = time.time()
    rig.demo("demo_twice.py")
    took = time.time() - began
    draw = Random(SEED).randint
    queued = Counter((message["argsrepr"], message["eta"] is None) for message in messages(rig))
    rig.same(
        queued,
        {(f"[{98000000 + number}]", now): 1 for number in (1, 2, 3) for now in (True, False)},
        "messages, with whether they run at once: {}",
    )
    due = sorted(
        (message["argsrepr"], seconds_of(message["eta"]) - began) for message in messages(rig) if message["eta"]
    )
    drawn = [(at, draw(1, 600)) for _, at in due]
    assert all(0 <= at - countdown <= took for at, countdown in drawn), f"due after {drawn}"


@pytest.mark.workers
@pytest.mark.broken_by(r"waits in", file="tasks.py", old="args=[first], priority=7", new="args=[first]")
def test_all_that_is_spread_waits_behind_tasks_with_the_default_priority(rig):
    """What the loop, the subset, the scatter and the trickle send has priority 7 and waits behind the default, 5."""
    make_corporations(3)
    tasks.update_all_corporations()
    tasks.update_subset(parts=1)
    tasks.scatter_corporations()
    tasks.trickle_corporations([98000001, 98000002], 600)
    tasks.update_corporation.delay(98000001)
    rig.same(rig.waiting(), {"celery\x06\x165": 1, "celery\x06\x167": 11}, "what is sent waits in {}")


# ---- subsets


@pytest.mark.broken_by(r"updated", file="tasks.py", old='"smoothing_part") % parts', new='"smoothing_part") % 9')
@pytest.mark.broken_by(r"expires", file="tasks.py", old=", timeout=None", new="")
def test_ten_subset_runs_update_every_corporation_once(rig):
    """Ten runs of the subset task update each of 25 corporations exactly once, whichever part's turn it is first.

    The counter never expires.
    """
    make_corporations(25)
    cache.set("smoothing_part", 7)
    for _ in range(10):
        tasks.update_subset.delay()
    rig.settle()
    rig.same(
        Counter(run.args for run in rig.runs(UPDATE)),
        {f"[{98000001 + number}]": 1 for number in range(25)},
        "updated {}",
    )
    cache.delete("smoothing_part")
    tasks.update_subset()
    assert cache.ttl("smoothing_part") is None, f"the counter expires in {cache.ttl('smoothing_part')} s"
    rig.settle()


@pytest.mark.broken_by(
    r"updated",
    file="tasks.py",
    old='F("corporation_id") % parts',
    new='(F("corporation_id") + EveCorporationInfo.objects.count()) % parts',
)
def test_a_corporation_that_leaves_between_two_runs_costs_no_other_its_turn(rig):
    """A corporation deleted between two subset runs costs no other corporation its turn."""
    make_corporations(25)
    for run in range(10):
        tasks.update_subset.delay()
        rig.settle()
        if run == 4:
            gone = rig.runs(UPDATE)[0].args
            EveCorporationInfo.objects.get(corporation_id=int(gone.strip("[]"))).delete()
    rig.same(
        Counter(run.args for run in rig.runs(UPDATE)),
        {f"[{98000001 + number}]": 1 for number in range(25)},
        "updated {}",
    )


@pytest.mark.broken_by(r"updated by one run", file="tasks.py", old=".filter(part=part)", new="")
def test_one_subset_run_updates_its_part_only(rig):
    """One run of the subset task over five parts sends one of five corporations; four more runs send the others."""
    rig.settle(after="demo_subset.py")
    updated = [run.args for run in rig.runs(UPDATE)]
    assert updated == ["[98000001]"], f"updated by one run: {updated}"
    assert len(rig.runs("smoothing.tasks.update_subset")) == 1, "the run was no task's"
    assert rig.logged() == ["INFO Updated corporation 98000001"], f"logged {rig.logged()}"
    for _ in range(4):
        rig.settle(after="demo_subset.py")
    updated = [run.args for run in rig.runs(UPDATE)]
    assert sorted(updated) == [f"[{98000000 + number}]" for number in range(5)], f"updated by five runs: {updated}"


@pytest.mark.broken_by(r"printed '65 of 65", file="demo_slice.py", old="// 10", new="// 10 + 1")
def test_ten_equal_slices_leave_out_the_remainder(rig):
    """Ten slices of a tenth, rounded down, reach 60 of 65 corporations; the last five are never updated."""
    made = rig.prints("demo_slice.py", "60 of 65 updated\n")
    assert set(made["corporations"]) - set(made["updated"]) == set(range(98000061, 98000066))


# ---- countdowns in a worker


@pytest.mark.broken_by(r"started", file="tasks.py", old="countdown=number * seconds / len(ids),\n", new="")
def test_a_scattered_task_never_starts_before_its_time(rig):
    """Of five corporations scattered over one second, each is due a fifth of it after the last; none starts earlier."""
    make_corporations(2, first=98000000)
    rig.settle(after="demo.py")
    (scatter,) = rig.runs("smoothing.tasks.scatter_corporations")
    runs = {run.args: run for run in rig.runs(UPDATE)}
    assert sorted(runs) == [f"[{98000000 + number}]" for number in range(5)], f"started {sorted(runs)}"
    due = due_times(rig)
    for number, (args, run) in enumerate(sorted(runs.items())):
        told = f"{args} was due at {due.get(run.id)}, started at {run.started}"
        assert number == 0 or scatter.received + number / 5 <= due.get(run.id, 0) <= run.sent + number / 5, told
        assert run.started >= due.get(run.id, 0) - ROUNDING, told


@pytest.mark.broken_by(r"after half time", file="tasks.py", old="number * seconds", new="0 * seconds")
def test_a_scatter_takes_its_time_and_a_loop_does_not(rig):
    """None of forty tasks sent in a loop has a time to wait for; scattered over a second, half wait for half of it."""
    make_corporations(40)
    tasks.update_all_corporations.delay()
    rig.settle()
    at_once = starts(rig)
    assert due_times(rig) == {}, "a task of the loop has a countdown"
    tasks.scatter_corporations.delay(seconds=1)
    rig.settle()
    scattered = starts(rig)[40:]
    # The countdowns begin when the task that scatters has started.
    (scatter,) = rig.runs("smoothing.tasks.scatter_corporations")
    rig.same(
        Counter(run.args for run in rig.runs(UPDATE)),
        {f"[{98000001 + number}]": 2 for number in range(40)},
        "updated {}",
    )
    due, runs = due_times(rig), {run.id: run for run in rig.runs(UPDATE)}
    rig.same(
        [run.started for run in runs.values() if run.started < due.get(run.id, 0) - ROUNDING],
        [],
        "started before their time: {}",
    )
    half = sum(at - scatter.received >= 0.5 for at in due.values())
    assert half >= 20, f"{half} of 40 were due after half time"
    loop = [start - at_once[0] for start in at_once]
    spread = [start - scatter.started for start in scattered]
    rig.chart(
        "scatter",
        "staircase",
        [("in a loop", loop), ("scattered", spread)],
        counted="started",
        values={"count": len(spread), "loop": f"{max(loop):.1f}", "scattered": f"{max(spread):.1f}"},
    )


@pytest.mark.broken_by(
    r"held at a time",
    file="tasks.py",
    old="trickle_corporations.apply_async(args=[rest, seconds], priority=7, countdown=seconds)",
    new="[trickle_corporations.apply_async(args=[[one], 0], priority=7, countdown=seconds) for one in rest]",
)
def test_a_trickle_holds_one_countdown_at_a_time(rig):
    """A trickle updates one corporation a step, and the worker never holds more than one countdown of it."""
    rig.settle(after="demo_trickle.py")
    updated = sorted(run.args for run in rig.runs(UPDATE))
    rig.same(updated, [f"[{98000001 + number}]" for number in range(4)], "updated {}")
    trickle = rig.runs(TRICKLE)
    due = due_times(rig)
    # The first step has no countdown.
    until = {step.id: due.get(step.id, step.received) for step in trickle}
    rig.same(
        max(sum(other.received <= run.received < until[other.id] for other in trickle) for run in trickle),
        1,
        "{} held at a time",
    )
    steps = [(until[step.id], until[later.id] - 0.3, later.sent) for step, later in pairwise(trickle)]
    assert len(steps) == 3, f"the steps are {steps}"
    # A step is due, then the countdown of the next begins, then it is told that the next was sent.
    assert all(sorted(step) == list(step) for step in steps), f"the steps are {steps}"


@pytest.mark.broken_by(r"redelivered", conf={"broker_transport_options": {**TRANSPORT, "visibility_timeout": 7200}})
@pytest.mark.broken_by(r"too early", conf={"broker_transport_options": {**TRANSPORT, "visibility_timeout": 3000}})
def test_a_countdown_beyond_the_visibility_timeout_runs_more_than_once(rig):
    """A countdown that a worker has held for an hour, the visibility timeout, is delivered again and runs twice.

    Measured with a message that was made to look as old in Redis; younger, it is delivered once.
    """
    tasks.update_corporation.apply_async(args=[98000001], countdown=3)
    received(rig, 1)
    make_older(rig, 3550)
    sweep()
    assert [age > 3550 for age in ages(rig)] == [True], f"put back too early: what is held is {ages(rig)} s old"
    make_older(rig, 60)
    sweep()
    # Both are one entry of `unacked`, which goes with the first.
    rig.wait(lambda: started(rig) == 2, "a second start: it was not redelivered")
    rig.settle()
    rig.same(started(rig), 2, "it was redelivered, and started {} times")


# ---- rate limits of one worker


@pytest.mark.broken_by(r"took", conf={"worker_disable_rate_limits": True})
def test_four_a_second_is_one_every_quarter_second(rig):
    """A limit of `4/s` lets one task start every quarter of a second, not four at once."""
    rig.settle(after="demo_limit.py")
    runs = rig.runs(HISTORY)
    # A start may be told of late, and the receipt is never later than the first start.
    took = [round(run.started - runs[0].received, 3) for run in runs]
    assert all(at >= 0.25 * number - ROUNDING for number, at in enumerate(took)), f"the starts took {took}"
    rig.same(
        rig.logged(),
        [f"INFO Updated corporation history of character {90000001 + number}" for number in range(5)],
        "logged {}",
    )


@pytest.mark.broken_by(r"had not started", conf={"worker_prefetch_multiplier": 20})
def test_an_urgent_task_behind_a_limited_backlog_waits_for_the_limit(rig):
    """Behind a limited backlog an urgent unlimited task starts only after the limit has let another task go.

    The worker holds five limited tasks, its whole prefetch, and fetches nothing more until one of them starts.
    """
    # So slow that on a busy machine too an urgent task which need not wait has started before the next limited one.
    current_app.control.rate_limit(HISTORY, "2/s", reply=True, limit=1, timeout=5)
    rig.send(tasks.update_corporation_history, 24, 90000001)
    received(rig, 6)
    asked = {}
    for _ in range(5):
        rig.wait(lambda: waiting_for_the_limit(rig) >= 5, "five that are held")
        at = time.time()
        asked[tasks.update_corporation.apply_async(args=[98000001], priority=1).id] = at
        rig.finished(UPDATE, len(asked))
    current_app.control.purge()
    limited = rig.wait(partial(none_held, rig), "the end of what is held")
    told = {(e["type"], e["uuid"]): e["timestamp"] for e in rig.events if "uuid" in e}
    fetched = [told["task-received", one] for one in limited]
    begun = [told["task-started", one] for one in limited]
    between = {}
    for urgent, at in asked.items():
        # One that is sent while a place is free is fetched at once: the sentence does not speak of it.
        if sum(one < at for one in fetched) - sum(one < at for one in begun) >= 5:
            between[urgent] = sum(at < one < told["task-started", urgent] for one in begun)
    assert between, "none was sent while five were held"
    early = sum(not count for count in between.values())
    assert not early, f"the next limited task had not started before {early} of {len(between)} urgent ones"


@pytest.mark.broken_by(r"waited", conf={"worker_disable_rate_limits": True})
@pytest.mark.broken_by(r"waited", conf={"worker_prefetch_multiplier": 4})
def test_a_task_of_the_same_priority_waits_for_the_whole_backlog(rig):
    """An unlimited task of the same priority waits until the worker has fetched the whole limited backlog.

    Behind eight limited tasks it waits until four have started, while some of the worker's five threads are idle.
    """
    rig.send(tasks.update_corporation_history, 8, 90000001)
    tasks.update_corporation.delay(98000001)
    rig.settle()
    limited = rig.runs(HISTORY)
    (run,) = rig.runs(UPDATE)
    # The fourth starts three quarters of a second after the first, whose start may be told of late.
    waited = run.started - limited[0].received
    last = max(one.received for one in limited)
    assert waited >= 0.75 - ROUNDING, f"it waited {waited} s"
    assert run.received > last, f"it was fetched at {run.received}, the last limited one at {last}"
    busy = max(sum(other.started <= one.started < other.ended for other in limited) for one in limited)
    assert busy < 5, f"{busy} threads were busy at once"


@pytest.mark.broken_by(r"the end of 1 x", conf={"worker_eta_task_limit": 99})
def test_below_the_limit_an_urgent_task_does_not_wait_for_countdowns(rig):
    """While a worker holds 99 countdown tasks, one fewer than its limit, an urgent task starts before any of them."""
    rig.send(tasks.update_corporation, 99, 0, priority=7, countdown=600)
    received(rig, 99)
    urgent = tasks.update_corporation.apply_async(args=[98000001], priority=1)
    ended = rig.finished(UPDATE)
    assert [run.id for run in ended] == [urgent.id], f"{len(ended)} have ended"
    assert len(starts(rig)) == 1, f"{len(starts(rig))} have started"


# ---- what needs a worker of its own


@pytest.mark.fresh
@pytest.mark.broken_by(r"the prefetch is", conf={"worker_eta_task_limit": 1000})
def test_a_worker_that_has_held_more_than_95_countdowns_prefetches_less_from_then_on(rig):
    """After a worker has held 95 countdown tasks it prefetches five messages as before, after 96 four, after 100 one.

    What it prefetches is what was left of the limit of 100, and at least one.
    """
    (worker,) = rig.workers
    found = {0: prefetch(worker)}
    for count in (95, 96, 100):
        urgent_behind(rig, [0] * count)
        found[count] = prefetch(worker)
    assert found == {0: 5, 95: 5, 96: 4, 100: 1}, f"the prefetch is {found}"


# Two claims share a worker that no other gets: they leave it with a prefetch of one.
@pytest.mark.workers({"concurrency": 5})
@pytest.mark.broken_by(r"ran before the urgent|before the last was due", conf={"worker_eta_task_limit": 1000})
def test_an_urgent_task_waits_until_all_hundred_held_countdowns_have_run(rig):
    """With 100 countdown tasks held a worker fetches nothing: an urgent task starts after all 100 have run.

    Those of other apps and retries count. The hundredth held task, not the first, lets the worker fetch again.
    """
    others = [("chains.tasks.update_wallet", 0), ("chains.tasks.update_contracts", 1)]
    ids, urgent = urgent_behind(rig, [number / 200 for number in range(110)], others)
    runs = {run.id: run for run in rig.runs()}
    fetched = runs[urgent].received
    held = [one for one in ids if runs[one].received < fetched]
    assert held == ids[:100], f"{len(held)} countdown tasks ran before the urgent one"
    early = max(due_times(rig)[one] for one in held) - fetched
    assert early <= 0, f"it was fetched {early} s before the last was due"
    began, sent, begun = runs[ids[0]].sent, runs[urgent].sent, runs[urgent].started
    rig.chart(
        "eta_limit",
        "staircase",
        [
            ("fetched", [runs[one].received - began for one in ids]),
            ("started", [runs[one].started - began for one in ids]),
        ],
        counted="tasks",
        marks=[(sent - began, "urgent task sent"), (begun - began, "urgent task starts")],
        values={
            "fetched": sum(runs[one].received < sent for one in ids),
            "run": sum(runs[one].started < begun for one in ids),
        },
    )


@pytest.mark.workers({"concurrency": 5})
@pytest.mark.broken_by(r"waited for the longest", conf={"worker_eta_task_limit": 1000})
def test_random_countdowns_beyond_the_limit_run_late_and_together(rig):
    """Of 110 countdowns in random order, the 10 that the worker could not hold wait for the longest of the other 100.

    Then all 10 are overdue. An urgent task waits with them.
    """
    delays = [number / 200 for number in range(110)]
    Random(1).shuffle(delays)
    ids, urgent = urgent_behind(rig, delays)
    due, runs = due_times(rig), {run.id: run for run in rig.runs()}
    longest = max(due[one] for one in ids[:100])
    late = [one for one in ids[100:] if runs[one].received >= longest]
    assert len(late) == 10, f"{len(late)} of the 10 waited for the longest of the others"
    assert all(due[one] < runs[one].received for one in late), "one was not overdue"
    assert runs[urgent].received >= longest, "the urgent one did not wait"


@pytest.mark.fresh
@pytest.mark.broken_by(r"back in Redis", file="tasks.py", old="countdown=number * seconds / len(ids),\n", new="")
def test_a_worker_that_is_stopped_gives_its_countdowns_back(rig):
    """A worker that is stopped puts the countdown tasks it holds back into their queue, with their time."""
    make_corporations(3)
    tasks.scatter_corporations()
    received(rig, 3)
    held = {event["args"]: event["eta"] for event in receipts(rig) if event["eta"]}
    assert messages(rig) == [], "the worker does not hold them"
    rig.stop(rig.workers[0])
    back = {message["argsrepr"]: message["eta"] for message in messages(rig) if message["eta"]}
    assert sorted(back) == ["[98000002]", "[98000003]"], f"back in Redis: {back}"
    assert back == held, f"back in Redis: {back}, held: {held}"


@pytest.mark.workers({}, {}, {})
@pytest.mark.broken_by(r"it took|no part", conf={"worker_disable_rate_limits": True})
@pytest.mark.timed(0.3)
def test_each_worker_keeps_a_rate_limit_of_its_own(rig):
    """Of three workers side by side each keeps the whole pace: two start twice as much as one, three three times."""
    # A worker holds one running and five waiting ones: this leaves none idle.
    rig.send(tasks.update_corporation_history, 18, 90000001)
    rig.settle()
    runs = rig.runs(HISTORY)
    began = min(run.received for run in runs)
    of_each = [[run.started - began for run in runs if run.worker in worker.argv] for worker in rig.workers]
    took = [(len(those), round(max(those), 2)) for those in of_each]
    assert min(len(those) for those in of_each) > 2, f"a worker had no part: tasks and seconds {took}"
    # The limit makes each worker take a quarter of a second for each task after its first.
    late = [max(those) - 0.25 * (len(those) - 1) for those in of_each]
    assert all(-ROUNDING <= after < 0.4 for after in late), f"tasks and seconds it took: {took}"
    names = ["1 worker", "2 workers", "3 workers"]
    rows = [(name, sorted(chain.from_iterable(of_each[:count]))) for count, name in enumerate(names, 1)]
    told = ", ".join(f"{name} {len(starts)} tasks in {max(starts):.1f} s" for name, starts in rows)
    rig.chart("rate_limit_staircase", "staircase", rows, counted="started", values={"started": told})


@pytest.mark.workers({}, {}, {})
@pytest.mark.broken_by(r"was taken", conf={"broker_transport_options": {**TRANSPORT, "visibility_timeout": 3000}})
def test_a_killed_worker_keeps_its_countdowns_until_the_visibility_timeout(rig):
    """A countdown task of a killed worker stays in Redis, in `unacked`; after an hour another worker takes it.

    Measured with a message that was made to look as old.
    """
    tasks.update_corporation.apply_async(args=[98000001], countdown=600)
    received(rig, 1)
    (holder,) = [run.worker for run in rig.runs(UPDATE)]
    rig.kill(next(worker for worker in rig.workers if holder in worker.argv))
    make_older(rig, 3550)
    sweep()
    assert rig.redis.hlen("unacked") == len(receipts(rig)) == 1, "it was taken although its worker was killed"
    assert [age > 3550 for age in ages(rig)] == [True], f"it was taken: what is held is {ages(rig)} s old"
    make_older(rig, 60)
    sweep()
    received(rig, 2)
    takers = {event["hostname"].partition("@")[2] for event in receipts(rig)} - {holder}
    assert len(takers) == 1, f"{takers} took it"


@pytest.mark.workers({"paused": True})
@pytest.mark.broken_by(r"the held ones took", conf={"worker_disable_rate_limits": True})
def test_lifting_a_limit_at_runtime_does_not_release_what_is_held(rig):
    """Limited tasks that a worker holds already keep the old pace when the limit is lifted with remote control.

    Those that it fetches afterwards overtake them.
    """
    rig.send(tasks.update_corporation_history, 40, 0)
    rig.resume()
    received(rig, 6)
    asked = time.time()
    current_app.control.rate_limit(HISTORY, "0", reply=True, limit=1, timeout=5)
    lifted = time.time()
    rig.settle()
    runs = {run.id: run for run in rig.runs(HISTORY)}
    held = [runs[event["uuid"]] for event in receipts(rig) if event["timestamp"] < asked]
    later = [runs[event["uuid"]] for event in receipts(rig) if event["timestamp"] > lifted]
    took = max(run.started for run in held) - held[0].received
    assert took >= 0.25 * (len(held) - 1) - ROUNDING, f"the held ones took {took} s"
    assert later, "all were fetched before the limit was lifted"
    before = [run for run in runs.values() if run.received < later[0].received]
    assert later[0].started < max(run.started for run in before), f"the order is {[run.args for run in runs.values()]}"


@pytest.mark.fresh
@pytest.mark.broken_by(r"the second started", conf={"worker_disable_rate_limits": True})
def test_a_limit_set_at_runtime_holds_for_the_workers_of_the_moment(rig):
    """A limit set with remote control holds in the workers that run; one that starts later has the decorator's.

    `60/m` is one task a second, so `10/m` is one every six seconds.
    """
    first = rig.workers[0].node
    rig.prints("demo_runtime.py", f"[{{'{first}': {{'ok': 'new rate limit set successfully'}}}}]\n")
    tasks.update_corporation_history.delay(90000001)
    tasks.update_corporation_history.delay(90000002)
    received(rig, 2)
    second = rig.start_worker().node
    registered = current_app.control.inspect(limit=2, timeout=5).registered("rate_limit")
    rig.same(
        {
            name: entry.partition("=")[2].strip("]")
            for name, entries in registered.items()
            for entry in entries
            if HISTORY in entry
        },
        {first: "60/m", second: "4/s"},
        "the limits are {}",
    )
    rig.settle()
    one, two = rig.runs(HISTORY)
    # The first start may be told of late, its receipt is never later.
    assert two.started - one.received >= 1 - ROUNDING, f"the second started after {two.started - one.received} s"
