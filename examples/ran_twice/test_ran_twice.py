"""Why a task runs twice, how to tell which it was, and tasks that may."""

import datetime as dt
import json
import logging
import os
import re
import runpy
import threading
import time
from collections import Counter
from contextlib import contextmanager

import myauth.celery
import pytest
from allianceauth.eveonline.models import EveCharacter
from celery import current_app
from celery.schedules import crontab
from celery.utils.time import rate
from django.conf import settings
from django.core.cache import cache
from django_celery_beat.models import PeriodicTask
from django_celery_beat.schedulers import ModelEntry

from ran_twice import tasks
from ran_twice.models import Loss, Payment, Wallet

APP = "ran_twice.tasks."
STRUCTURES = APP + "update_structures"
HISTORY = APP + "update_history"
CONTRACTS = APP + "update_contracts"
ASSETS = APP + "update_assets"
LOSS = APP + "update_loss"
NORMAL = "celery\x06\x165"
CORPORATION = 98000001
# Has a wallet of its own, of which no loss takes anything.
ANOTHER = 98000099
KILLMAILS = range(123450001, 123450021)
VALUE = 250_000_000
BALANCE = 900_000_000_000
HOUR = 3600
ENDS = ("task-succeeded", "task-failed", "task-revoked")
KINDS = ("task-sent", "task-received", "task-started", "task-succeeded")
WHY = re.compile(
    r"INFO Loss (?P<loss>\d+): id (?P<id>\S+), retry (?P<retry>\d), redelivered (?P<redelivered>\w+), "
    r"sent by (?P<sender>\S+), in task (?P<parent>\S+), for entry (?P<entry>.*)"
)
# So many run at once that both copies of twenty tasks do.
ALL_AT_ONCE = pytest.mark.workers({"concurrency": 40})


def transport(**options):
    """Return the setting of a break, or of a worker: Alliance Auth's transport options and others."""
    return {"priority_steps": list(range(10)), "queue_order_strategy": "priority", **options}


def patience(hours):
    """Return the arguments of a break that gives workers another visibility timeout."""
    return {"conf": {"broker_transport_options": transport(visibility_timeout=hours * HOUR)}}


def patched(module, line):
    """Return the arguments of a break that changes a class of `module`, the first word of `line`, for all processes."""
    there = "logger = get_extension_logger(__name__)\n"
    return {
        "file": "tasks.py",
        "old": there,
        "new": f"from {module} import {line.partition('.')[0]}\n\n{line}\n{there}",
    }


# Saves each row when its task has been sent.
WRITES = """DatabaseScheduler.reserve = lambda self, entry, reserve=DatabaseScheduler.reserve: (
    reserve(self, entry),
    self.sync(),
)[0]"""
# Keeps what Celery has read from Django's settings.
KEEPS = """Settings.__setattr__ = lambda self, name, value: (
    None if name == "broker_transport_options" else Settings.__mro__[1].__setattr__(self, name, value)
)"""


def receipts(rig, name=None):
    return [e for e in rig.events if e["type"] == "task-received" and name in (None, e["name"])]


def received(rig, count, name=None):
    """Wait until workers have been handed `count` messages."""
    rig.wait(lambda: len(receipts(rig, name)) >= count, f"receipt number {count} of {name or 'any task'}")


def received_or_late(rig, count, until):
    """Wait until workers have been handed `count` messages, or it is too late for that."""
    rig.wait(lambda: len(receipts(rig)) >= count or time.monotonic() > until, f"receipt number {count}")


def starts(rig, name):
    """Return how often each task called `name` has started, by its id."""
    begun = Counter(event["uuid"] for event in rig.events if event["type"] == "task-started")
    return {run.id: begun[run.id] for run in rig.runs(name)}


def ended(rig, name, count):
    """Wait until tasks called `name` have ended `count` times, whatever their ids, and then for all that is left."""

    def found():
        mine = {run.id for run in rig.runs(name)}
        return [event for event in rig.events if event["type"] in ENDS and event["uuid"] in mine]

    rig.wait(lambda: len(found()) >= count, f"end number {count} of {name}")
    rig.settle()


def hours_pass(rig, hours=1.1):
    """Make what workers hold look so much older, and put back what is too old, as each worker does now and then."""
    for tag in rig.redis.zrange("unacked_index", 0, -1):
        rig.redis.zincrby("unacked_index", -hours * HOUR, tag)
    with current_app.connection_for_read() as connection:
        connection.default_channel.qos.restore_visible(num=None, interval=1)


@contextmanager
def busy(rig, threads=5):
    """Keep all threads of a worker busy with long tasks."""
    with rig.hold(STRUCTURES):
        rig.send(tasks.update_structures, threads, 99000001)
        rig.started(STRUCTURES, threads)
        yield


def begin_twice(rig, task, calls, meanwhile=lambda: None):
    """Start `task` for each of `calls`; each message is handed out twice, and both copies of all begin together.

    `meanwhile` is called while the worker holds the first copies.
    """
    with rig.hold(task.name):
        with busy(rig, 40):
            for args in calls:
                task.delay(*args)
            received(rig, len(calls), task.name)
            meanwhile()
            hours_pass(rig)
            received(rig, 2 * len(calls), task.name)
        rig.wait(lambda: sum(starts(rig, task.name).values()) == 2 * len(calls), "the start of both copies of all")


def twice(rig, task, calls):
    """Do as `begin_twice`, and wait for the end of all."""
    begin_twice(rig, task, calls)
    ended(rig, task.name, 2 * len(calls))
    assert set(starts(rig, task.name).values()) == {2}
    assert {run.state for run in rig.runs()} == {"succeeded"}


def make_losses():
    """Make twenty losses of a corporation, and what it and another one have to pay for theirs."""
    for corporation_id in (CORPORATION, ANOTHER):
        Wallet.objects.create(corporation_id=corporation_id, balance=BALANCE)
    Loss.objects.bulk_create(Loss(killmail_id=one, corporation_id=CORPORATION, value=VALUE) for one in KILLMAILS)


