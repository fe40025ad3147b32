import fcntl
import json
import logging
import os
import signal
import threading
import time
from collections import Counter
from configparser import ConfigParser
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from math import ceil
from pathlib import Path

import pytest
from allianceauth.crontab.models import CronOffset
from allianceauth.crontab.schedulers import OffsetDatabaseScheduler
from celery import chain, current_app
from celery.signals import heartbeat_sent
from django.core.cache import cache
from django.utils import timezone
from django_celery_beat.models import PeriodicTask
from kombu.asynchronous import get_event_loop
from kombu.exceptions import OperationalError

from vanished import tasks
from vanished.models import Report

CORPORATION = "vanished.tasks.update_corporation"
WALLET = "vanished.tasks.update_wallet"
ORDERS = "vanished.tasks.update_orders"
ASSETS = "vanished.tasks.update_assets"
KILLMAILS = "vanished.tasks.update_killmails"
STRUCTURES = "vanished.tasks.update_structures"
WRITE = "vanished.tasks.write_report"
LOCK = "qo_vanished.tasks.update_structures_corporation_id-"
ENTRY = "vanished_write_missing_reports"
BY_AUTH = {"priority_steps": list(range(10)), "queue_order_strategy": "priority"}
IMPATIENT = {"unacked_restore_interval": 0.2, "unacked_restore_throttle": 1}
HOUR = 3600
LOGGER = "logger = get_extension_logger(__name__)\n"
PLAIN = "@shared_task\ndef update_corporation"
LATE = "@shared_task(acks_late=True)\ndef update_wallet"


def on(signal_name, code):
    """Break the chapter's tasks: on this signal of Celery's, `code` runs, where `redis` is a client of the broker."""
    return {
        "file": "tasks.py",
        "old": LOGGER,
        "new": f"{LOGGER}import os\nfrom celery import current_app\nfrom celery.signals import {signal_name}\n\n\n"
        f"@{signal_name}.connect(weak=False)\ndef broken(**_):\n"
        "    connection = current_app.connection_for_write()\n"
        f"    channel = connection.default_channel\n    redis = channel.client\n    {code}\n",
    }


def as_task(old, options):
    """Break one task: give it other options."""
    return {"file": "tasks.py", "old": old, "new": f"@shared_task({options})\n{old.partition(chr(10))[2]}"}


def _beside(name):
    return Path(os.environ["LAB_DATABASE"]).with_name(name)


def die(record):
    """Kill the process that does its work, as the kernel does where memory is short, while a test asks for it.

    A worker with threads has acknowledged before what it acknowledges early.
    """
    if record.levelname == "INFO" and _beside("deadly").exists():
        kill = partial(os.kill, os.getpid(), signal.SIGKILL)
        if threading.current_thread() is threading.main_thread():
            kill()
        # Its loop has the acknowledgement to do by now, and does what is new only a round later.
        loop = get_event_loop()
        loop.call_soon(loop.call_soon, kill)
        threading.Event().wait()
    return True


def pause(record):
    """Let a report be written to its end only when no test holds it."""
    if "Report on" in record.msg:
        cache.set("comes", 1)
        with cache.lock("hold", sleep=0.01, blocking_timeout=20):
            pass
    return True


def beat(**_):
    """Tell that a heartbeat is due, and let it go on only when no test holds that of this process."""
    with suppress(FileNotFoundError), _beside(f"heart-{os.getpid()}").open("r+") as heart:
        heart.write("due")
        heart.flush()
        fcntl.flock(heart, fcntl.LOCK_SH)


# The workers are forked from this process, so that what they log and send comes through here too.
for look in (die, pause):
    logging.getLogger("extensions.vanished.tasks").addFilter(look)
heartbeat_sent.connect(beat)


@pytest.fixture
def deadly():
    """Each task of the chapter kills its process when it tells of its work, until the file is removed."""
    _beside("deadly").touch()
    yield _beside("deadly")
    _beside("deadly").unlink(missing_ok=True)


def told(rig):
    """Return the ids of the corporations in what the tasks tell of their work, in order."""
    lines = [line for line in rig.logged() if line.startswith("INFO ")]
    return sorted(int(word) for line in lines for word in line.split() if word.isdigit())


def held(rig, unacked, waiting):
    """Wait until so many messages are held by workers, and so many wait."""
    words = f"{unacked} in unacked, {waiting} waiting"
    rig.wait(lambda: (rig.redis.hlen("unacked"), sum(rig.waiting().values())) == (unacked, waiting), words)


def logged(rig, count):
    """Wait until the tasks have logged so many lines, whether events tell of them or not."""
    rig.wait(lambda: len(rig.logged()) >= count, f"line {count} of the tasks")


def starts(rig, name):
    return sum(event["type"] == "task-started" for event in rig.events if event.get("uuid") in ids(rig, name))


def ids(rig, name):
    return {run.id for run in rig.runs(name)}


def told_to_stop(rig, worker):
    worker.signal(signal.SIGTERM)
    rig.wait(lambda: "Warm shutdown" in rig.printed(worker), "the shutdown's begin")


def gone(worker, seconds=15):
    """See that a worker ends by itself, and return its exit code."""
    assert worker.join(seconds), "the worker lives on"
    return worker.exitcode


def supervisor():
    conf = ConfigParser(interpolation=None, inline_comment_prefixes=(";",))
    conf.read("supervisor.conf")
    return conf["program:worker"]


