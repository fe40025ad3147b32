import ctypes
import fcntl
import io
import json
import logging
import os
import re
import signal
import threading
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import redis
from celery import current_app
from celery.signals import before_task_publish
from django.core.cache import cache
from django.core.management import call_command

from how_full import tasks
from how_full.signals import note_time
from how_full.state import messages, state, workers

UPDATE = "how_full.tasks.update_corporation"
STRUCTURES = "how_full.tasks.update_structures"
WALLET = "how_full.tasks.update_wallet"
ORDERS = "how_full.tasks.update_orders"
IMPORT = "how_full.tasks.import_assets"
CARELESSLY = "how_full.tasks.import_carelessly"
MEMBERS = "how_full.tasks.import_members"
AT_FIVE = "celery\x06\x165"
PATIENT = 60
PLAIN = "@shared_task\ndef update_corporation"
AT_SERVICES = PLAIN.replace("task", "task(queue='services')", 1)
EACH_BY_ITSELF = (
    "import types; found = []\n"
    "        say = lambda name: lambda *given: found.append(getattr(channel.client, name)(*given))\n"
    '        pipe = types.SimpleNamespace(llen=say("llen"), lindex=say("lindex"), hvals=say("hvals"))\n'
    "        pipe.execute = lambda: found\n"
    "        if True:"
)


def _freezer():
    return Path(os.environ["LAB_DATABASE"]).with_name("frozen")


def pause(record):
    """Let a run come past a line that it logs only when no test holds that line, or freezes its whole worker."""
    line = record.getMessage()
    if _freezer().exists():
        with _freezer().open() as file:
            # Called through PyDLL it keeps Python's lock, as a long regular expression does.
            ctypes.PyDLL(None).flock(file.fileno(), fcntl.LOCK_SH)
    cache.add(f"come to {line}", 0, timeout=None)
    cache.incr(f"come to {line}")
    with cache.lock(f"hold {line}", sleep=0.01, blocking_timeout=20):
        return True


# The workers are forked from this process, so that what they log comes through here too.
logging.getLogger("extensions.how_full.tasks").addFilter(pause)


@contextmanager
def frozen(rig):
    """While it lasts, a task that comes to a line it logs keeps all threads of its worker from going on."""
    path = _freezer()
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            path.unlink()
            fcntl.flock(file, fcntl.LOCK_UN)


@contextmanager
def held(*lines):
    """Hold each run that comes to one of `lines`, before it logs it."""
    with ExitStack() as stack:
        for line in lines:
            stack.enter_context(cache.lock(f"hold {line}"))
        yield


def come(rig, line, count=1):
    """Wait until `count` runs have come to `line`."""
    rig.wait(lambda: cache.get(f"come to {line}", 0) >= count, f"{count} x {line!r}")


def taken(rig, count):
    """Wait until workers hold so many messages."""
    rig.wait(lambda: rig.redis.hlen("unacked") == count, f"{count} in unacked")


def waits(rig, **wanted):
    """Wait until so many messages wait: `celery` at priority 5, `services`."""
    rig.wait(lambda: {row["queue"]: row["count"] for row in messages()[0]} == wanted, f"{wanted} waiting")


def drop(rig):
    """Drop what no worker shall take any more."""
    rig.redis.delete(*rig.waiting())


def filled(rig):
    """Fill a worker of five threads: two countdowns, five tasks that run, five more that it holds, two that wait."""
    rig.send(tasks.update_corporation, 2, 98000001, countdown=3000)
    taken(rig, 2)
    rig.send(tasks.update_corporation, 12, 98000003)
    rig.started(UPDATE, 5)
    taken(rig, 7)
    waits(rig, celery=2)


# The command.