def payments():
    """Return for how many losses the corporation has paid, by its balance."""
    assert Wallet.objects.get(corporation_id=ANOTHER).balance == BALANCE
    return (BALANCE - Wallet.objects.get(corporation_id=CORPORATION).balance) / VALUE


def paid_of_each(rig):
    """Return how often each loss was paid for, by the log."""
    paid = Counter(rig.logged())
    return [paid[f"INFO Paid for loss {one}"] for one in KILLMAILS]


def drawn(rig, name):
    """Add to the figure how often each loss was paid for by one of the tasks."""
    values = {"losses": len(KILLMAILS)}
    rig.chart("payments", "bars", [(name, paid_of_each(rig))], unit="loss", counted="payments", values=values)


def told(rig):
    """Return what each run of `update_loss` has told of itself."""
    return [WHY.fullmatch(line).groupdict() for line in rig.logged() if ": id " in line]


def pause(record):
    """Let a run come past the line between its look and its payment only when no test holds that line."""
    if "is not paid yet" in record.msg:
        cache.add("come", 0)
        cache.incr("come")
        with cache.lock("hold", sleep=0.01, blocking_timeout=20):
            pass
    return True


def refuse(record):
    """Let a payment fail for as long as a test says so."""
    if "Paid for" in record.msg and cache.get("refuses"):
        raise ConnectionError("the payment is refused")
    return True


# The workers are forked from this process, so that what they log comes through here too.
for look in (pause, refuse):
    logging.getLogger("extensions.ran_twice.tasks").addFilter(look)


@pytest.fixture
def beat(rig):
    """Start beat on the given entries and no others."""
    before = current_app.conf.beat_schedule
    started = []

    def start(entries):
        current_app.conf.beat_schedule = entries
        started.append(rig.start_beat())
        return started[-1]

    yield start
    current_app.conf.beat_schedule = before
    for process in started:
        rig.kill(process)


# ---- how to tell


@pytest.mark.broken_by(r"told: .*'None'", file="tasks.py", old="['redelivered']", new=".get('again')")
def test_runs_of_one_message_have_the_same_id_and_the_later_one_was_redelivered(rig):
    """Two runs of one message have the same id and the same retry; of the second alone `redelivered` is true."""
    make_losses()
    with busy(rig):
        tasks.update_loss.delay(KILLMAILS[0])
        received(rig, 6)
        hours_pass(rig)
        received(rig, 7)
    ended(rig, LOSS, 2)
    both = told(rig)
    assert len({one["id"] for one in both}) == 1
    found = sorted((one["retry"], one["redelivered"]) for one in both)
    rig.same(found, [("0", "False"), ("0", "True")], "told: {}")


@pytest.mark.broken_by(r"told: .*'0', 'False'.*'0', 'False'", file="tasks.py", old="{request.retries}", new="0")
def test_a_retry_has_the_same_id_and_another_number(rig):
    """A retry has the id of the run before it, and the next number in `retries`; it was not redelivered."""
    tasks.update_loss.delay(KILLMAILS[0])
    rig.finished(LOSS)
    both = told(rig)
    assert len({one["id"] for one in both}) == 1
    rig.same([(one["retry"], one["redelivered"]) for one in both], [("0", "False"), ("1", "False")], "told: {}")


@pytest.mark.broken_by(r"told: .*'celery'", file="tasks.py", old="{request.origin}", new="{request.hostname}")
def test_two_starts_have_two_ids_and_name_the_process_that_sent_them(rig):
    """Two starts have two ids; each run names the number of the process that sent it, and no task that did."""
    make_losses()
    for _ in range(2):
        tasks.update_loss.delay(KILLMAILS[0])
    rig.settle()
    both = told(rig)
    assert len({one["id"] for one in both}) == 2
    found = {(one["sender"].partition("@")[0], one["parent"], one["entry"]) for one in both}
    rig.same(found, {(f"gen{os.getpid()}", "None", "None")}, "told: {}")
    rig.same([line for line in rig.logged() if ": id " not in line], [f"INFO Updated loss {KILLMAILS[0]}"] * 2, "{}")


@pytest.mark.broken_by(r"told: \{'None'\}", file="tasks.py", old="{request.parent_id}", new="{request.group}")
def test_what_a_task_starts_names_that_task(rig):
    """Two starts by one run of a task have two ids, and both name the id of that run."""
    make_losses()
    sent = tasks.update_losses.delay([KILLMAILS[0]] * 2)
    rig.settle()
    both = told(rig)
    assert len({one["id"] for one in both}) == 2
    rig.same({one["parent"] for one in both}, {sent.id}, "told: {}")


@pytest.mark.broken_by(r"told: .*'None', 'gen", file="tasks.py", old="periodic_task_name", new="periodic_task")
def test_what_beat_sends_names_the_entry_and_the_beat(rig, beat):
    """What beat sends names its entry, so that two entries are two, and the number of beat's process."""
    make_losses()
    entry = {"task": LOSS, "schedule": dt.timedelta(seconds=1), "args": [KILLMAILS[0]]}
    sender = f"gen{beat({'renamed': entry, 'old name': entry}).pid}"
    rig.finished(LOSS, 2)
    found = {(one["entry"], one["sender"].partition("@")[0], one["parent"]) for one in told(rig)}
    rig.same(found, {("renamed", sender, "None"), ("old name", sender, "None")}, "told: {}")


@pytest.mark.broken_by(
    r"the worker's log names the id",
    file="tasks.py",
    old='logger.info("Updated loss %d", loss.killmail_id)',
    new="logger.warning(self.request.id)",
)
def test_the_workers_log_does_not_name_the_id(rig):
    """With the command line of Alliance Auth the worker logs neither the receipt of a task nor its end, nor its id."""
    make_losses()
    tasks.update_loss.delay(KILLMAILS[0])
    (run,) = rig.finished(LOSS)
    lines = [line for line in rig.printed(rig.workers[0]).splitlines() if ": id " not in line]
    assert not [line for line in lines if run.id in line], "the worker's log names the id"
    assert not re.search("received|succeeded", "".join(lines))