def give_back(rig):
    """Put what a killed worker held back into Redis."""
    with current_app.connection_for_write() as connection:
        for tag in rig.redis.zrange("unacked_index", 0, -1):
            connection.default_channel.qos.restore_by_tag(tag)


# A worker is killed.


@pytest.mark.workers({}, {"paused": True})
@pytest.mark.broken_by(r"5 in unacked, 10 waiting did not happen", **as_task(PLAIN, "acks_late=True"))
@pytest.mark.broken_by(r"5 in unacked, 10 waiting did not happen", conf={"worker_disable_prefetch": True})
def test_a_killed_worker_loses_what_it_runs_and_leaves_the_rest(rig):
    """Of 20 tasks, a worker of five threads that is killed loses the five it runs; five stay in `unacked`, ten wait.

    The next worker runs the ten.
    """
    with rig.hold(CORPORATION):
        rig.send(tasks.update_corporation, 20, 98000001)
        rig.started(CORPORATION, 5)
        held(rig, 5, 10)
        # What it has not told yet would be lost with it.
        rig.wait(lambda: sum(run.received is not None for run in rig.runs()) == 10, "the receipt of ten")
        killed = max(run.received for run in rig.runs() if run.received)
        rig.kill(rig.workers[0])
    rig.resume(1)
    rig.finished(CORPORATION, 10)
    held(rig, 5, 0)
    rig.same(told(rig), list(range(98000011, 98000021)), "updated: {}")
    runs = sorted(rig.runs(CORPORATION), key=lambda run: run.args)
    until = max(run.ended for run in runs if run.ended)
    rows = []
    for number, run in enumerate(runs, 1):
        name = f"task {number}"
        if run.ended:
            rows.append((name, "waits", run.sent, run.started, "wait"))
            rows.append((name, "runs", run.started, run.ended, "one", "ran"))
        elif run.started:
            rows.append((name, "runs", run.started, killed, "three", "lost"))
        else:
            rows.append((name, "held", run.received, until, "two", "in unacked"))
    rig.chart(
        "killed",
        "timeline",
        rows,
        legend=[
            ("three", "runs until the kill: lost"),
            ("two", "held: stays in unacked"),
            ("one", "runs on the next worker"),
        ],
        values={"sent": len(runs), "lost": 5, "held": rig.redis.hlen("unacked"), "ran": len(told(rig))},
    )


@pytest.mark.fresh
@pytest.mark.broken_by(r"is left in unacked", **as_task(LATE, ""))
def test_with_acks_late_nothing_of_a_killed_worker_is_lost(rig):
    """With `acks_late` all five tasks that a worker ran when it was killed are left in `unacked`, begun or not.

    With threads `reject_on_worker_lost` changes nothing about that.
    """
    with rig.hold(WALLET), rig.hold(ASSETS):
        rig.send(tasks.update_wallet, 3, 98000001)
        rig.send(tasks.update_assets, 2, 98000004)
        rig.started(WALLET, 3)
        rig.started(ASSETS, 2)
        rig.kill(rig.workers[0])
    left = rig.redis.hlen("unacked")
    assert left == 5, f"{left} is left in unacked"
    assert rig.waiting() == {}, f"{rig.waiting()} waits"


@pytest.mark.workers({}, {"paused": True})
@pytest.mark.broken_by(
    r"5 was given back after", conf={"broker_transport_options": {**BY_AUTH, "visibility_timeout": 3000}}
)
def test_what_a_killed_worker_held_runs_when_the_visibility_timeout_is_over(rig):
    """What a killed worker left in `unacked` goes back into its list when the visibility timeout is over, an hour.

    Then the next worker runs it. Measured with messages that were made to look as old.
    """
    with rig.hold(WALLET):
        rig.send(tasks.update_wallet, 5, 98000001)
        rig.started(WALLET, 5)
        rig.kill(rig.workers[0])
    with current_app.connection_for_read() as connection:
        for minutes, back in ((59, 0), (61, 5)):
            for tag in rig.redis.zrange("unacked_index", 0, -1):
                rig.redis.zadd("unacked_index", {tag: time.time() - minutes * 60})
            # As each worker does now and then.
            connection.default_channel.qos.restore_visible(interval=1)
            waiting = sum(rig.waiting().values())
            assert waiting == back, f"{waiting} was given back after {minutes} minutes"
    rig.resume(1)
    rig.finished(WALLET, 5)
    held(rig, 0, 0)
    rig.same(told(rig), list(range(98000001, 98000006)), "updated: {}")


GIVE_BACK = "channel.qos.restore_by_tag(tag)"


@pytest.mark.workers({}, {}, {"paused": True, "concurrency": 1})
@pytest.mark.broken_by(
    r"0 in unacked, 20 waiting did not", file="demo_give_back.py", old=GIVE_BACK, new="channel.qos.reject(tag)"
)
@pytest.mark.broken_by(r"in the order", file="demo_give_back.py", old=", desc=True", new="")
def test_the_script_gives_back_what_killed_workers_held(rig):
    """The script puts all that killed workers left in `unacked` back into Redis, and each of 20 tasks runs once.

    They run before what waits already, in the order in which the workers had taken them.
    """
    with rig.hold(CORPORATION), rig.hold(WALLET):
        rig.send(tasks.update_wallet, 10, 98000001)
        rig.started(WALLET, 10)
        rig.send(tasks.update_corporation, 10, 98000011)
        held(rig, 10, 10)
        tags = rig.redis.zrange("unacked_index", 0, -1)
        order = [json.loads(rig.redis.hget("unacked", tag))[0]["headers"]["id"] for tag in tags]
        for worker in rig.workers[:2]:
            rig.kill(worker)
        # It is there already, and can't answer.
        rig.workers[2].signal(signal.SIGSTOP)
        rig.prints("demo_give_back.py", "10 given back\n")
        held(rig, 0, 20)
    rig.workers[2].signal(signal.SIGCONT)
    rig.resume(2)
    rig.finished(count=20)
    held(rig, 0, 0)
    rig.same(told(rig), list(range(98000001, 98000021)), "updated: {}")
    ran = [event["uuid"] for event in rig.events if event["type"] == "task-succeeded"]
    assert ran[:10] == order, f"in the order {ran}"