@pytest.mark.broken_by(r"it counts", file="state.py", old="range(10)", new="range(9)")
@pytest.mark.broken_by(r"it counts", file="state.py", old='("celery", "services")', new='("celery",)')
@pytest.mark.workers
def test_the_command_counts_both_queues_at_all_ten_priorities(rig):
    """The command counts what waits in both queues at each of the ten priorities; `LLEN celery` counts priority 0."""
    counts = [1, 0, 2, 3, 0, 12, 4, 8, 0, 5]
    for priority, count in enumerate(counts):
        rig.send(tasks.update_corporation, count, 98000001, priority=priority)
        rig.send(tasks.update_corporation, 10 - priority, 98000001, priority=priority, queue="services")
    began = time.monotonic()
    found = {(row["queue"], row["priority"]): row["count"] for row in state(PATIENT)["waiting"]}
    assert time.monotonic() - began < PATIENT / 2, "it waits for workers although there is none"
    wanted = {("celery", priority): count for priority, count in enumerate(counts) if count}
    wanted |= {("services", priority): 10 - priority for priority in range(10)}
    rig.same(found, wanted, "it counts {}")
    assert rig.redis.llen("celery") == 1
    rig.chart(
        "lists",
        "bars",
        [("LLEN celery", [1, *[0] * 9]), ("the command, queue celery", counts)],
        {"seen": 1, "all": sum(counts)},
        unit="priority",
        counted="messages that wait",
    )


@pytest.mark.broken_by(r"sent 0 min ago", file="state.py", old="pipe.lindex(name, -1)", new="pipe.lindex(name, 0)")
@pytest.mark.workers
def test_the_command_says_when_the_next_message_of_each_list_was_sent(rig):
    """For each list the command says when the message was sent that is the next to be taken, the oldest."""
    rig.send(tasks.update_corporation, 3, 98000001)
    # The oldest is made older by an hour.
    oldest = json.loads(rig.redis.rpop(AT_FIVE))
    oldest["headers"]["sent_at"] -= 3600
    rig.redis.rpush(AT_FIVE, json.dumps(oldest))
    printed = output()
    assert "celery, priority 5: 3 waiting, the next one sent 60 min ago\n" in printed, f"it prints {printed}"
    (row,) = messages()[0]
    assert 3600 <= row["seconds"] < 3660, row


@pytest.mark.broken_by(r"60 min|0 min", file="state.py", old='.get("sent_at") if', new='.get("sent_at", 0) if')
@pytest.mark.workers
def test_celerys_own_message_does_not_say_when_it_was_sent(rig):
    """Celery's own message holds no time of its sending; the command then says that the time is not known."""
    before_task_publish.disconnect(note_time)
    try:
        rig.send(tasks.update_corporation, 1, 98000001)
    finally:
        before_task_publish.connect(note_time)
    message = rig.redis.lindex(AT_FIVE, -1).decode()
    year = time.gmtime().tm_year
    assert not re.search(rf"{year}-|\b1[6-9]\d{{8}}\b", message), message
    printed = output()
    assert "1 waiting, the next one sent at an unknown time\n" in printed, f"it prints {printed}"


def output(wait=PATIENT):
    """Return what the command prints."""
    out = io.StringIO()
    call_command("how_full", "--wait", str(wait), stdout=out)
    return out.getvalue()


@pytest.mark.broken_by(r"it counts", file="state.py", old="with channel.client.pipeline() as pipe:", new=EACH_BY_ITSELF)
@pytest.mark.workers
def test_one_transaction_counts_each_message_once_while_they_move(rig):
    """While 20 messages move between lists and `unacked`, each of 200 looks in one transaction counts 20."""
    rig.send(tasks.update_corporation, 20, 98000001)
    over = threading.Event()
    moved = []

    def move():
        with redis.Redis.from_url(current_app.conf.broker_url) as client:
            while not over.is_set():
                for source, target in ((AT_FIVE, "celery"), ("celery", "services\x06\x169")):
                    client.lmove(source, target, "RIGHT", "LEFT")
                message = client.lindex("services\x06\x169", -1)
                with client.pipeline() as pipe:
                    pipe.rpop("services\x06\x169")
                    pipe.hset("unacked", "tag", json.dumps([json.loads(message)]))
                    pipe.execute()
                with client.pipeline() as pipe:
                    pipe.hdel("unacked", "tag")
                    pipe.lpush(AT_FIVE, message)
                    pipe.execute()
                moved.append(1)

    mover = threading.Thread(target=move)
    mover.start()
    try:
        found = set()
        for _ in range(200):
            waiting, held_by_workers = messages()
            found.add(sum(row["count"] for row in waiting) + len(held_by_workers))
    finally:
        over.set()
        mover.join()
    rig.same(found, {20}, "it counts {}")
    assert len(moved) > 20, f"only {len(moved)} moved"