@pytest.mark.fresh
@pytest.mark.broken_by(r"given back: \(None", **patched("kombu.transport.redis", "QoS.restore_at_shutdown = False"))
def test_what_a_stopped_worker_gives_back_counts_as_redelivered_too(rig):
    """A countdown that a stopped worker gives back counts as redelivered too, although it has not run."""
    tasks.update_loss.apply_async([KILLMAILS[0]], countdown=HOUR / 4)
    received(rig, 1)
    rig.stop(rig.workers[0])
    (waiting,) = [json.loads(raw) for raw in rig.redis.lrange(NORMAL, 0, -1)] or [{}]
    given = waiting.get("properties", {}).get("delivery_info", {}).get("redelivered")
    rig.same((given, told(rig)), (True, []), "given back: {}")


# ---- one message that is handed out again


@pytest.mark.broken_by(r"receipt number 6 of any task", conf={"worker_disable_prefetch": True})
@pytest.mark.broken_by(r"receipt number 7 of any task", **patience(6))
def test_a_task_that_waits_behind_long_ones_comes_again_each_hour(rig):
    """A task that a worker has fetched, and can't begin for an hour, is handed out again, and again after each hour.

    Each copy runs: here four, on Alliance Auth's worker, whose five threads were busy. Measured with messages that were
    made to look as old.
    """
    make_losses()
    with busy(rig):
        sent = tasks.pay_carelessly.delay(KILLMAILS[0])
        for copies in range(3):
            received(rig, 6 + copies)
            hours_pass(rig)
        received(rig, 9)
    ended(rig, APP + "pay_carelessly", 4)
    begun = starts(rig, APP + "pay_carelessly")
    rig.same((begun, payments()), ({sent.id: 4}, 4), "it started, and was paid: {}")
    since = {
        kind: [e["timestamp"] for e in rig.events if e.get("uuid") == sent.id and e["type"] == kind] for kind in KINDS
    }
    zero = since["task-sent"][0]
    rows = [
        row
        for number, (taken, begun, ended) in enumerate(
            zip(*(sorted(since[kind]) for kind in KINDS[1:]), strict=True), 1
        )
        for row in (
            (f"copy {number}", "held", taken - zero, begun - zero, "wait"),
            (f"copy {number}", "runs", begun - zero, ended - zero, "one"),
        )
    ]
    legend = [("wait", "held by the worker"), ("one", "runs")]
    rig.chart("copies", "timeline", rows, legend=legend, values={"copies": len(since["task-started"])})


@pytest.mark.workers({}, {"paused": True})
@pytest.mark.broken_by(r"the copies' return did not happen", **patience(6))
def test_another_worker_runs_the_copy_while_the_first_still_holds_the_task(rig):
    """Another worker runs the copy while the first still holds the task, which the first one then runs too."""
    make_losses()
    holder, other = (worker.node for worker in rig.workers)
    name = APP + "pay_carelessly"
    with busy(rig):
        # As many as a worker holds for later, so that it has no room for a copy.
        rig.send(tasks.pay_carelessly, 5, KILLMAILS[0])
        received(rig, 10)
        hours_pass(rig)
        rig.wait(lambda: rig.waiting() == {NORMAL: 5}, "the copies' return")
        rig.resume(1)
        rig.finished(name, 5)
        assert paid_of_each(rig)[:5] == [1] * 5
    ended(rig, name, 10)
    begun = [(e["uuid"], e["hostname"]) for e in rig.events if e["type"] == "task-started"]
    wanted = {(one, worker) for one in starts(rig, name) for worker in (holder, other)}
    assert wanted <= set(begun), f"started: {begun}"
    rig.same(paid_of_each(rig)[:5], [2] * 5, "paid {} times")


@pytest.mark.fresh
@pytest.mark.broken_by(r"receipt number 2 of any task", **patience(6))
def test_a_countdown_of_four_hours_is_handed_out_four_times_and_all_are_due_together(rig):
    """A countdown of just under four hours is handed out four times, and all four copies are due at the same instant.

    Measured with a message that was made to look as old.
    """
    tasks.pay.apply_async([KILLMAILS[0]], countdown=3.9 * HOUR)
    for copies in range(3):
        received(rig, 1 + copies)
        hours_pass(rig)
    received(rig, 4)
    due = {(event["uuid"], event["eta"]) for event in receipts(rig)}
    assert len(due) == 1, f"due at {due}"


@pytest.mark.fresh
@pytest.mark.broken_by(r"receipt number 3 of any task", **patience(6))
def test_a_retry_that_waits_for_more_than_an_hour_is_handed_out_again(rig):
    """A retry that waits for more than an hour is handed out again, with the same number and for the same time."""
    tasks.update_contracts.delay(CORPORATION)
    received(rig, 2)
    hours_pass(rig)
    received(rig, 3)
    rig.same([event["retries"] for event in receipts(rig)], [0, 1, 1], "the retries are {}")
    begun, first, second = receipts(rig)
    assert (first["uuid"], first["eta"]) == (second["uuid"], second["eta"])
    asked = dt.datetime.fromisoformat(first["eta"]).timestamp() - 2 * HOUR
    assert begun["timestamp"] < asked < first["timestamp"], f"due {asked - begun['timestamp']} s after two hours"