@pytest.mark.broken_by(
    r"printed '1 given back", file="demo_give_back.py", old="if current_app", new="if not current_app"
)
def test_while_a_worker_answers_the_script_gives_nothing_back(rig):
    """While any worker answers, the script changes nothing, since the worker may run what is in `unacked`."""
    with rig.hold(WALLET):
        tasks.update_wallet.delay(98000001)
        rig.started(WALLET)
        rig.prints("demo_give_back.py", "A worker answers: stop all workers first\n")
        held(rig, 1, 0)
    rig.settle()
    rig.same(told(rig), [98000001], "updated: {}")


@pytest.mark.broken_by(r"printed ''", **as_task(LATE, ""))
def test_the_script_names_what_workers_have_taken_and_not_acknowledged(rig):
    """The script names each task in `unacked`, with its arguments and how many minutes ago a worker has taken it."""
    with rig.hold(WALLET):
        rig.send(tasks.update_wallet, 2, 98000001)
        rig.started(WALLET, 2)
        tags = {json.loads(value)[0]["headers"]["argsrepr"]: tag for tag, value in rig.redis.hgetall("unacked").items()}
        for number, minutes in ((1, 42), (2, 7)):
            tag = tags.get(f"({98000000 + number},)")
            if tag:
                rig.redis.zadd("unacked_index", {tag: time.time() - 60 * minutes})
        # One that was acknowledged in between.
        rig.redis.zadd("unacked_index", {"another": time.time() - 60 * 20})
        rig.prints(
            "demo_held.py",
            f"{WALLET} (98000001,) taken 42 minutes ago\n{WALLET} (98000002,) taken 7 minutes ago\n",
        )
        rig.redis.zrem("unacked_index", "another")
    rig.settle()


@pytest.mark.workers({"paused": True}, {"paused": True}, {"paused": True})
@pytest.mark.broken_by(r"logged \['INFO", file="tasks.py", old="> 2", new="> 3")
@pytest.mark.broken_by(
    r"the end of the worker did not happen", **as_task("@shared_task(bind=True, acks_late=True)\ndef", "bind=True")
)
def test_a_task_that_kills_its_worker_is_given_up_at_the_third_attempt(rig, deadly):
    """A task with `acks_late` that kills its worker kills the next one too.

    One that counts its attempts in the cache is given up at the third.
    """
    sent = tasks.update_orders.delay(98000001)
    for number, worker in enumerate(rig.workers[:2]):
        rig.resume(number)
        rig.wait(lambda worker=worker: not worker.alive, "the end of the worker", 5)
        give_back(rig)
    left = cache.ttl(f"vanished-attempts-{sent.id}")
    assert HOUR * 23.9 < left <= HOUR * 24, f"the count lasts for {left} s"
    deadly.unlink()
    rig.resume(2)
    rig.wait(lambda: rig.logged() or not rig.waiting(), "the third attempt")
    rig.settle()
    rig.same([worker.exitcode for worker in rig.workers], [-9, -9, None], "its workers: {}")
    rig.same(rig.logged(), ["ERROR Orders of corporation 98000001 given up"], "logged {}")
    tasks.update_orders.delay(98000002)
    rig.settle()
    rig.same(rig.logged()[1:], ["INFO Orders of corporation 98000002 updated"], "then {}")


@pytest.mark.workers({}, {"paused": True})
@pytest.mark.broken_by(
    r"written: .*98000005, 98000006, 98000006",
    file="tasks.py",
    old="corporation_id, written_at=None)",
    new="corporation_id)",
)
@pytest.mark.broken_by(r"20 reports did not happen", file="models.py", old="minutes=15", new="hours=15")
def test_a_periodic_task_starts_again_what_is_not_done(rig):
    """The periodic task starts again what is not done after a quarter of an hour; each of 20 reports is written once.

    Five were running when the worker was killed, five were held and came back later, ten were deleted with their list.
    """
    asked_at = timezone.now() - timedelta(minutes=15)
    numbers = range(98000001, 98000021)
    Report.objects.bulk_create(Report(corporation_id=number, asked_at=asked_at) for number in numbers)
    Report.objects.create(corporation_id=98000021, asked_at=asked_at + timedelta(minutes=5))
    Report.objects.create(corporation_id=98000022)
    with rig.hold(WRITE):
        rig.send(tasks.write_report, 20, 98000001)
        rig.started(WRITE, 5)
        held(rig, 5, 10)
        rig.kill(rig.workers[0])
        rig.redis.delete(*rig.waiting())
    rig.resume(1)
    tasks.write_missing_reports.delay()
    missing = Report.objects.filter(written_at=None)
    rig.wait(lambda: missing.count() == 2, "the writing of 20 reports")
    give_back(rig)
    rig.finished(WRITE, 25)
    held(rig, 0, 0)
    rig.same(told(rig), list(numbers), "written: {}")
    rig.same(sorted(report.pk for report in missing), [98000021, 98000022], "missing: {}")