@pytest.mark.workers({"paused": True})
@pytest.mark.broken_by(r"found in 1 place", file="tasks.py", old="@shared_task(acks_late=True)", new="@shared_task")
def test_counts_taken_one_after_the_other_count_a_task_twice_or_not_at_all(rig):
    """Counted first in its list and then in `unacked`, a task that a worker takes in between counts twice.

    The other way round it does not count at all.
    """
    with rig.hold(STRUCTURES):
        tasks.update_structures.delay(98000001)
        before = rig.redis.hlen("unacked"), rig.redis.llen(AT_FIVE)
        rig.resume()
        rig.started(STRUCTURES)
        after = rig.redis.hlen("unacked"), rig.redis.llen(AT_FIVE)
    rig.finished(STRUCTURES)
    rig.same(before[1] + after[0], 2, "found in {} place")
    rig.same(before[0] + after[1], 0, "found in {} places")


@pytest.mark.fresh
@pytest.mark.broken_by(r"printed", file="state.py", old='"held": len(due)', new='"held": len(taken)')
@pytest.mark.broken_by(r"printed", conf={"worker_disable_prefetch": True})
def test_the_command_tells_apart_what_waits_is_held_is_scheduled_and_runs(rig):
    """The command tells apart what waits, what a worker holds and has not begun, what is scheduled, and what runs."""
    with rig.hold(UPDATE):
        filled(rig)
        rig.prints(
            "demo_state.py",
            "celery, priority 5: 2 waiting, the next one sent 0 min ago\n"
            "held by workers, not begun: 5; scheduled: 2\n"
            f"{rig.workers[0].node} runs: {', '.join([UPDATE] * 5)}\n"
            "locks of QueueOnce: 0\n",
        )
    rig.finished(UPDATE, 12)


@pytest.mark.broken_by(r"held: 3", file="state.py", old='if headers["id"] not in begun', new="")
def test_a_task_with_acks_late_counts_once_while_it_runs(rig):
    """A task with `acks_late` is in `unacked` while it runs; the command counts it among those that run alone."""
    with rig.hold(STRUCTURES):
        rig.send(tasks.update_structures, 3, 98000001)
        rig.started(STRUCTURES, 3)
        assert rig.redis.hlen("unacked") == 3
        found = state(PATIENT)
    rig.finished(STRUCTURES, 3)
    rig.same(found["held"], 0, "held: {}")
    assert found["running"] == {rig.workers[0].node: [STRUCTURES] * 3}


@pytest.mark.workers({}, {"paused": True}, {"paused": True}, {"paused": True})
@pytest.mark.broken_by(r"silent: \[\]", file="state.py", old="sorted(known - running.keys())", new="[]")
def test_the_command_names_a_worker_that_hangs_or_was_killed_and_none_that_was_stopped(rig):
    """The command names a worker that does not answer: one that hangs, one that was killed; none that was stopped."""
    alive, hanging, killed, stopped = rig.workers
    rig.stop(stopped)
    hanging.signal(signal.SIGSTOP)
    rig.kill(killed)
    found = rig.wait(lambda: (found := state(0.5))["running"] and found, "an answer")
    printed = rig.wait(lambda: (text := output(0.5)).count(alive.node) and text, "an answer")
    hanging.signal(signal.SIGCONT)
    rig.same(found["silent"], sorted([hanging.node, killed.node]), "silent: {}")
    assert found["running"] == {alive.node: []}
    for node in found["silent"]:
        assert f"{node} does not answer: what it runs is not known\n" in printed, printed
    assert f"{alive.node} runs: nothing\n" in printed, printed