@pytest.mark.fresh
@pytest.mark.broken_by(r"the first|receipt number 5", conf={"worker_disable_rate_limits": True})
@pytest.mark.broken_by(r"receipt number 5 of", **patience(6))
def test_a_limited_task_that_waits_for_its_turn_is_handed_out_again(rig):
    """A task with a rate limit that waits for an hour for its turn is handed out again, and the worker holds it twice.

    The limit is four an hour, and the messages were made to look as old.
    """
    rig.send(tasks.update_history, 3, 90000001)
    received(rig, 3)
    rig.wait(lambda: rig.redis.hlen("unacked") == 2, "the acknowledgement of the first")
    hours_pass(rig)
    received(rig, 5)
    assert len(rig.finished(HISTORY)) == 1
    rig.same(rig.logged(), ["INFO Updated the history of character 90000001"], "it logged {}")
    rig.same(round(rate(tasks.update_history.rate_limit) * HOUR), 4, "{} an hour")
    assert sorted(Counter(event["uuid"] for event in receipts(rig)).values()) == [1, 2, 2]


@pytest.mark.broken_by(r"the return of what was held", conf={"worker_prefetch_multiplier": 3})
def test_what_waits_in_redis_is_handed_out_once(rig):
    """What waits in Redis is handed out once: of twelve tasks only the five come again that the worker holds."""
    with busy(rig):
        rig.send(tasks.update_wallet, 12, CORPORATION, kwargs={"balance": BALANCE})
        received(rig, 10)
        hours_pass(rig)
        rig.wait(lambda: sum(rig.waiting().values()) == 12, "the return of what was held")
    ended(rig, APP + "update_wallet", 17)
    rig.same(sorted(starts(rig, APP + "update_wallet").values()), [1] * 7 + [2] * 5, "started {} times")


@pytest.mark.workers({}, {"paused": True})
@pytest.mark.broken_by(
    r"it started on \['celery@worker_00'\]", file="tasks.py", old="(acks_late=True)", new="(acks_late=False)"
)
def test_with_acks_late_a_task_whose_worker_was_killed_starts_again(rig):
    """A task with `acks_late=True` whose worker was killed starts again on another one after an hour.

    Measured with a message that was made to look as old.
    """
    with rig.hold(ASSETS):
        tasks.update_assets.delay(90000001)
        rig.started(ASSETS)
        # A worker of prefork acknowledges early after it has told of the start, and before it answers.
        assert current_app.control.ping(destination=[rig.workers[0].node], timeout=60, limit=1)
        rig.kill(rig.workers[0])
    hours_pass(rig)
    rig.resume(1)
    tasks.update_wallet.delay(CORPORATION, BALANCE)
    rig.finished(APP + "update_wallet")
    rig.wait(lambda: not rig.redis.hlen("unacked"), "the end of what was held")
    # Its start is told before that of the next.
    tasks.update_wallet.delay(CORPORATION, BALANCE)
    rig.finished(APP + "update_wallet", 2)
    begun = [e["hostname"] for e in rig.events if e["type"] == "task-started" and e["uuid"] == rig.runs(ASSETS)[0].id]
    rig.same(begun, [worker.node for worker in rig.workers], "it started on {}")
    assert rig.logged() == ["INFO Updated the assets of character 90000001"]


@ALL_AT_ONCE
@pytest.mark.broken_by(r"receipt number 40 of", **patience(6))
def test_queue_once_does_not_keep_a_message_from_coming_again(rig):
    """With `QueueOnce` too a message that comes again runs again, although its lock is held: here 20 of 20 do."""
    regions = [(region,) for region in range(10000001, 10000021)]
    rejected = []
    begin_twice(
        rig,
        tasks.update_orders,
        regions,
        meanwhile=lambda: rejected.extend(tasks.update_orders.delay(*region).id for region in regions),
    )
    ended(rig, APP + "update_orders", 40)
    rig.same(sorted(starts(rig, APP + "update_orders").values()), [2] * 20, "started {} times")
    assert rejected == [None] * 20


@pytest.mark.workers
@pytest.mark.broken_by(
    r"paid for 1",
    file="tasks.py",
    old="@shared_task\ndef pay_careless",
    new="@shared_task(acks_late=True)\ndef pay_careless",
)
def test_deduplicating_successful_tasks_does_nothing_without_acks_late(rig, monkeypatch):
    """Celery's setting `worker_deduplicate_successful_tasks` does nothing for a task without `acks_late`.

    Measured on one thread, where the second run begins when the first has succeeded.
    """
    monkeypatch.setitem(current_app.conf, "worker_deduplicate_successful_tasks", True)
    make_losses()
    rig.start_worker(concurrency=1)
    with busy(rig, 1):
        tasks.pay_carelessly.delay(KILLMAILS[0])
        received(rig, 2)
        hours_pass(rig)
        rig.wait(lambda: rig.waiting() == {NORMAL: 1}, "the return of the message")
    ended(rig, APP + "pay_carelessly", 2)
    assert payments() == 2, f"paid for {payments():g}"


@pytest.mark.broken_by(r"printed ''", file="demo_held.py", old="if held:", new="if not held:")
def test_the_script_names_what_workers_hold_and_for_how_long(rig):
    """The script names what workers hold and have not begun, the oldest first, with its arguments and for how long."""
    with busy(rig):
        tasks.update_wallet.delay(CORPORATION, BALANCE)
        tasks.update_wallet.apply_async([CORPORATION + 1, BALANCE], countdown=HOUR / 4)
        received(rig, 7)
        tags = rig.redis.zrange("unacked_index", 0, -1)
        assert (rig.waiting(), len(tags)) == ({}, 2)
        for minutes, tag in zip((50.5, 20.5), tags, strict=True):
            rig.redis.zincrby("unacked_index", -60 * minutes, tag)
        of = APP + "update_wallet"
        rig.prints(
            "demo_held.py",
            f"{of}({CORPORATION}, {BALANCE}) has been held for 50 minutes\n"
            f"{of}[{CORPORATION + 1}, {BALANCE}] has been held for 20 minutes\n",
        )
    # Before the next claim begins.
    rig.finished(of)


@pytest.fixture
def options(monkeypatch):
    """Give this process, and the workers it starts, a copy of the transport options; return those of before."""
    before = current_app.conf.broker_transport_options
    monkeypatch.setitem(current_app.conf, "broker_transport_options", dict(before))
    return before