@pytest.mark.workers({}, {"paused": True})
@pytest.mark.broken_by(
    r"missing: \[(\d+(, \d+){0,3})?\]",
    file="tasks.py",
    old="    with transaction.atomic():\n        if missing",
    new="    if True:\n        if missing",
)
def test_a_report_whose_worker_is_killed_while_it_is_written_is_not_done(rig):
    """A report whose worker is killed while it is written is not done: the transaction takes the mark back.

    The periodic task has it written, and the four that the worker had begun, too.
    """
    numbers = list(range(98000001, 98000006))
    asked_at = timezone.now() - timedelta(minutes=15)
    Report.objects.bulk_create(Report(corporation_id=number, asked_at=asked_at) for number in numbers)
    with cache.lock("hold"):
        rig.send(tasks.write_report, 5, 98000001)
        rig.started(WRITE, 5)
        rig.wait(lambda: cache.get("comes"), "a report that is being written")
        rig.kill(rig.workers[0])
    missing = Report.objects.filter(written_at=None).order_by("pk")
    rig.same([report.pk for report in missing], numbers, "missing: {}")
    rig.resume(1)
    tasks.write_missing_reports.delay()
    rig.finished(WRITE, 5)
    rig.same(told(rig), numbers, "written: {}")


@pytest.mark.broken_by(r"logged \[\]", file="models.py", old="asked_at__lte", new="asked_at__gte")
def test_the_periodic_task_writes_two_reports_that_nobody_wrote(rig):
    """The periodic task starts the task of two reports that were asked for an hour ago, and both are written."""
    lines = [f"INFO Report on corporation {number} written" for number in (98000001, 98000002)]
    # The second time with the reports that the first has left, written.
    for times in (1, 2):
        rig.settle(after="demo.py")
        rig.same(sorted(rig.logged()), sorted(lines * times), "logged {}")
    tasks.write_missing_reports.delay()
    rig.settle()
    started = Counter(run.name for run in rig.runs())
    rig.same(started, {tasks.write_missing_reports.name: 3, WRITE: 4}, "started {}")
    asked = [timezone.now() - report.asked_at for report in Report.objects.all()]
    assert all(timedelta(hours=1) <= ago < timedelta(hours=1.1) for ago in asked), f"asked for {asked} ago"
    tasks.update_killmails.delay(98000001)
    rig.settle()
    rig.same(rig.logged()[4:], ["INFO Kills of corporation 98000001 updated"], "then {}")


@pytest.mark.workers
@pytest.mark.broken_by(r"it starts", file="local.py", old='tasks.write_missing_reports",', new='tasks.write_report",')
@pytest.mark.broken_by(r"at minutes", file="local.py", old='"apply_offset": True', new='"apply_offset": False')
def test_the_entry_starts_the_periodic_task_each_quarter_of_an_hour(rig):
    """The entry of `local.py` starts the task four times an hour, at minutes that the installation's offset shifts."""
    OffsetDatabaseScheduler(app=current_app, lazy=True).update_from_dict(
        {ENTRY: dict(current_app.conf.beat_schedule[ENTRY])}
    )
    row = PeriodicTask.objects.get(name=ENTRY)
    rig.same(row.task, tasks.write_missing_reports.name, "it starts {}")
    shift = round(60 * CronOffset.get_solo().minute)
    minutes = ",".join(str(minute) for minute in sorted((minute + shift) % 60 for minute in (0, 15, 30, 45)))
    rig.same((row.crontab.minute, row.crontab.hour), (minutes, "*"), "at minutes {}")


# A worker is stopped.

STOPPING = "worker_shutting_down"


@pytest.mark.workers({}, {"paused": True})
@pytest.mark.broken_by(r"-9 == 0", **on(STOPPING, "os.kill(os.getpid(), 9)"))
@pytest.mark.broken_by(
    r"updated: \[98000001, (98000001|98000002, 98000002)",
    file="tasks.py",
    old='logger.info("Wallet of corporation %s updated", corporation_id)',
    new='logger.info("Wallet of corporation %s updated", corporation_id)\n'
    '    if not update_wallet.request.delivery_info["redelivered"]:\n'
    "        from celery.exceptions import Reject\n\n        raise Reject(requeue=True)",
)
def test_a_restart_of_the_workers_loses_and_doubles_none_of_twenty_tasks(rig):
    """When a worker is stopped with SIGTERM and another starts, as in a deploy, each of 20 tasks runs once.

    The five that run end, two with `acks_late` among them; what has not begun by then goes back into Redis.
    """
    with rig.hold(CORPORATION), rig.hold(WALLET):
        rig.send(tasks.update_wallet, 2, 98000001)
        rig.send(tasks.update_corporation, 18, 98000003)
        rig.started(WALLET, 2)
        rig.started(CORPORATION, 3)
        told_to_stop(rig, rig.workers[0])
    assert gone(rig.workers[0]) == 0
    waiting = sum(rig.waiting().values())
    ended = told(rig)
    rig.resume(1)
    rig.finished(count=20)
    held(rig, 0, 0)
    rig.same(told(rig), list(range(98000001, 98000021)), "updated: {}")
    assert ended[:5] == [98000001, 98000002, 98000003, 98000004, 98000005], f"{ended} ended"
    assert len(ended) + waiting == 20, f"{ended} ended, {waiting} wait"