@pytest.mark.workers({}, {"program": "worker_services"})
@pytest.mark.broken_by(r"it took", file="state.py", old=", limit=len(known)", new="")
def test_the_command_ends_when_the_last_worker_has_answered(rig):
    """With a minute to wait, the command ends when the last worker has answered, not after the minute."""
    began = time.monotonic()
    running, silent = workers(PATIENT)
    took = time.monotonic() - began
    assert took < PATIENT / 2, f"it took {took:.0f} s"
    rig.same((sorted(running), silent), (sorted(worker.node for worker in rig.workers), []), "found {}")


@pytest.mark.workers
@pytest.mark.broken_by(r"locks: 0", file="state.py", old='"qo_*"', new='"no_*"')
def test_the_command_counts_the_locks_of_queue_once(rig):
    """The command counts the locks of `QueueOnce` tasks that are held."""
    cache.set_many({"qo_app.tasks.update_corporation_id-1": "lock", "qo_app.tasks.update_corporation_id-2": "lock"})
    cache.set("another", "key")
    rig.same(state(0.01)["locks"], 2, "locks: {}")
    assert "locks of QueueOnce: 2\n" in output()


@pytest.mark.broken_by(r"failed: \{", file="signals.py", old="cache.incr(key)", new="pass")
@pytest.mark.broken_by(r"failed: \{", file="tasks.py", old="max_retries=1", new="max_retries=2, throws=()")
def test_the_command_counts_each_failed_task_for_a_day_and_no_retry(rig):
    """The command counts failed tasks by their names, for a day from the first; a retry is no failure."""
    rig.send(tasks.update_wallet, 20, 98000001)
    tasks.update_orders.delay(98000001)
    tasks.update_corporation.delay(98000001)
    rig.finished(WALLET, 20)
    rig.wait(lambda: [run.state for run in rig.runs(ORDERS)] == ["failed"], "the end of the retry")
    rig.finished(UPDATE)
    rig.settle()
    rig.same(state(PATIENT)["failed"], {ORDERS: 1, WALLET: 20}, "failed: {}")
    assert f"failed within a day: {WALLET}, 20 x\n" in output()
    left = cache.ttl(f"how_full:failed:{WALLET}")
    assert 23 * 3600 < left <= 24 * 3600, f"it is kept for {left} s"


@pytest.mark.workers({"paused": True})
@pytest.mark.broken_by(r"found 1", file="tasks.py", old=PLAIN, new=AT_SERVICES)
def test_a_message_on_its_way_to_a_worker_is_in_no_list_and_not_in_unacked(rig):
    """Redis hands a message to a worker, which then notes it in `unacked`; in between, no count finds it.

    Measured with a worker that was halted in between.
    """
    (worker,) = rig.workers
    rig.resume()

    def caught():
        """Send a message to the worker while it is halted; whether Redis has handed it out."""
        worker.signal(signal.SIGSTOP)
        tasks.update_corporation.delay(98000001)
        if not rig.redis.llen(AT_FIVE):
            return True
        drop(rig)
        worker.signal(signal.SIGCONT)
        return False

    rig.wait(caught, "a message on its way")
    found = sum(row["count"] for row in messages()[0]) + len(messages()[1])
    worker.signal(signal.SIGCONT)
    rig.finished(UPDATE)
    rig.same(found, 0, "found {}")


@pytest.mark.workers({"paused": True})
@pytest.mark.broken_by(r"counted .*, not twice", file="state.py", old="range(10)", new="range(5)")
def test_a_task_that_begins_between_the_two_questions_counts_twice(rig):
    """The command asks Redis, then the workers: a task that begins in between counts as waiting and as running."""
    with rig.hold(UPDATE):
        tasks.update_corporation.delay(98000001)
        waiting, _ = messages()
        rig.resume()
        rig.started(UPDATE)
        running, _ = workers(PATIENT)
    rig.finished(UPDATE)
    counted = (sum(row["count"] for row in waiting), [len(tasks) for tasks in running.values()])
    assert counted == (1, [1]), f"counted {counted}, not twice"