@pytest.mark.workers
@pytest.mark.broken_by(r"came again after 11.9 hours", file="demo_timeout.py", old="12 * 60", new="11 * 60")
@pytest.mark.broken_by(r"receipt number 42", file="demo_timeout.py", old="12 * 60", new="13 * 60")
def test_with_a_visibility_timeout_of_twelve_hours_nothing_comes_again_before(rig, options):
    """With a visibility timeout of twelve hours nothing that a worker holds comes again before, and after them it does.

    Here 20 tasks that wait behind long ones run once each; those that are older run twice.
    """
    rig.demo("demo_timeout.py")
    rig.start_worker(concurrency=20)
    with busy(rig, 20):
        rig.send(tasks.pay_carelessly, 20, KILLMAILS[0])
        make_losses()
        received(rig, 40)
        hours_pass(rig, 11.9)
        assert not rig.waiting(), f"{rig.waiting()} came again after 11.9 hours"
    rig.settle()
    assert set(starts(rig, APP + "pay_carelessly").values()) == {1}
    assert payments() == 20
    tasks.update_wallet.apply_async([CORPORATION, BALANCE], countdown=13 * HOUR)
    received(rig, 41)
    hours_pass(rig, 12.1)
    received(rig, 42)


@pytest.mark.workers
@pytest.mark.broken_by(r"receipt number 2", **patience(6))
def test_one_worker_with_the_old_timeout_gives_out_what_all_hold(rig, options, monkeypatch):
    """A longer timeout counts for the worker that has it: one that still has an hour gives out what the others hold."""
    rig.demo("demo_timeout.py")
    rig.start_worker()
    tasks.pay.apply_async([KILLMAILS[0]], countdown=6 * HOUR)
    received(rig, 1)
    hours_pass(rig)
    assert (rig.waiting(), rig.redis.hlen("unacked")) == ({}, 1)
    monkeypatch.setitem(current_app.conf, "broker_transport_options", options)
    hours_pass(rig, 0)
    received(rig, 2)


@pytest.mark.workers
@pytest.mark.broken_by(r"the timeout is 7200", **patched("celery.app.utils", KEEPS))
def test_auths_celery_py_overwrites_the_setting_in_local_py(rig, monkeypatch):
    """`BROKER_TRANSPORT_OPTIONS` in `local.py` has no effect: Alliance Auth's `celery.py` sets the option anew."""
    monkeypatch.setattr(settings, "BROKER_TRANSPORT_OPTIONS", {"visibility_timeout": 7200}, raising=False)
    monkeypatch.setattr(settings, "BROKER_POOL_LIMIT", 7, raising=False)
    ours = myauth.celery.app
    try:
        made = runpy.run_path(myauth.celery.__file__)["app"].conf
    finally:
        ours.set_current()
        ours.set_default()
    assert made.broker_pool_limit == 7
    rig.same(made.broker_transport_options.get("visibility_timeout"), None, "the timeout is {}")


@pytest.mark.workers
@pytest.mark.broken_by(
    r"the acknowledgement of the long ones", **patched("kombu.transport.redis", 'Transport.driver_type = "another"')
)
def test_a_worker_that_does_not_prefetch_holds_nothing_behind_long_tasks(rig, monkeypatch):
    """With `worker_disable_prefetch` a worker holds nothing behind long tasks: 20 that wait for hours run once each."""
    monkeypatch.setitem(current_app.conf, "worker_disable_prefetch", True)
    make_losses()
    rig.start_worker()
    with busy(rig):
        rig.send(tasks.pay_carelessly, 20, KILLMAILS[0])
        rig.wait(lambda: not rig.redis.hlen("unacked"), "the acknowledgement of the long ones")
        hours_pass(rig)
        rig.same(rig.waiting(), {NORMAL: 20}, "what waits is {}")
    rig.settle()
    rig.same(paid_of_each(rig), [1] * 20, "paid {} times")


@pytest.mark.broken_by(r"started \{2\}", **patched("celery.worker.request", "Request.revoked = lambda self: False"))
def test_revoking_the_id_stops_all_copies_of_a_countdown(rig):
    """Revoking the id stops every copy of a countdown that workers hold: of 20, handed out twice each, none runs."""
    ahead = 0.5
    for _ in range(4):
        began, before = time.monotonic(), len(receipts(rig))
        sent = [tasks.update_wallet.apply_async([CORPORATION, BALANCE], countdown=ahead).id for _ in range(20)]
        received(rig, before + 20)
        hours_pass(rig)
        received_or_late(rig, before + 40, began + ahead)
        assert current_app.control.revoke(sent, reply=True, timeout=10, limit=1), "the worker has not heard of it"
        took = time.monotonic() - began
        ended(rig, APP + "update_wallet", len(receipts(rig)))
        if took < ahead:
            break
        # The first may have been due before: a machine that takes longer gets more time.
        ahead = 2 * took

    def ends():
        found = Counter(event["uuid"] for event in rig.events if event["type"] in ENDS)
        return {found[one] for one in sent}

    # Two copies are one entry of `unacked`, which goes with the first.
    rig.wait(lambda: ends() == {2}, "two ends of each")
    begun = starts(rig, APP + "update_wallet")
    rig.same({begun[one] for one in sent}, {0}, "started {} times")
    revoked = Counter(event["uuid"] for event in rig.events if event["type"] == "task-revoked")
    assert {revoked[one] for one in sent} == {2}


@pytest.mark.broken_by(r"receipt number 7 of", **patience(6))
def test_revoking_the_id_does_not_stop_what_waits_for_a_thread(rig):
    """On the pool of threads, revoking does not stop what waits for a thread: it runs, and so does its copy."""
    with busy(rig):
        sent = tasks.update_wallet.delay(CORPORATION, BALANCE)
        received(rig, 6)
        hours_pass(rig)
        received(rig, 7)
        assert current_app.control.revoke(sent.id, reply=True, timeout=10, limit=1), "the worker has not heard of it"
    ended(rig, APP + "update_wallet", 2)
    rig.same(starts(rig, APP + "update_wallet"), {sent.id: 2}, "started {} times")