@pytest.mark.fresh
@pytest.mark.broken_by(
    r"4 in unacked, 0 waiting did not happen",
    **on(STOPPING, "[channel.qos.restore_by_tag(tag) for tag in redis.hkeys('unacked')]"),
)
def test_a_worker_killed_in_its_shutdown_has_given_nothing_back(rig):
    """A worker gives back what it holds at the end of its shutdown only: killed before, it leaves all in `unacked`.

    That is so for held tasks as for countdowns. Supervisor kills it after 600 seconds.
    """
    (worker,) = rig.workers
    with rig.hold(CORPORATION):
        tasks.update_corporation.apply_async([98000009], countdown=600)
        rig.send(tasks.update_corporation, 8, 98000001)
        rig.started(CORPORATION, 5)
        held(rig, 4, 0)
        told_to_stop(rig, worker)
        # It has stopped taking any.
        rig.wait(lambda: not current_app.control.ping(destination=[worker.node], timeout=0.1), "the end of its answers")
        held(rig, 4, 0)
        rig.kill(worker)
    held(rig, 4, 0)
    rig.same(told(rig), [], "updated: {}")
    rig.same(supervisor()["stopwaitsecs"], "600", "supervisor waits {} s")


@pytest.mark.workers
@pytest.mark.broken_by(
    r"it has ended",
    file="tasks.py",
    old=LOGGER,
    new=f"{LOGGER}import os\nfrom celery.concurrency.thread import TaskPool\n"
    "TaskPool.terminate_job = lambda *_: os._exit(1)\n",
)
def test_a_soft_shutdown_of_threads_waits_for_every_task_whatever_its_timeout(rig, monkeypatch):
    """With threads the soft shutdown that SIGQUIT begins waits until each task has ended, whatever its timeout.

    It may have put back by then what it runs with `acks_late`. Measured with a `worker_soft_shutdown_timeout` of 0.1
    seconds, after ten times as many.
    """
    monkeypatch.setitem(current_app.conf, "worker_soft_shutdown_timeout", 0.1)
    worker = rig.start_worker()
    with rig.hold(WALLET):
        rig.send(tasks.update_wallet, 5, 98000001)
        rig.started(WALLET, 5)
        worker.signal(signal.SIGQUIT)
        rig.wait(lambda: "terminating in 0.1 seconds" in rig.printed(worker), "the shutdown's begin")
        assert not worker.join(1), "it has ended"
    gone(worker)
    rig.wait(lambda: not rig.redis.hlen("unacked"), "the end of what is held")
    assert sum(rig.waiting().values()) in (0, 5), f"{rig.waiting()} wait"
    rig.same(told(rig), list(range(98000001, 98000006)), "updated: {}")


# The pool prefork.


@pytest.mark.workers
@pytest.mark.broken_by(
    r"became of them: \['rejected', 'failed'", **as_task(PLAIN, "acks_late=True, reject_on_worker_lost=True")
)
@pytest.mark.broken_by(
    r"became of them: \['failed', 'rejected'", **as_task(LATE, "acks_late=True, reject_on_worker_lost=True")
)
@pytest.mark.broken_by(
    r"became of them: .*'failed', 'retried'", file="tasks.py", old=", reject_on_worker_lost=True", new=""
)
@pytest.mark.broken_by(r"'failed', 'failed'\]", file="tasks.py", old="retry_on_worker_lost=True, ", new="")
@pytest.mark.broken_by(r"'retried', 'retried'\]", file="tasks.py", old="max_retries=2", new="max_retries=3")
def test_with_prefork_a_killed_process_loses_a_task_unless_it_asks_for_another_start(rig, monkeypatch, deadly):
    """With prefork a killed process fails its task with `WorkerLostError`, also with `acks_late`; the worker lives on.

    With `acks_late` and `reject_on_worker_lost` it starts again, each time. With `retry_on_worker_lost` it is retried,
    as often as `max_retries` allows.
    """
    # Celery waits ten seconds for what a lost process may still have to tell.
    monkeypatch.setitem(current_app.conf, "worker_lost_wait", 0.1)
    worker = rig.start_worker(pool="prefork", concurrency=5)
    names = (tasks.update_corporation, tasks.update_wallet, tasks.update_assets, tasks.update_killmails)
    order = [task.delay(98000001).id for task in names]
    order.append(tasks.update_killmails.apply_async([98000001], retries=2).id)
    ends = {"task-failed", "task-rejected", "task-retried"}

    def fates():
        found = {}
        for event in rig.events:
            if event["type"] in ends:
                found.setdefault(event["uuid"], event["type"].removeprefix("task-"))
        return [found.get(one) for one in order]

    rig.wait(lambda: all(fates()), "word of each loss", 20)
    rig.same(fates(), ["failed", "failed", "rejected", "retried", "failed"], "what became of them: {}")
    rejected = order[2]
    count = sum(event["type"] == "task-rejected" for event in rig.events)
    rig.wait(lambda: sum(event["type"] == "task-rejected" for event in rig.events) > count, "another loss", 20)
    deadly.unlink()
    rig.wait(lambda: next(run for run in rig.runs() if run.id == rejected).state == "succeeded", "a start in peace", 20)
    held(rig, 1, 0)
    (message,) = [json.loads(message)[0]["headers"] for message in rig.redis.hvals("unacked")]
    (retried,) = [event for event in rig.events if event["type"] == "task-retried"]
    due = datetime.fromisoformat(message["eta"]).timestamp() - retried["timestamp"]
    assert 10 < due <= 60, f"it is due in {due} s"
    rig.same(rig.logged(), ["INFO Assets of corporation 98000001 updated"], "logged {}")
    assert "WorkerLostError" in rig.printed(worker)
    rig.stop(worker)


