"""What is said about offsets, subsets, countdowns and rate limits."""

import json
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from random import Random

import pytest
from allianceauth.crontab.models import CronOffset
from allianceauth.crontab.schedulers import OffsetDatabaseScheduler
from allianceauth.crontab.utils import offset_cron
from allianceauth.eveonline.models import EveCorporationInfo
from celery import current_app
from celery.schedules import crontab, schedule
from django.db import transaction
from django_celery_beat.models import CrontabSchedule, PeriodicTask

from smoothing import tasks

UPDATE = "smoothing.tasks.update_corporation"
HISTORY = "smoothing.tasks.update_corporation_history"
HAND = "smoothing_scatter_corporations"
SUBSET = "smoothing_update_subset"

# Alliance Auth's transport options, and what a test adds to them.
PATIENT = {"priority_steps": list(range(10)), "queue_order_strategy": "priority"}
SWEEPING = {"unacked_restore_interval": 0.5, "unacked_restore_throttle": 1}
IMPATIENT = {**PATIENT, **SWEEPING, "visibility_timeout": 0.2}


def make_corporations(count, first=98000001):
    EveCorporationInfo.objects.bulk_create(
        EveCorporationInfo(corporation_id=first + number, corporation_name=f"Corporation {number}")
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


def messages(lab):
    """Return the headers of every message that waits in Redis."""
    return [json.loads(raw)["headers"] for key in lab.waiting() for raw in lab.redis.lrange(key, 0, -1)]


def starts(lab, name=UPDATE):
    return [run.started for run in lab.runs(name) if run.started is not None]


def received(lab, count, name=UPDATE):
    """Wait until workers have fetched `count` of the tasks called `name`."""
    lab.wait(
        lambda: sum(run.received is not None for run in lab.runs(name)) >= count,
        f"the receipt of {count} x {name}",
    )


def lead(lab, count):
    """Return a countdown, in seconds, that leaves this machine time to send `count` tasks and to fetch them."""
    began = time.monotonic()
    for _ in range(20):
        tasks.update_all_corporations.delay()
    lab.settle()
    return min(0.4 + count * (time.monotonic() - began) / 20, 6)


def prefetch(worker):
    """Ask a worker how many messages it may hold unstarted."""
    node = worker.argv[worker.argv.index("-n") + 1]
    stats = current_app.control.inspect(destination=[f"celery@{node}"], limit=1).stats()
    return stats[f"celery@{node}"]["prefetch_count"]


# ---- offsets


def beat_reads(**schedule):
    """Let Alliance Auth's scheduler store the entries `schedule` as it does when beat starts."""
    OffsetDatabaseScheduler(app=current_app, lazy=True).update_from_dict(schedule)


@pytest.mark.workers
@pytest.mark.broken_by(r"the database says", file="local.py", old="minute=28", new="minute=0")
def test_an_entry_without_apply_offset_keeps_its_minute(lab):
    """Beat stores an entry without `apply_offset` as `local.py` writes it, whatever the installation's offset."""
    set_offset(minute=0.25, hour=0.25)
    beat_reads(**{HAND: dict(current_app.conf.beat_schedule[HAND])})
    assert in_database(HAND) == "28 * * * *", f"the database says {in_database(HAND)}"


@pytest.mark.workers
@pytest.mark.broken_by(r"the database says", file="local.py", old='"apply_offset": True', new='"apply_offset": False')
def test_the_offset_outlives_a_restart_of_beat(lab):
    """With `apply_offset` beat stores the shifted crontab, and the same one again after a restart."""
    beat_reads(**{SUBSET: dict(current_app.conf.beat_schedule[SUBSET])})
    first = in_database(SUBSET)
    PeriodicTask.objects.all().delete()
    beat = lab.start_beat()
    # Beat stores the entries in the order of local.py.
    lab.wait(lambda: PeriodicTask.objects.filter(name=HAND).exists(), "beat's last entry")
    # Told to stop while it still starts, Celery's beat builds its schedule once more, and takes its time.
    lab.kill(beat)
    shift = round(60 * CronOffset.get_solo().minute)
    expected = ",".join(str(minute) for minute in sorted((minute + shift) % 60 for minute in range(0, 60, 6)))
    stored = [first, in_database(SUBSET)]
    assert stored == [f"{expected} * * * *"] * 2, f"the database says {stored}"


@pytest.mark.workers
@pytest.mark.broken_by(r"the database says", file="local.py", old='"apply_offset": True', new='"apply_offset": False')
def test_the_offset_reaches_entries_that_are_in_the_database_already(lab):
    """An entry that is in the database already, even edited by hand, gets the shifted crontab when beat reads it."""
    set_offset(minute=0.05)
    edited = CrontabSchedule.objects.create(minute="59", hour="12")
    PeriodicTask.objects.create(name=SUBSET, task="smoothing.tasks.update_subset", crontab=edited)
    beat_reads(**{SUBSET: dict(current_app.conf.beat_schedule[SUBSET])})
    assert in_database(SUBSET) == "3,9,15,21,27,33,39,45,51,57 * * * *", f"the database says {in_database(SUBSET)}"


@pytest.mark.workers
@pytest.mark.broken_by(
    r"stored as", file="local.py", old='"schedule": crontab(minute="*/6")', new='"schedule": crontab(minute="0")'
)
def test_the_offset_leaves_an_interval_alone(lab):
    """`apply_offset` shifts crontabs only: the same entry with a plain interval is stored as it was written."""
    set_offset(minute=0.05)
    entry = dict(current_app.conf.beat_schedule[SUBSET])
    beat_reads(as_crontab=dict(entry), as_interval={**entry, "schedule": schedule(timedelta(minutes=6))})
    interval = PeriodicTask.objects.get(name="as_interval")
    stored = [in_database("as_crontab").split()[0], interval.crontab, str(interval.interval)]
    assert stored == ["3,9,15,21,27,33,39,45,51,57", None, "every 360 seconds"], f"stored as {stored}"


@pytest.mark.workers
@pytest.mark.broken_by(r"became", file="demo_offset.py", old="crontab(minute=0))", new='crontab(minute="*"))')
@pytest.mark.broken_by(r"became", file="demo_offset.py", old='"*/30"', new='"*"')
def test_the_offset_shifts_minutes_and_hours(lab):
    """With offsets of 6 minutes and 5 hours `0 * * * *` becomes `6 * * * *`, `*/30` 6 and 36, `*/4` 1, 5, 9, ….

    A field that is `*` stays `*`.
    """
    set_offset(minute=0.1, hour=0.2)
    shifted = lab.demo("demo_offset.py")
    became = [fields(shifted[name]) for name in ("hourly", "half_hourly", "four_hourly")]
    assert became == ["6 * * * *", "6,36 * * * *", "6 1,5,9,13,17,21 * * *"], f"became {became}"


@pytest.mark.workers
@pytest.mark.broken_by(r"became", file="demo_offset.py", old="day_of_month=1, ", new="")
@pytest.mark.broken_by(r"became", file="demo_offset.py", old=', day_of_week="mon"', new="")
def test_the_offset_moves_no_day_and_carries_nothing(lab):
    """Days, weekdays and months never move, and nothing is carried: `50 22 1 */3 *` becomes `10 3 1 */3 *`.

    The offsets of that example are 20 minutes and 5 hours, so the job runs 19 hours and
    40 minutes earlier on the same day.
    """
    set_offset(minute=1 / 3, hour=0.2)
    shifted = lab.demo("demo_offset.py")
    became = [fields(shifted[name]) for name in ("weekly", "monthly")]
    assert became == ["10 3 * * mon", "10 3 1 */3 *"], f"became {became}"


@pytest.mark.workers
@pytest.mark.broken_by(r"became", file="demo_offset.py", old="crontab(minute=0))", new="crontab(minute=1))")
def test_the_offset_may_be_nothing(lab):
    """A drawn number just below 1 is a whole hour, or a whole day, and so shifts nothing."""
    set_offset(minute=0.999, hour=0.999)
    shifted = lab.demo("demo_offset.py")
    became = [fields(shifted[name]) for name in ("hourly", "weekly")]
    assert became == ["0 * * * *", "50 22 * * mon"], f"became {became}"


@pytest.mark.workers
@pytest.mark.broken_by(r"the busiest minutes", file="local.py", old="minute=28", new='minute="*"')
def test_a_minute_chosen_by_hand_moves_the_peak_and_an_offset_levels_it(lab):
    """Of 1,000 installs that copy one hourly line, all 1,000 call in its minute; with `apply_offset` at most 35 do."""
    by_hand = current_app.conf.beat_schedule[HAND]["schedule"]
    draw = Random(1).random
    with_offset = Counter()
    with transaction.atomic():
        set_offset()
        for _ in range(1000):
            CronOffset.objects.update(minute=draw(), hour=draw())
            with_offset.update(offset_cron(by_hand).minute)
    loads = {
        "on the hour": Counter({minute: 1000 for minute in crontab(minute=0).minute}),
        "by hand": Counter({minute: 1000 for minute in by_hand.minute}),
        "apply_offset": with_offset,
    }
    lab.record(installs={name: [load[minute] for minute in range(60)] for name, load in loads.items()})
    busiest = {name: load.most_common(1)[0] for name, load in loads.items()}
    levelled = busiest["by hand"] == (28, 1000) and busiest["apply_offset"][1] <= 35 and by_hand.minute == {28}
    assert levelled, f"the busiest minutes are {busiest}, by hand of {len(by_hand.minute)}"


# ---- countdowns in Redis


@pytest.mark.workers
@pytest.mark.broken_by(r"the countdowns are", file="tasks.py", old="seconds=600", new="seconds=60")
def test_a_scatter_spreads_its_tasks_over_ten_minutes(lab):
    """A scatter of 60 corporations sends 60 messages at once, due one every ten seconds over the next ten minutes."""
    make_corporations(60)
    began = datetime.now(UTC)
    tasks.scatter_corporations()
    due = {message["argsrepr"]: message["eta"] for message in messages(lab)}
    countdowns = sorted((datetime.fromisoformat(eta) - began).total_seconds() if eta else 0 for eta in due.values())
    steps = [later - earlier for earlier, later in pairwise(countdowns)]
    assert len(due) == 60, f"{len(due)} messages"
    # The messages are sent one after another: the first and the last step are a little longer.
    even = all(9.9 < step < 11 for step in steps) and 590 <= countdowns[-1] < 593
    assert even, f"the countdowns are {countdowns}"


@pytest.mark.workers
@pytest.mark.broken_by(
    r"messages", file="demo_twice.py", old="args=[corporation_id])", new="args=[corporation_id], countdown=1)"
)
def test_calling_apply_async_twice_queues_every_corporation_twice(lab):
    """A plain `apply_async()` beside the one with `countdown` queues every corporation twice, once to run at once."""
    lab.demo("demo_twice.py")
    queued = Counter((message["argsrepr"], message["eta"] is None) for message in messages(lab))
    expected = {(f"[{98000000 + number}]", now): 1 for number in (1, 2, 3) for now in (True, False)}
    assert queued == expected, f"messages, with whether they run at once: {queued}"


# ---- subsets


@pytest.mark.broken_by(r"updated", file="tasks.py", old='"smoothing_part") % parts', new='"smoothing_part") % 9')
def test_ten_subset_runs_update_every_corporation_once(lab):
    """Ten runs of the subset task update each of 25 corporations exactly once."""
    make_corporations(25)
    for _ in range(10):
        tasks.update_subset.delay()
    lab.settle()
    updated = Counter(run.args for run in lab.runs(UPDATE))
    assert updated == {f"[{98000001 + number}]": 1 for number in range(25)}, f"updated {updated}"


@pytest.mark.broken_by(
    r"updated",
    file="tasks.py",
    old='F("corporation_id") % parts',
    new='(F("corporation_id") + EveCorporationInfo.objects.count()) % parts',
)
def test_a_corporation_that_leaves_between_two_runs_costs_no_other_its_turn(lab):
    """A corporation deleted between two subset runs costs no other corporation its turn."""
    make_corporations(25)
    for run in range(10):
        tasks.update_subset.delay()
        lab.settle()
        if run == 4:
            gone = lab.runs(UPDATE)[0].args
            EveCorporationInfo.objects.get(corporation_id=int(gone.strip("[]"))).delete()
    updated = Counter(run.args for run in lab.runs(UPDATE))
    assert updated == {f"[{98000001 + number}]": 1 for number in range(25)}, f"updated {updated}"


@pytest.mark.broken_by(r"updated by one run", file="demo_subset.py", old="parts=5", new="parts=1")
def test_one_subset_run_updates_its_part_only(lab):
    """One run of the subset task over five parts updates one of five corporations."""
    lab.demo("demo_subset.py")
    lab.settle()
    updated = [run.args for run in lab.runs(UPDATE)]
    assert updated == ["[98000001]"], f"updated by one run: {updated}"


@pytest.mark.broken_by(r"20 of 25", file="demo_slice.py", old="// 10", new="// 10 + 1")
def test_ten_equal_slices_leave_out_the_remainder(lab, capsys):
    """Ten slices of a tenth, rounded down, reach 20 of 25 corporations; the last five are never updated."""
    made = lab.demo("demo_slice.py")
    assert capsys.readouterr().out == "20 of 25 updated\n", "it is not 20 of 25"
    assert set(made["corporations"]) - set(made["updated"]) == set(range(98000021, 98000026))


# ---- countdowns in a worker


@pytest.mark.broken_by(r"started", file="demo.py", old="seconds=1", new="seconds=0")
def test_a_scattered_task_never_starts_before_its_time(lab):
    """Of five corporations scattered over one second, none starts before its fifth of the second."""
    lab.demo()
    lab.settle()
    runs = lab.runs(UPDATE)
    # Counted from before the calls: the event that tells of a sending comes a little later than the countdown's start.
    started = {int(run.args.strip("[]")) - 98000000: round(run.started, 3) for run in runs}
    assert sorted(started) == [0, 1, 2, 3, 4], f"started {started}"
    assert all(at >= number * 0.2 for number, at in started.items()), f"started {started}"


@pytest.mark.broken_by(r"at half time", file="tasks.py", old="number * seconds", new="0 * seconds")
def test_a_scatter_takes_its_time_and_a_loop_does_not(lab):
    """Forty tasks sent in a loop run as fast as the worker can; scattered over two seconds, half wait one second."""
    make_corporations(40)
    tasks.update_all_corporations.delay()
    lab.settle()
    at_once = starts(lab)
    tasks.scatter_corporations.delay(seconds=2)
    lab.settle()
    scattered = starts(lab)[40:]
    # The start of the task that scatters: the countdowns begin right after it.
    (scatter,) = lab.runs("smoothing.tasks.scatter_corporations")
    lab.record(
        scatter={
            "at once": [round(start - at_once[0], 3) for start in at_once],
            "scattered": [round(start - scatter.started, 3) for start in scattered],
        }
    )
    early = sum(start - scatter.started < 1 for start in scattered)
    assert len(scattered) == 40, f"{len(scattered)} ran"
    assert early <= 21, f"at half time {early} of 40 had started"


@pytest.mark.broken_by(r"started|held", file="demo_trickle.py", old="seconds=0.3", new="seconds=0")
def test_a_trickle_holds_one_countdown_at_a_time(lab):
    """A trickle updates one corporation a step, and the worker never holds more than one countdown of it."""
    lab.demo("demo_trickle.py")
    lab.settle()
    updates = lab.runs(UPDATE)
    trickle = lab.runs("smoothing.tasks.trickle_corporations")
    started = [round(run.started - updates[0].started, 3) for run in updates]
    held = max(sum(other.received <= run.received < other.started for other in trickle) for run in trickle)
    assert held == 1, f"{held} held at a time"
    steps = [later.started - earlier.started for earlier, later in pairwise(trickle)]
    assert all(step >= 0.29 for step in steps), f"started {started}"
    assert [run.args for run in updates] == [f"[{98000001 + number}]" for number in range(4)]


@pytest.mark.broken_by(r"ran before the urgent", conf={"worker_eta_task_limit": 20})
def test_below_the_limit_an_urgent_task_does_not_wait_for_countdowns(lab):
    """While a worker holds 60 countdown tasks, fewer than its limit, an urgent task starts before any of them."""
    first = lead(lab, 60)
    for number in range(60):
        tasks.update_corporation.apply_async(args=[98000001 + number], priority=7, countdown=first + number / 200)
    received(lab, 60)
    urgent = tasks.update_corporation.apply_async(args=[98000001], priority=1)
    lab.settle(timeout=30)
    runs = lab.runs(UPDATE)
    before = [run.id for run in runs].index(urgent.id)
    assert before == 0, f"{before} countdown tasks ran before the urgent one"


# ---- rate limits of one worker


@pytest.mark.broken_by(r"steps", file="tasks.py", old='rate_limit="4/s"', new='rate_limit="40/s"')
@pytest.mark.broken_by(r"steps", conf={"worker_disable_rate_limits": True})
def test_four_a_second_is_one_every_quarter_second(lab):
    """A limit of `4/s` lets one task start every quarter of a second, not four at once."""
    lab.demo("demo_limit.py")
    lab.settle()
    started = starts(lab, HISTORY)
    steps = [round(later - earlier, 3) for earlier, later in pairwise(started)]
    assert sum(steps) > 0.85, f"the steps are {steps}"


@pytest.mark.broken_by(r"had not started", conf={"worker_prefetch_multiplier": 4})
def test_an_urgent_task_behind_a_limited_backlog_waits_for_the_limit(lab):
    """Behind a limited backlog an urgent unlimited task starts only after the limit has let another task go.

    The worker holds five limited tasks, its whole prefetch, and fetches nothing more until one of them starts.
    """
    # More than the worker holds: a place that comes free before the urgent task is sent is filled from these.
    for number in range(10):
        tasks.update_corporation_history.delay(90000001 + number)
    received(lab, 6, HISTORY)
    urgent = tasks.update_corporation.apply_async(args=[98000001], priority=1)
    lab.settle()
    run = next(run for run in lab.runs(UPDATE) if run.id == urgent.id)
    between = sum(run.sent < start < run.started for start in starts(lab, HISTORY))
    lab.record(urgent={"sent": round(run.sent, 3), "started": round(run.started, 3)})
    assert between >= 1, f"the next limited task had not started before the urgent one ({between})"


@pytest.mark.broken_by(r"limited tasks started before", conf={"worker_disable_rate_limits": True})
@pytest.mark.broken_by(r"limited tasks started before", conf={"worker_prefetch_multiplier": 4})
def test_a_task_of_the_same_priority_waits_for_the_whole_backlog(lab):
    """An unlimited task of the same priority waits until the worker has fetched the whole limited backlog.

    Behind nine limited tasks it starts after five of them, while at least four of the worker's five threads are idle.
    """
    for number in range(9):
        tasks.update_corporation_history.delay(90000001 + number)
    unlimited = tasks.update_corporation.delay(98000001)
    lab.settle()
    fetched = next(run.received for run in lab.runs(UPDATE) if run.id == unlimited.id)
    # A message is acknowledged, and the next one fetched, a moment before the start is told.
    before = sum(start < fetched + 0.1 for start in starts(lab, HISTORY))
    assert before == 5, f"{before} limited tasks started before the unlimited one"


# ---- what needs a worker of its own


@pytest.mark.fresh
@pytest.mark.broken_by(r"ran before the urgent", conf={"worker_eta_task_limit": 1000})
def test_an_urgent_task_waits_until_all_hundred_held_countdowns_have_run(lab):
    """With 100 countdown tasks held a worker fetches nothing: an urgent task starts after all 100 have run.

    The hundredth held task, not the first, lets the worker fetch again.
    """
    first = lead(lab, 130)
    for number in range(130):
        tasks.update_corporation.apply_async(args=[98000001 + number], priority=7, countdown=first + number / 100)
    received(lab, 100)
    urgent = tasks.update_corporation.apply_async(args=[98000001], priority=1)
    lab.settle(timeout=30)
    runs = lab.runs(UPDATE)
    run = next(run for run in runs if run.id == urgent.id)
    held = [one for one in runs if one.received < run.received]
    lab.record(
        eta_limit={
            "held": [[round(one.received, 3), round(one.started, 3)] for one in runs if one is not run],
            "urgent": [round(run.sent, 3), round(run.started, 3)],
        }
    )
    assert len(held) == 100, f"{len(held)} countdown tasks ran before the urgent one"
    fetched = {event["uuid"]: event for event in lab.events if event["type"] == "task-received"}
    last = max(datetime.fromisoformat(fetched[one.id]["eta"]).timestamp() for one in held)
    early = last - fetched[urgent.id]["timestamp"]
    assert early <= 0, f"it was fetched {early} s before the last of the hundred was due"


@pytest.mark.fresh
@pytest.mark.broken_by(r"ran late", conf={"worker_eta_task_limit": 1000})
def test_random_countdowns_beyond_the_limit_run_late_and_together(lab):
    """Of 130 countdowns in random order, the 30 that the worker could not hold all run after the 100 that it held."""
    first = lead(lab, 130)
    countdowns = [first + number / 200 for number in range(130)]
    Random(1).shuffle(countdowns)
    for number, countdown in enumerate(countdowns):
        tasks.update_corporation.apply_async(args=[number], priority=7, countdown=countdown)
    lab.settle(timeout=30)
    started = {int(run.args.strip("[]")): run.started for run in lab.runs(UPDATE)}
    last_held = max(started[number] for number in range(100))
    late = sum(started[number] > last_held for number in range(100, 130))
    assert late == 30, f"{late} of the 30 ran late"


@pytest.mark.fresh
@pytest.mark.broken_by(r"prefetch went", conf={"worker_eta_task_limit": 1000})
def test_the_prefetch_stays_at_one_after_the_limit_was_reached(lab):
    """After a worker has held 100 countdown tasks, it prefetches one message instead of five until it is restarted."""
    (worker,) = lab.workers
    before = prefetch(worker)
    first = lead(lab, 100)
    for number in range(100):
        tasks.update_corporation.apply_async(args=[number], priority=7, countdown=first)
    lab.settle(timeout=30)
    after = prefetch(worker)
    assert (before, after) == (5, 1), f"the prefetch went from {before} to {after}"


@pytest.mark.fresh
@pytest.mark.broken_by(
    r"back in Redis", file="tasks.py", old="countdown=number * seconds / len(ids)", new="countdown=0"
)
def test_a_worker_that_is_stopped_gives_its_countdowns_back(lab):
    """A worker that is stopped puts the countdown tasks it holds back into their queue, with their time."""
    make_corporations(3)
    tasks.scatter_corporations()
    received(lab, 3)
    assert messages(lab) == [], "the worker does not hold them"
    lab.stop(lab.workers[0])
    back = sorted(message["argsrepr"] for message in messages(lab) if message["eta"])
    assert back == ["[98000002]", "[98000003]"], f"back in Redis: {back}"


@pytest.mark.fresh
@pytest.mark.workers({}, {})
@pytest.mark.broken_by(r"ran although", conf={"broker_transport_options": IMPATIENT})
def test_a_killed_worker_keeps_its_countdowns_until_the_visibility_timeout(lab):
    """A countdown task of a worker that is killed is not run by another one, but stays in Redis, in `unacked`."""
    tasks.update_corporation.apply_async(args=[98000001], countdown=0.8)
    received(lab, 1)
    (holder,) = [run.worker for run in lab.runs(UPDATE)]
    lab.kill(next(worker for worker in lab.workers if holder in worker.argv))
    tasks.update_corporation.apply_async(args=[98000002], countdown=1.2)
    lab.wait(lambda: any(run.ended for run in lab.runs(UPDATE)), "the end of a later countdown")
    ran = [run.args for run in lab.runs(UPDATE) if run.started is not None]
    assert ran == ["[98000002]"], f"{ran} ran although its worker was killed"
    assert lab.redis.hlen("unacked") == 1, "it is not in unacked"


@pytest.mark.fresh
@pytest.mark.workers
@pytest.mark.broken_by(r"started 1 ", conf={"broker_transport_options": {**PATIENT, "visibility_timeout": 3600}})
def test_a_countdown_beyond_the_visibility_timeout_runs_more_than_once(lab, monkeypatch):
    """A countdown longer than the visibility timeout is delivered again, and the task runs more than once.

    Measured with a timeout of one second, looked after every half second, instead of one hour and 100 seconds.
    """
    options = {"visibility_timeout": 1, **SWEEPING, **current_app.conf.broker_transport_options}
    monkeypatch.setitem(current_app.conf, "broker_transport_options", options)
    lab.start_worker()
    sent = tasks.update_corporation.apply_async(args=[98000001], countdown=2.5)
    lab.settle()
    started = sum(event["type"] == "task-started" and event["uuid"] == sent.id for event in lab.events)
    lab.record(started=started)
    assert started > 1, f"started {started} time(s)"


@pytest.mark.fresh
@pytest.mark.broken_by(r"the held ones' steps", conf={"worker_disable_rate_limits": True})
def test_lifting_a_limit_at_runtime_does_not_release_what_is_held(lab):
    """Limited tasks that a worker holds already keep the old pace when the limit is lifted with remote control.

    Those that it fetches afterwards overtake them.
    """
    for number in range(8):
        tasks.update_corporation_history.delay(number)
    received(lab, 6, HISTORY)
    current_app.control.rate_limit(HISTORY, "0", reply=True, limit=1, timeout=5)
    lab.settle()
    runs = lab.runs(HISTORY)
    order = [run.args for run in runs]
    held = [run.started for run in runs if run.args not in ("(6,)", "(7,)")]
    steps = [round(later - earlier, 3) for earlier, later in pairwise(held)]
    assert sum(steps) > 1.05, f"the held ones' steps are {steps}"
    assert order.index("(7,)") < order.index("(3,)"), f"the order is {order}"


@pytest.mark.fresh
@pytest.mark.broken_by(r"the limits are", file="demo_runtime.py", old="60/m", new="4/s")
def test_a_limit_set_at_runtime_holds_for_the_workers_of_the_moment(lab, capsys):
    """A limit set with remote control holds in the workers that run; one that starts later has the decorator's.

    `60/m` is one task a second, so `10/m` is one every six seconds.
    """
    lab.demo("demo_runtime.py")
    assert "new rate limit set successfully" in capsys.readouterr().out
    tasks.update_corporation_history.delay(90000001)
    tasks.update_corporation_history.delay(90000002)
    lab.finished(HISTORY, 2)
    first, second = starts(lab, HISTORY)
    lab.start_worker()
    registered = current_app.control.inspect(limit=2, timeout=5).registered("rate_limit")
    limits = sorted(
        entry.partition("=")[2].strip("]") for names in registered.values() for entry in names if HISTORY in entry
    )
    assert limits == ["4/s", "60/m"], f"the limits are {limits}"
    assert second - first > 0.9, f"the second started after {second - first} s"


@pytest.mark.fresh
@pytest.mark.workers({"paused": True}, {"paused": True}, {"paused": True})
@pytest.mark.broken_by(r"took", file="tasks.py", old='rate_limit="4/s"', new='rate_limit="400/s"')
def test_each_worker_keeps_a_rate_limit_of_its_own(lab):
    """A rate limit counts for each worker: two workers run twice the limit and three three times the limit."""
    took, staircase = [], {}
    for count in (1, 2, 3):
        lab.resume(count - 1)
        # A worker holds one running and five waiting ones, so three can't leave one idle.
        for number in range(18):
            tasks.update_corporation_history.delay(90000001 + number)
        lab.finished(HISTORY, 18 * count)
        started = starts(lab, HISTORY)[-18:]
        took.append(round(started[-1] - started[0], 2))
        staircase[str(count)] = [round(start - started[0], 3) for start in started]
    lab.record(rate_limit_staircase=staircase)
    one, two, three = took
    per_worker = one > 4 and two < 0.7 * one and three < 0.45 * one
    assert per_worker, f"eighteen tasks took {took} s"