# ---- two messages


@pytest.mark.broken_by(r"accepted 20", file="tasks.py", old="@shared_task(base=QueueOnce)", new="@shared_task")
def test_of_twenty_starts_at_the_same_moment_queue_once_accepts_one(rig):
    """Of 20 starts of a `QueueOnce` task at the same moment one is accepted, and the task runs once."""
    ready, accepted = threading.Barrier(20), []

    def click():
        ready.wait()
        accepted.append(tasks.update_orders.delay(10000002).id)

    with rig.hold(APP + "update_orders"):
        threads = [threading.Thread(target=click) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    rig.settle()
    ids = [one for one in accepted if one]
    assert len(ids) == 1, f"accepted {len(ids)} of {len(accepted)}"
    assert starts(rig, APP + "update_orders") == {ids[0]: 1}
    rig.same(rig.logged(), ["INFO Updated the orders in region 10000002"], "it logged {}")


@pytest.mark.workers
@pytest.mark.broken_by(r"sent \{'first': 1, 'later': 1\}", **patched("django_celery_beat.schedulers", WRITES))
def test_a_beat_that_is_killed_sends_again_what_it_sent_last(rig, beat):
    """A beat that is killed sends again, at its next start, what it sent in its last three minutes, but for its first.

    Measured with an entry that it has just sent.
    """
    due = crontab(minute=(dt.datetime.now(dt.UTC).minute + 30) % 60)
    entries = {
        name: {"task": LOSS, "schedule": due, "kwargs": {"killmail_id": KILLMAILS[0]}}
        for name in ("first", "later", "last")
    }
    for name, entry in entries.items():
        ModelEntry.from_entry(name, app=current_app, **entry)
    long_ago = dt.datetime.now(dt.UTC) - dt.timedelta(days=2)
    PeriodicTask.objects.filter(name__in=entries).update(last_run_at=long_ago)

    def sent():
        messages = [json.loads(raw)["headers"] for key in rig.waiting() for raw in rig.redis.lrange(key, 0, -1)]
        return dict(Counter(headers["periodic_task_name"] for headers in messages))

    first = beat(entries)
    rig.wait(lambda: len(sent()) == 3, "one of each")
    rig.wait(lambda: PeriodicTask.objects.get(name="first").total_run_count, "a count in the first row")
    rig.kill(first)
    second = beat(entries | {"tick": entries["first"] | {"schedule": dt.timedelta(seconds=1)}})
    rig.wait(lambda: sent().get("tick"), "a sign of the next beat")
    found = sent()
    rig.same({name: found[name] for name in ("first", "later")}, {"first": 1, "later": 2}, "sent {}")
    assert second.alive


# ---- a task that may run twice


@ALL_AT_ONCE
@pytest.mark.broken_by(
    r"paid \[1, 1",
    file="tasks.py",
    old="""def pay_carelessly(killmail_id):
    withdraw(""",
    new="""def pay_carelessly(killmail_id):
    if Loss.objects.filter(killmail_id=killmail_id, paid=False).update(paid=True):
        withdraw(""",
)
def test_a_task_that_adds_or_takes_away_does_it_again(rig):
    """A task that takes away a value does so again in its second run: 20 losses are paid for 40 times."""
    make_losses()
    twice(rig, tasks.pay_carelessly, [(one,) for one in KILLMAILS])
    rig.same(paid_of_each(rig), [2] * 20, "paid {} times")
    assert payments() == 40
    drawn(rig, "takes away")


@ALL_AT_ONCE
@pytest.mark.broken_by(
    r"reached the payment did not happen",
    file="tasks.py",
    old="""    loss = Loss.objects.get(killmail_id=killmail_id)
    if not loss.paid:
        logger.info(""",
    new="""    loss = Loss.objects.get(killmail_id=killmail_id)
    if Loss.objects.filter(killmail_id=killmail_id, paid=False).update(paid=True):
        logger.info(""",
)
def test_looking_first_does_not_help_while_both_run(rig):
    """A task that looks first, and then acts, does so twice where both runs look before one has acted."""
    make_losses()
    with cache.lock("hold"):
        begin_twice(rig, tasks.pay_if_unpaid, [(one,) for one in KILLMAILS])
        rig.wait(lambda: cache.get("come", 0) == 40, "that all 40 have reached the payment")
    ended(rig, APP + "pay_if_unpaid", 40)
    rig.same(paid_of_each(rig), [2] * 20, "paid {} times")
    looked = Counter(line for line in rig.logged() if "not paid" in line)
    rig.same(looked, {f"INFO Loss {one} is not paid yet": 2 for one in KILLMAILS}, "looked: {}")
    rig.same(set(Loss.objects.values_list("paid", flat=True)), {True}, "paid, say the rows: {}")
    drawn(rig, "looks first")


@ALL_AT_ONCE
@pytest.mark.broken_by(
    r"paid \[.*2", file="tasks.py", old="if unpaid.update(paid=True):", new="if unpaid.update(paid=True) is not None:"
)
def test_a_task_that_claims_its_row_with_one_update_pays_once(rig):
    """A task that claims its row with one `update()`, and acts if that changed a row, pays each of 20 losses once."""
    make_losses()
    twice(rig, tasks.pay, [(one,) for one in KILLMAILS])
    rig.same(paid_of_each(rig), [1] * 20, "paid {} times")
    assert payments() == 20
    drawn(rig, "claims its row")


@pytest.mark.workers({"concurrency": 20}, {"concurrency": 20, "paused": True})
@pytest.mark.broken_by(
    r"paid \[.*2", file="tasks.py", old="if unpaid.update(paid=True):", new="if unpaid.update(paid=True) is not None:"
)
def test_a_task_that_claims_its_row_pays_once_where_it_was_sent_twice(rig):
    """So it does where the task was sent twice, and two workers run both at the same time: 20 losses are paid once."""
    make_losses()
    with rig.hold(APP + "pay"):
        rig.send(tasks.pay, 20, KILLMAILS[0])
        rig.started(APP + "pay", 20)
        # The first worker has no room for more: the other one gets the rest.
        rig.send(tasks.update_structures, 20, 99000001)
        received(rig, 40)
        rig.send(tasks.pay, 20, KILLMAILS[0])
        rig.resume(1)
        rig.started(APP + "pay", 40)
    rig.settle()
    assert set(Counter(run.worker for run in rig.runs(APP + "pay")).values()) == {20}
    structures = sorted(line for line in rig.logged() if "structures" in line)
    rig.same(
        structures, [f"INFO Updated the structures of alliance {99000001 + one}" for one in range(20)], "logged {}"
    )
    rig.same(paid_of_each(rig), [1] * 20, "paid {} times")
    assert payments() == 20


@ALL_AT_ONCE
@pytest.mark.broken_by(
    # MariaDB takes no lock outside a transaction.
    r"paid \[.*2|'failed'",
    file="tasks.py",
    old="""def pay_locked(killmail_id):
    with transaction.atomic():""",
    new="""def pay_locked(killmail_id):
    if True:""",
)
def test_a_task_that_locks_its_row_before_it_looks_pays_once(rig):
    """A task that locks its row in a transaction before it looks pays each of 20 losses once.

    Measured on SQLite, where it is the transaction that locks, with `transaction_mode` IMMEDIATE.
    """
    make_losses()
    twice(rig, tasks.pay_locked, [(one,) for one in KILLMAILS])
    rig.same(paid_of_each(rig), [1] * 20, "paid {} times")
    assert payments() == 20
    assert set(Loss.objects.values_list("paid", flat=True)) == {True}


@ALL_AT_ONCE
@pytest.mark.broken_by(r"paid \[.*2", file="tasks.py", old="        if created:", new="        if created is not None:")
def test_a_task_that_makes_a_unique_row_pays_once(rig):
    """A task that makes a row of which there can be one only, and acts if it was made, pays each of 20 losses once."""
    make_losses()
    twice(rig, tasks.pay_recorded, [(one,) for one in KILLMAILS])
    rig.same(paid_of_each(rig), [1] * 20, "paid {} times")
    assert payments() == 20
    assert sorted(Payment.objects.values_list("killmail_id", flat=True)) == list(KILLMAILS)
    assert Payment._meta.get_field("killmail_id").unique


@pytest.mark.broken_by(
    r"by pay: 20 paid for by what failed",
    file="tasks.py",
    old="    with transaction.atomic():\n        if unpaid",
    new="    if True:\n        if unpaid",
)
@pytest.mark.broken_by(
    r"by pay_recorded: 20 paid for by what failed",
    file="tasks.py",
    old="    with transaction.atomic():\n        _, created",
    new="    if True:\n        _, created",
)
def test_where_the_payment_fails_the_next_run_pays(rig):
    """Where the payment fails, the transaction takes back the row too, claimed or made: the next run pays, 20 of 20.

    So it is where the row was locked.
    """
    for task in (tasks.pay, tasks.pay_recorded, tasks.pay_locked):
        for rows in (Loss, Wallet):
            rows.objects.all().delete()
        make_losses()
        before = paid_of_each(rig)
        cache.set("refuses", 1)
        for one in KILLMAILS:
            task.delay(one)
        ended(rig, task.name, 20)
        assert {run.state for run in rig.runs(task.name)} == {"failed"}
        rig.same(round(payments()), 0, f"by {task.__name__}: {{}} paid for by what failed")
        cache.delete("refuses")
        for one in KILLMAILS:
            task.delay(one)
        ended(rig, task.name, 40)
        now = [count - earlier for count, earlier in zip(paid_of_each(rig), before, strict=True)]
        rig.same(now, [1] * 20, f"by {task.__name__}: paid {{}} times")
        assert payments() == 20


@ALL_AT_ONCE
@pytest.mark.broken_by(
    r"the balances are",
    file="tasks.py",
    old='Wallet.objects.update_or_create(corporation_id=corporation_id, defaults={"balance": balance})',
    new="from django.db import models\n\n    "
    'Wallet.objects.get_or_create(corporation_id=corporation_id, defaults={"balance": 0})\n'
    '    Wallet.objects.filter(corporation_id=corporation_id).update(balance=models.F("balance") + balance)',
)
def test_a_task_that_stores_a_value_stores_the_same_again(rig):
    """A task that stores a value as it is, with `update_or_create()`, has stored the same after its second run."""
    Wallet.objects.create(corporation_id=CORPORATION, balance=1)
    twice(rig, tasks.update_wallet, [(CORPORATION + number, number) for number in range(20)])
    found = list(Wallet.objects.order_by("corporation_id").values_list("corporation_id", "balance"))
    rig.same(found, [(CORPORATION + number, number) for number in range(20)], "the balances are {}")


@ALL_AT_ONCE
@pytest.mark.broken_by(r"== \{'succeeded'\}", file="tasks.py", old=", ignore_conflicts=True", new="")
def test_rows_that_are_there_already_are_left_out(rig):
    """`bulk_create()` with `ignore_conflicts` leaves out what is there: 20 tasks with five losses each make 100."""
    calls = [(CORPORATION, [[one * 10 + place, VALUE] for place in range(5)]) for one in range(20)]
    twice(rig, tasks.store_losses, calls)
    found = sorted(Loss.objects.values_list("killmail_id", "corporation_id", "value", "paid"))
    wanted = [(number // 5 * 10 + number % 5, CORPORATION, VALUE, False) for number in range(100)]
    rig.same(found, wanted, "the losses are {}")


@ALL_AT_ONCE
@pytest.mark.broken_by(
    r"announced \[.*2",
    file="tasks.py",
    old="if cache.add(mark, 1, timeout=24 * 60 * 60):",
    new="if cache.add(mark, 1, timeout=24 * 60 * 60) is not None:",
)
def test_a_mark_with_the_id_of_the_message_leaves_the_second_run_out(rig):
    """A task that marks the id of its message in the cache, and acts if the mark is new, announces 20 losses once."""
    make_losses()
    twice(rig, tasks.announce, [(one,) for one in KILLMAILS])
    announced = Counter(rig.logged())
    rig.same([announced[f"INFO Announced loss {one}"] for one in KILLMAILS], [1] * 20, "announced {} times")


@pytest.mark.broken_by(r"announced 1 time", file="tasks.py", old="-{self.request.retries}", new="")
@pytest.mark.broken_by(r"the mark lasts", file="tasks.py", old="timeout=24 *", new="timeout=23 *")
def test_a_mark_leaves_out_neither_a_retry_nor_another_message_but_what_failed(rig):
    """The mark lasts a day. It leaves out the same message even if that failed, but no retry and no other message."""
    name = APP + "announce"
    tasks.announce.apply_async([KILLMAILS[0]], task_id="one")
    (run,) = rig.finished(name)
    assert run.state == "failed"
    make_losses()

    def announced():
        return rig.logged().count(f"INFO Announced loss {KILLMAILS[0]}")

    tasks.announce.apply_async([KILLMAILS[0]], task_id="one")
    rig.wait(lambda: starts(rig, name)["one"] == 2, "the second run")
    rig.settle()
    assert announced() == 0
    tasks.announce.apply_async([KILLMAILS[0]], task_id="one", retries=1)
    tasks.announce.apply_async([KILLMAILS[0]], task_id="two")
    rig.wait(lambda: starts(rig, name) == {"one": 3, "two": 1}, "the others")
    rig.settle()
    rig.same(announced(), 2, "announced {} time(s)")
    left = cache.ttl("ran_twice-announce-two-0")
    assert 24 * HOUR - 60 < left <= 24 * HOUR, f"the mark lasts for {left} s"


# ---- a retry


def make_pilot(character_id=95000001, name="Kaia Tennen"):
    EveCharacter.objects.create(character_id=character_id, character_name=name, corporation_id=CORPORATION)


def pay_and_tell(rig, task):
    """Start `task` for each loss of a pilot whom Auth does not know, so that it fails and is tried again."""
    make_losses()
    make_pilot(95000002, "Another")
    for one in KILLMAILS:
        task.delay(one, 95000001)
    rig.finished(task.name, 20)
    assert set(starts(rig, task.name).values()) == {2}


@pytest.mark.broken_by(
    r"paid for 0",
    file="tasks.py",
    old="""def pay_and_tell_carelessly(killmail_id, character_id):
    withdraw(Loss.objects.get(killmail_id=killmail_id))
    pilot = EveCharacter.objects.get(character_id=character_id)
""",
    new="""def pay_and_tell_carelessly(killmail_id, character_id):
    pilot = EveCharacter.objects.get(character_id=character_id)
    withdraw(Loss.objects.get(killmail_id=killmail_id))
""",
)
def test_a_retry_does_again_what_the_task_did_before_it_failed(rig):
    """A retry does again what the task did before it failed: 20 losses, tried twice each, are paid for 40 times."""
    pay_and_tell(rig, tasks.pay_and_tell_carelessly)
    assert payments() == 40, f"paid for {payments():g}"
    make_pilot()
    tasks.pay_and_tell_carelessly.delay(KILLMAILS[0], 95000001)
    rig.finished(APP + "pay_and_tell_carelessly", 21)
    assert rig.logged()[-1] == f"INFO Told Kaia Tennen of loss {KILLMAILS[0]}"


@pytest.mark.broken_by(
    r"paid for 40",
    file="tasks.py",
    old="""def pay_and_tell(killmail_id, character_id):
    with transaction.atomic():""",
    new="""def pay_and_tell(killmail_id, character_id):
    if True:""",
)
def test_a_transaction_takes_back_what_a_failed_attempt_did(rig):
    """A transaction takes back what a failed attempt did: 20 losses are not paid by it, and once when it succeeds."""
    pay_and_tell(rig, tasks.pay_and_tell)
    assert payments() == 0, f"paid for {payments():g}"
    make_pilot()
    for one in KILLMAILS:
        tasks.pay_and_tell.delay(one, 95000001)
    rig.finished(APP + "pay_and_tell", 40)
    rig.settle()
    assert payments() == 20, f"paid for {payments():g}"
    rig.same(
        sorted(line for line in rig.logged() if "Told" in line),
        [f"INFO Told Kaia Tennen of loss {one}" for one in KILLMAILS],
        "logged {}",
    )


@pytest.mark.broken_by(
    r"the balance is 900000000",
    file="tasks.py",
    old="""def pay_carelessly(killmail_id):
    withdraw(""",
    new="""def pay_carelessly(killmail_id):
    if Loss.objects.filter(killmail_id=killmail_id, paid=True):
        withdraw(""",
)
def test_of_two_starts_both_pay_but_of_the_task_that_claims_its_row_one(rig):
    """Of two starts of the careless task both pay; of the task that claims its row, one."""
    for file, balance in {"demo_carelessly.py": 400_000_000, "demo.py": 650_000_000}.items():
        for rows in (Loss, Wallet):
            rows.objects.all().delete()
        # The second time with the rows that the first has left.
        for _ in range(2):
            rig.settle(after=file)
            rig.same(Wallet.objects.get().balance, balance, "the balance is {}")
    rig.same(rig.logged(), ["INFO Paid for loss 123456789"] * 6, "logged {}")
    started = Counter(run.name for run in rig.runs())
    assert started == {APP + "pay_carelessly": 4, APP + "pay": 4}, f"started {started}"
    Loss.objects.update(paid=False)
    tasks.pay.delay(123456789)
    rig.settle()
    rig.same(Wallet.objects.get().balance, 400_000_000, "after one start more the balance is {}")