# Redis is restarted. No worker runs, unless the claim is about the worker.


def restarted(rig, how):
    """Send 20 tasks, end Redis, start it again, and return how many wait."""
    rig.send(tasks.update_corporation, 20, 98000001)
    rig.same(sum(rig.waiting().values()), 20, "{} waited before")
    getattr(rig.server, how)()
    rig.server.start()
    return sum(rig.waiting().values())


def lost_sight(rig):
    """Wait until a worker has seen that Redis is gone."""
    rig.wait(lambda: "ConnectionError" in rig.printed(rig.workers[0]), "the loss of the connection", 30)


def ready(rig):
    """Wait until the last worker takes tasks and orders."""
    node = [rig.workers[-1].node]
    rig.wait(lambda: current_app.control.ping(destination=node, timeout=0.25, limit=1), "the worker's answer", 30)


SENT = "after_task_publish"


@pytest.mark.workers
@pytest.mark.server(save='""')
@pytest.mark.broken_by(r"\[20|40 waited", **on(SENT, "redis.config_set('save', '3600 1')"))
def test_without_persistence_a_restart_of_redis_loses_all_that_waits(rig):
    """With `save ""` and no `appendonly`, a Redis that was stopped, or killed, has lost all tasks that waited."""
    left = [restarted(rig, how) for how in ("stop", "kill")]
    assert left == [0, 0], f"{left} are left"


@pytest.mark.workers
@pytest.mark.server
@pytest.mark.broken_by(r"20 wait.*, 20 after", **on(SENT, "redis.save()"))
@pytest.mark.broken_by(r"0 wait after a stop", **on(SENT, "redis.config_set('save', '')"))
def test_with_redis_own_defaults_a_stop_keeps_all_and_a_kill_loses_the_last_hour(rig):
    """With Redis' own defaults a stop keeps what waits; a kill loses what came since the last snapshot.

    Snapshots are taken once an hour, and more often only if there are 100 changes in five minutes.
    """
    stopped = restarted(rig, "stop")
    rig.redis.delete("celery\x06\x165")
    rig.redis.save()
    killed = restarted(rig, "kill")
    assert (stopped, killed) == (20, 0), f"{stopped} wait after a stop, {killed} after a kill"
    rig.same(rig.redis.config_get("save")["save"], "3600 1 300 100 60 10000", "snapshots: {}")


@pytest.mark.workers({"paused": True})
@pytest.mark.server(appendonly="yes")
@pytest.mark.broken_by(r"(0|1) wait", **on(SENT, "redis.config_set('appendonly', 'no')"))
def test_with_appendonly_a_killed_redis_loses_and_doubles_none_of_twenty_tasks(rig):
    """With `appendonly yes` all 20 tasks that waited in a Redis that was killed are there again, and run once."""
    left = restarted(rig, "kill")
    assert left == 20, f"{left} wait"
    ready(rig)
    rig.resume()
    logged(rig, 20)
    held(rig, 0, 0)
    rig.same(told(rig), list(range(98000001, 98000021)), "updated: {}")


@pytest.mark.workers
@pytest.mark.server
@pytest.mark.broken_by(r"20 wait after", **on(SENT, "redis.config_set('appendonly', 'yes')"))
@pytest.mark.broken_by(r"0 after config set", file="demo_appendonly.py", old='"yes"', new='"no"')
def test_appendonly_is_switched_on_in_the_running_redis_first_or_all_is_lost(rig):
    """A Redis that is stopped and finds `appendonly yes` for the first time when it starts has lost all that waited.

    One in which it was switched on while it ran, with the script, keeps it.
    """
    rig.send(tasks.update_corporation, 20, 98000001)
    rig.server.stop()
    rig.server.start(appendonly="yes")
    lost = sum(rig.waiting().values())
    rig.redis.config_set("appendonly", "no")
    rig.server.stop()
    rig.server.start(appendonly="no", appendfilename="another.aof")
    rig.send(tasks.update_corporation, 20, 98000001)
    rig.demo("demo_appendonly.py")
    rig.wait(lambda: not rig.redis.info("persistence")["aof_rewrite_in_progress"], "the first file")
    rig.server.kill()
    rig.server.start(appendonly="yes")
    kept = sum(rig.waiting().values())
    assert (lost, kept) == (0, 20), f"{lost} wait after a start with it, {kept} after config set"


@pytest.mark.server(appendonly="yes")
@pytest.mark.broken_by(r"the worker lives|update of .* did not happen", conf={"broker_connection_retry": False})
def test_a_worker_takes_tasks_again_after_each_restart_of_redis(rig):
    """A worker that lives through a restart of Redis, be it stopped or killed, takes tasks again; three in a row."""
    (worker,) = rig.workers
    for number, how in enumerate(("stop", "kill", "stop"), 98000001):
        getattr(rig.server, how)()
        rig.server.start()
        tasks.update_corporation.delay(number)
        rig.wait(lambda number=number: number in told(rig), f"the update of {number}")
        held(rig, 0, 0)
    assert worker.alive, "the worker lives no more"
    assert current_app.control.ping(timeout=5, limit=1), "it answers no more"
    # What it takes up as the connection is lost may run twice.
    rig.same(sorted({*told(rig)}), [98000001, 98000002, 98000003], "updated: {}")


@pytest.mark.server(appendonly="yes")
@pytest.mark.broken_by(
    r"a line of each of the 20 did not", **on("worker_ready", "redis.config_set('appendonly', 'no')")
)
def test_over_a_restart_of_redis_what_a_worker_runs_goes_on_and_what_it_holds_may_run_twice(rig):
    """When Redis comes back with its data, what a worker runs goes on, once; what it holds runs once or twice.

    What waits runs once, and a countdown that the worker holds stays in `unacked`.
    """
    with rig.hold(CORPORATION):
        tasks.update_corporation.apply_async([98000000], countdown=600)
        rig.send(tasks.update_corporation, 20, 98000001)
        rig.started(CORPORATION, 5)
        held(rig, 6, 10)
        rig.wait(lambda: sum(run.received is not None for run in rig.runs()) == 11, "the receipt of eleven")
        holds = {int(run.args[1:-2]) for run in rig.runs() if run.received and not run.started}
        rig.server.stop()
        rig.server.start()
        lost_sight(rig)
        ready(rig)
    rig.wait(lambda: len({*told(rig)}) == 20, "a line of each of the 20")
    held(rig, 1, 0)
    times = Counter(told(rig))
    rig.same(sorted(times), list(range(98000001, 98000021)), "updated: {}")
    assert all(count == 1 or (number in holds and count == 2) for number, count in times.items()), f"ran {times}"


@pytest.mark.server(appendonly="yes")
@pytest.mark.broken_by(
    r"the failure of the link did not happen",
    conf={"task_publish_retry_policy": {"max_retries": 1000, "interval_start": 0.1, "interval_max": 0.1}},
)
def test_a_chain_ends_with_the_link_that_ends_while_redis_is_away(rig):
    """A link that ends while Redis is away can't send the next one: it counts as failed, and the chain ends there."""
    (worker,) = rig.workers
    with rig.hold(CORPORATION):
        chain(tasks.update_corporation.si(98000001), tasks.update_wallet.si(98000002)).delay()
        rig.started(CORPORATION)
        held(rig, 0, 0)
        rig.server.kill()
    rig.wait(lambda: "raised unexpected: OperationalError" in rig.printed(worker), "the failure of the link")
    rig.server.start()
    ready(rig)
    tasks.update_assets.delay(98000003)
    logged(rig, 2)
    held(rig, 0, 0)
    wanted = ["INFO Corporation 98000001 updated", "INFO Assets of corporation 98000003 updated"]
    rig.same(rig.logged(), wanted, "logged {}")


@pytest.mark.workers
@pytest.mark.server
@pytest.mark.broken_by(
    r"the worker lives on", **on("worker_init", "current_app.conf.broker_connection_max_retries = None")
)
def test_a_worker_gives_up_when_redis_stays_away_and_supervisor_starts_it_again(rig, monkeypatch):
    """A worker that can't reach Redis tries again 100 times, then ends with exit code 1; measured with one try.

    Unless its heartbeat is due as Redis goes: then it does not give up. Measured without heartbeats, so that none is.
    Auth's `supervisor.conf` starts it again, says its `autorestart`.
    """
    assert current_app.conf.broker_connection_max_retries == 100
    monkeypatch.setitem(current_app.conf, "broker_connection_max_retries", 1)
    worker = rig.start_worker(heartbeat=False)
    rig.server.kill()
    assert gone(worker) == 1
    rig.server.start()
    rig.same(supervisor()["autorestart"], "true", "supervisor starts it again: {}")


@pytest.mark.workers
@pytest.mark.server
@pytest.mark.broken_by(
    r"it logged .*Connection to broker lost",
    file="tasks.py",
    old=LOGGER,
    new=f"{LOGGER}from celery.worker.heartbeat import Heart\nHeart._send.__defaults__ = (False,)\n",
)
def test_a_worker_whose_heart_beats_as_redis_goes_waits_without_a_word_and_takes_tasks_again(rig, monkeypatch):
    """A worker whose heartbeat is due as Redis goes logs nothing, does not give up, and takes tasks when it is back.

    A heartbeat is due each two seconds. Measured with one try, over the time after which another worker has given up.
    """
    monkeypatch.setitem(current_app.conf, "broker_connection_max_retries", 1)
    worker, other = rig.start_worker(), rig.start_worker(heartbeat=False)
    heart = _beside(f"heart-{worker.pid}")
    with heart.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        rig.wait(heart.read_text, "a heartbeat")
        before = rig.printed(worker)
        rig.server.kill()
        heart.unlink()
    assert gone(other) == 1
    rig.same(rig.printed(worker).removeprefix(before), "", "it logged {}")
    rig.server.start()
    rig.send(tasks.update_corporation, 1, 98000001)
    logged(rig, 1)
    rig.same((told(rig), worker.alive), ([98000001], True), "updated, and alive: {}")


# Redis is full.


def fill(rig):
    """Let Redis have no memory left."""
    rig.redis.config_set("maxmemory", rig.redis.info("memory")["used_memory"] - 100_000)


@pytest.mark.server
@pytest.mark.broken_by(
    r"DID NOT RAISE|did not happen|lives on|OutOfMemoryError",
    **on("worker_ready", "redis.config_set('maxmemory-policy', 'allkeys-lru')"),
)
def test_a_full_redis_takes_no_task_and_ends_the_worker(rig):
    """Where Redis is full, starting a task raises `OperationalError`, and the worker ends with exit code 1.

    So does one that is started then. On prefork that may last half a minute: a process of the pool waits for its
    results to be read. When there is room, what waits runs, but for the message that the worker was taking: that may be
    lost. What the worker held may run twice, or stay in `unacked`.
    """
    with rig.hold(CORPORATION):
        rig.send(tasks.update_corporation, 20, 98000001)
        rig.started(CORPORATION, 5)
        held(rig, 5, 10)
        fill(rig)
        with pytest.raises(OperationalError, match="maxmemory"):
            tasks.update_corporation.delay(98000021)
    assert gone(rig.workers[0], 45) == 1
    # Either it has ended already, or whether it answers can't be asked for.
    with pytest.raises(Exception, match="maxmemory"):
        rig.start_worker()
    assert gone(rig.workers[-1], 45) == 1
    rig.redis.config_set("maxmemory", 0)
    rig.start_worker()
    once, held_then = Counter(range(98000001, 98000021)), Counter(range(98000006, 98000011))
    rest = once - Counter([98000011])

    def safe():
        ran = Counter(told(rig))
        kept = [json.loads(text)[0]["headers"]["argsrepr"] for text in rig.redis.hvals("unacked")]
        return ran >= rest - held_then and ran + Counter(int(args.strip("(,)")) for args in kept) >= rest

    rig.wait(safe, "the run of what waits")
    ran = Counter(told(rig))
    assert ran <= once + held_then, f"updated: {ran}"


@pytest.mark.workers
@pytest.mark.server
@pytest.mark.broken_by(r"maxmemory", **on(SENT, "redis.config_set('maxmemory-policy', 'noeviction')"))
def test_an_allkeys_policy_throws_whole_lists_of_tasks_away(rig):
    """With a policy such as `allkeys-lru` a full Redis throws away what waits, whole lists at a time, for the cache."""
    rig.same(evicted(rig, "allkeys-lru"), {}, "{} waits")


@pytest.mark.workers
@pytest.mark.server
@pytest.mark.broken_by(r"0 waits", **on(SENT, "redis.config_set('maxmemory-policy', 'allkeys-lru')"))
def test_a_volatile_policy_keeps_what_waits_and_may_drop_locks(rig):
    """With a policy such as `volatile-lru` a full Redis keeps what waits; it drops what has a timeout, locks too."""
    cache.add(f"{LOCK}98000001", "lock")
    rig.same(sum(evicted(rig, "volatile-lru").values()), 20, "{} waits")
    assert not cache.get(f"{LOCK}98000001"), "the lock is held"


def evicted(rig, policy):
    """Send 20 tasks, fill the cache with more than Redis has room for, and return what waits."""
    rig.redis.config_set("maxmemory-policy", policy)
    rig.send(tasks.update_corporation, 20, 98000001)
    rig.redis.config_set("maxmemory", rig.redis.info("memory")["used_memory"] + 100_000)
    for number in range(100):
        cache.set(f"page {number}", "x" * 10_000)
    return rig.waiting()


@pytest.mark.workers
@pytest.mark.server
@pytest.mark.broken_by(r"printed", file="demo_redis.py", old='"save", ', new="")
def test_the_script_says_what_redis_keeps_and_throws_away(rig):
    """The script prints when Redis saves, and what it does when it is full; Redis' own defaults evict nothing."""
    rig.prints(
        "demo_redis.py",
        "save = 3600 1 300 100 60 10000\nappendonly = no\nmaxmemory = 0\nmaxmemory-policy = noeviction\n",
    )


# What has expired or was revoked.


@pytest.mark.broken_by(r"the worker printed", **on("task_revoked", "print('thrown away')"))
def test_an_expired_task_leaves_no_line_in_any_log(rig):
    """A task that has expired before a worker took it is thrown away, without a line in any log."""
    tasks.update_corporation.apply_async([98000001], expires=0)
    (run,) = rig.finished(CORPORATION)
    rig.settle()
    assert run.state == "revoked", f"it {run.state}"
    lines = rig.printed(rig.workers[0]) + rig.log_file("extensions.log") + rig.log_file("allianceauth.log")
    assert lines == "", f"the worker printed {lines}"


@pytest.mark.broken_by(r"rejected: 20", file="demo_expires.py", old=', once={"timeout": 600}', new="")
def test_a_lock_with_the_timeout_of_the_expiry_is_free_when_the_task_has_expired(rig):
    """A lock whose timeout is what the task's `expires` says is free when the task has expired: 20 of 20.

    Measured with one second in place of 600.
    """
    given, start = [], tasks.update_structures.apply_async

    def noted(*args, **options):
        given.append((args, options))
        return start(*args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tasks.update_structures, "apply_async", noted)
        rig.settle(after="demo_expires.py")
    ((args, options),) = given
    rig.same((args, options["expires"]), (([98000001],), 600), "the call is {}")
    once = {"timeout": ceil(options.get("once", {}).get("timeout", 600 * 3600) / 600)}
    numbers = range(98000002, 98000022)
    for number in numbers:
        assert tasks.update_structures.apply_async([number], expires=1, once=once, queue="nobody").id
    rig.wait(lambda: not cache.keys(f"{LOCK}*") or once["timeout"] > 1, "the end of the locks")
    rejected = [number for number in numbers if not tasks.update_structures.delay(number).id]
    assert not rejected, f"rejected: {len(rejected)}"
    # Before it is free, it is taken.
    for taken in (True, False):
        again = tasks.update_structures.apply_async([98000099], expires=600, once={"timeout": 600}, queue="nobody")
        assert bool(again.id) == taken, f"the lock is {'taken' if taken else 'free'} already"
    rig.redis.delete("nobody\x06\x165")
    rig.finished(STRUCTURES, 21)
    rig.same(told(rig), [98000001, *numbers], "updated: {}")
