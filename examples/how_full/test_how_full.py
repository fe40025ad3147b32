import ctypes
import fcntl
import io
import json
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import ExitStack, contextmanager
from pathlib import Path
from secrets import token_hex
from urllib.parse import urlsplit

import allianceauth
import pytest
import redis
import requests
from allianceauth.eveonline.models import EveCharacter, EveCorporationInfo
from celery import current_app
from celery.signals import before_task_publish
from django.contrib.auth.models import User
from django.core.cache import cache
from django.core.management import call_command
from django.db import transaction
from django.test import Client
from django.urls import reverse
from flower import events as flower_events
from myauth.settings import base

from how_full import tasks
from how_full.management.commands.how_full import Command
from how_full.progress import begin, progress
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
RETRIES_TOO = "from celery.signals import task_retry\n\ntask_retry.connect(count_failure)\ntask_failure.connect("
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
    rig.same(output().count(" waiting, the next one sent 0 min ago\n"), len(wanted), "it prints {} lists")
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
    assert before_task_publish.disconnect(note_time), "it was not noted before"
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
        # A worker of prefork acknowledges early after it has told of the start, and before it answers.
        assert current_app.control.ping(timeout=60, limit=1)
        after = rig.redis.hlen("unacked"), rig.redis.llen(AT_FIVE)
    rig.finished(STRUCTURES)
    rig.same(before[1] + after[0], 2, "found in {} place")
    rig.same(before[0] + after[1], 0, "found in {} places")


@pytest.mark.fresh
@pytest.mark.broken_by(r"printed", file="state.py", old='"held": len(due)', new='"held": len(taken)')
@pytest.mark.broken_by(r"7 in unacked did not happen", conf={"worker_disable_prefetch": True})
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
    wanted = [f"INFO Updated the structures of {number}" for number in (98000001, 98000002, 98000003)]
    rig.same(sorted(rig.logged()), wanted, "they logged {}")
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
    printed = rig.wait(lambda: (text := output(0.5)).count(f"{alive.node} runs") and text, "an answer")
    hanging.signal(signal.SIGCONT)
    rig.same(found["silent"], sorted([hanging.node, killed.node]), "silent: {}")
    assert found["running"] == {alive.node: []}
    for node in found["silent"]:
        assert f"{node} does not answer: what it runs is not known\n" in printed, printed
    assert f"{alive.node} runs: nothing\n" in printed, printed


@pytest.mark.workers({}, {"program": "worker_services"})
@pytest.mark.broken_by(r"it took", file="state.py", old=", limit=len(known)", new="")
def test_the_command_ends_when_the_last_worker_has_answered(rig):
    """The command waits three seconds, or as many as it is told, and ends when the last worker has answered.

    With a minute to wait, it has not taken half of that; with two seconds and a worker that hangs, two at least.
    """
    parser = Command().create_parser("manage.py", "how_full")
    assert parser.parse_args([]).wait == 3
    assert "Tells what waits" in parser.format_help()
    assert "seconds for the workers to answer" in parser.format_help()
    began = time.monotonic()
    running, silent = workers(PATIENT)
    took = time.monotonic() - began
    assert took < PATIENT / 2, f"it took {took:.0f} s"
    rig.same((sorted(running), silent), (sorted(worker.node for worker in rig.workers), []), "found {}")
    rig.same(output().count(" runs: nothing\n"), 2, "it prints {} workers")
    rig.workers[1].signal(signal.SIGSTOP)
    began = time.monotonic()
    printed = output(2)
    took = time.monotonic() - began
    rig.workers[1].signal(signal.SIGCONT)
    assert f"{rig.workers[1].node} does not answer" in printed, printed
    assert took >= 2, f"it waited {took:.1f} s for a worker that hangs"


@pytest.mark.workers
@pytest.mark.broken_by(r"locks: 0", file="state.py", old='"qo_*"', new='"no_*"')
def test_the_command_counts_the_locks_of_queue_once(rig):
    """The command counts the locks of `QueueOnce` tasks that are held."""
    cache.set_many({"qo_app.tasks.update_corporation_id-1": "lock", "qo_app.tasks.update_corporation_id-2": "lock"})
    cache.set("another", "key")
    rig.same(state(0.01)["locks"], 2, "locks: {}")
    assert "locks of QueueOnce: 2\n" in output()


@pytest.mark.broken_by(r"failed: \{", file="signals.py", old="cache.incr(key)", new="pass")
@pytest.mark.broken_by(r"failed: \{", file="tasks.py", old="task_failure.connect(", new=RETRIES_TOO)
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
    rig.same([len(run.retries) for run in rig.runs(ORDERS)], [1], "it was retried {} times")
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
    rig.same(found, 0, "found {}")
    rig.finished(UPDATE)


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


# Alliance Auth's dashboard.


def admin():
    """Return a browser of a superuser who has a main character."""
    user = User.objects.create(username="Kaia_Tennen", is_superuser=True)
    return browser(user)


def browser(user):
    """Return a browser in which `user`, who has a main character, is logged in."""
    ids = {"corporation_id": 98000001, "corporation_name": "Perimeter Mining", "corporation_ticker": "PERI"}
    user.profile.main_character = EveCharacter.objects.create(
        character_id=95000000 + user.pk, character_name=user.username, **ids
    )
    user.profile.save()
    client = Client(enforce_csrf_checks=True, SERVER_NAME="127.0.0.1")
    client.force_login(user)
    return client


def counts(browser):
    """Return the numbers that Auth's dashboard asks for every 30 seconds."""
    return browser.get(reverse("authentication:task_counts")).json()


@pytest.mark.fresh
@pytest.mark.broken_by(r"7 in unacked did not happen", conf={"worker_disable_prefetch": True})
@pytest.mark.broken_by(r"the dashboard shows|unacked", file="tasks.py", old=PLAIN, new=AT_SERVICES)
def test_the_dashboard_counts_ten_lists_of_one_queue_and_nothing_that_is_held(rig):
    """Auth's dashboard counts all ten lists of the queue `celery` as queued, but none of `services`.

    What a worker holds, or has scheduled, is in neither of its numbers.
    """
    user = admin()
    with rig.hold(UPDATE):
        filled(rig)
        rig.send(tasks.update_corporation, 4, 98000001, priority=1)
        rig.send(tasks.update_corporation, 3, 98000001, queue="services")
        found = rig.wait(lambda: (data := counts(user))["tasks_running"] and data, "an answer of the worker")
        rig.same((found["tasks_queued"], found["tasks_running"]), (6, 5), "the dashboard shows {}")
    rig.finished(UPDATE, 16)


@pytest.mark.workers({}, {})
@pytest.mark.broken_by(r"the start of 10", file="tasks.py", old=PLAIN, new=AT_SERVICES)
def test_the_dashboard_leaves_out_what_a_silent_worker_runs(rig):
    """Of ten tasks that run on two workers Auth's dashboard shows five where one worker is silent; N/A where both are.

    N/A is what its script shows for the value null.
    """
    user = admin()
    with rig.hold(UPDATE):
        rig.send(tasks.update_corporation, 20, 98000001)
        rig.started(UPDATE, 10)
        rig.workers[1].signal(signal.SIGSTOP)
        rig.wait(lambda: counts(user)["tasks_running"] == 5, "running: 5")
        rig.workers[0].signal(signal.SIGSTOP)
        found = counts(user)["tasks_running"]
        for worker in rig.workers:
            worker.signal(signal.SIGCONT)
    rig.finished(UPDATE, 20)
    assert found is None, f"running: {found}"
    script = Path(allianceauth.__file__).with_name("static") / "allianceauth/js/dashboard-update-task-queue.js"
    assert "value === null ? taskQueueSettings.l10n.na" in script.read_text()


def numbers(browser):
    found = counts(browser)
    return found["tasks_succeeded"], found["tasks_retried"], found["tasks_failed"]


@pytest.mark.broken_by(r"failed: 0", file="tasks.py", old='raise ConnectionError(f"ESI has no wallet', new='str(f"no')
def test_each_start_of_a_worker_or_of_a_command_sets_the_dashboards_numbers_to_zero(rig):
    """A worker that starts sets the dashboard's numbers of ended tasks to 0; so does each command of `manage.py`.

    The command of this page still counts the failures then.
    """
    user = admin()

    def fail():
        """Let a task fail, and see it on the dashboard."""
        failed = len(rig.runs(WALLET)) + 1
        tasks.update_wallet.delay(98000001)
        rig.finished(WALLET, failed)
        rig.wait(lambda: numbers(user)[2], "failed: 0, it has to be 1")

    fail()
    rig.stop(rig.start_worker(paused=True))
    rig.same(numbers(user), (0, 0, 0), "after the start of a worker: {}")
    fail()
    env = {**os.environ, "LAB_BROKER_URL": current_app.conf.broker_url, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "manage.py", "shell", "-c", "pass"], env=env, check=True, timeout=PATIENT)
    rig.same(numbers(user), (0, 0, 0), "after the command: {}")
    assert state(PATIENT)["failed"] == {WALLET: 2}


# What `inspect` answers.


@pytest.mark.fresh
@pytest.mark.broken_by(
    r"waiting did not happen", file="tasks.py", old=PLAIN, new=PLAIN.replace("task", "task(acks_late=True)", 1)
)
def test_inspect_tells_what_workers_have_taken_and_nothing_that_waits(rig):
    """`inspect` tells what a worker runs, holds and has scheduled, and nothing of what waits in Redis."""
    with rig.hold(UPDATE):
        filled(rig)
        rig.prints("demo_inspect.py", "active 5\nreserved 5\nscheduled 2\n")
        rig.same(sum(rig.waiting().values()), 2, "{} waiting")
    rig.finished(UPDATE, 12)


@pytest.mark.workers({}, {"pool": "solo"}, {"pool": "prefork", "concurrency": 1})
@pytest.mark.broken_by(r"the start of 6", file="tasks.py", old=PLAIN, new=AT_SERVICES)
def test_a_worker_of_the_pool_solo_is_silent_while_it_runs_a_task(rig):
    """Workers of the pools `threads` and `prefork` answer `inspect` while they are busy; one of `solo` does not."""
    threads, _, prefork = rig.workers
    with rig.hold(UPDATE):
        rig.send(tasks.update_corporation, 13, 98000001)
        rig.started(UPDATE, 6)
        # The worker of `solo` has one, and tells of it when that has ended.
        rig.wait(lambda: not sum(rig.waiting().values()), "all taken")
        answers = rig.wait(lambda: len(found := inspected()) == 2 and found, "answered by two")
        found = {node: len(running) for node, running in answers.items()}
        rig.same(found, {threads.node: 5, prefork.node: 1}, "answered: {}")
    rig.finished(UPDATE, 13)


def inspected(wait=0.5):
    return current_app.control.inspect(timeout=wait).active() or {}


@pytest.mark.workers({}, {"paused": True})
@pytest.mark.broken_by(r"one was silent", file="tasks.py", old='logger.info("Updated %d"', new='print("Updated %d"')
def test_a_task_that_keeps_pythons_lock_makes_its_worker_silent(rig):
    """A task that keeps Python's lock, as a long regular expression does, keeps a worker of threads from answering."""
    with frozen(rig):
        tasks.update_corporation.delay(98000001)
        rig.wait(lambda: not sum(rig.waiting().values()), "the message taken")
        rig.wait(lambda: sorted(inspected()) == [rig.workers[1].node], "one was silent, one answered")
        assert rig.workers[0].node not in inspected(1), "it answers within a second"
    rig.finished(UPDATE)
    rig.same(rig.logged(), ["INFO Updated 98000001"], "it logged {}")
    rig.wait(lambda: len(inspected()) == 2, "both answer")


# Flower.


def start_flower(rig, *options):
    """Start Flower on this machine only; return its process and its address."""
    process = rig.start("celery", "-A", "myauth", "flower", "--address=127.0.0.1", "--port=0", *options)
    return process, rig.wait(lambda: re.search(r"Visit me at (\S+?)/?\s", rig.printed(process)), "Flower's start")[1]


@contextmanager
def flower(rig, monkeypatch):
    """Start Flower with its API open, on this machine only; yield what asks it for the JSON at a path."""
    monkeypatch.setenv("FLOWER_UNAUTHENTICATED_API", "true")
    # Flower asks workers for events every five seconds: here it need not take so long.
    monkeypatch.setattr(flower_events.Events, "events_enable_interval", 200)
    before = listeners(rig)
    process, url = start_flower(rig)
    rig.wait(lambda: listeners(rig) > before, "Flower's ear for events")
    yield lambda path: requests.get(url + path, timeout=PATIENT).json()
    rig.stop(process)


def listeners(rig):
    """Return how many connections wait for events, or for what is sent to all workers."""
    database = str(rig.redis.get_connection_kwargs()["db"])
    return sum(int(client["psub"]) > 0 for client in rig.redis.client_list() if client["db"] == database)


def lengths(ask):
    return {row["name"]: row["messages"] for row in ask("/api/queues/length")["active_queues"]}


@pytest.mark.workers
@pytest.mark.broken_by(r"flower counts", file="tasks.py", old=PLAIN, new=AT_SERVICES)
def test_flower_counts_ten_lists_of_the_queues_of_which_it_knows_a_worker(rig, monkeypatch):
    """Flower counts all ten lists of each queue of which a worker has answered it; of no worker, those of `celery`.

    Here only the worker of `services` runs: `celery`, the one that grows, is then missing. What is held counts nowhere.
    """
    for priority in range(10):
        tasks.update_corporation.apply_async([98000001], priority=priority)
    with rig.hold(UPDATE), flower(rig, monkeypatch) as ask:
        before = lengths(ask)
        rig.start_worker(program="worker_services")
        rig.send(tasks.update_corporation, 3, 98000001, queue="services")
        rig.started(UPDATE)
        taken(rig, 1)
        rig.wait(lambda: ask("/api/workers?refresh=1") and lengths(ask) != before, "a look at another queue")
        after = lengths(ask)
    rig.finished(UPDATE, 3)
    drop(rig)
    rig.same((before, after), ({"celery": 10}, {"services": 1}), "flower counts {}")


@pytest.mark.workers
@pytest.mark.broken_by(r"a task in Flower's list did not happen", conf={"task_send_sent_event": False})
def test_flower_does_not_list_what_waits_unless_senders_tell(rig, monkeypatch):
    """With Auth's settings Flower does not list tasks that wait; with `CELERY_SEND_TASK_SENT_EVENT` it does."""
    assert "CELERY_SEND_TASK_SENT_EVENT" not in vars(base)
    with flower(rig, monkeypatch) as ask:
        told = current_app.conf.task_send_sent_event
        current_app.conf.task_send_sent_event = False
        rig.send(tasks.update_corporation, 3, 98000001)
        current_app.conf.task_send_sent_event = told
        rig.send(tasks.update_structures, 1, 98000001)
        listed = rig.wait(lambda: ask("/api/tasks"), "a task in Flower's list")
    drop(rig)
    rig.same([task["name"] for task in listed.values()], [STRUCTURES], "listed: {}")


@pytest.mark.fresh
@pytest.mark.broken_by(r"three that run did not happen", file="tasks.py", old=PLAIN, new=AT_SERVICES)
def test_flower_does_not_know_what_began_before_it_listened(rig, monkeypatch):
    """Auth's workers tell of no task until they are asked to; Flower asks, and lists what they receive from then on.

    It asks every five seconds; here, every 0.2 seconds.
    """
    assert "CELERY_SEND_EVENTS" not in vars(base)
    current_app.control.disable_events(reply=True, timeout=PATIENT, limit=1)
    with rig.hold(UPDATE):
        rig.send(tasks.update_corporation, 3, 98000001)
        rig.wait(lambda: [len(found) for found in workers(PATIENT)[0].values()] == [3], "three that run")
        with flower(rig, monkeypatch) as ask:
            rig.wait(lambda: (tasks.update_structures.delay(98000001), ask("/api/tasks"))[1], "a task in Flower's list")
            listed = {task["name"] for task in ask("/api/tasks").values()}
            running, _ = workers(PATIENT)
    rig.same(listed, {STRUCTURES}, "listed: {}")
    assert list(running[rig.workers[0].node].values()).count(UPDATE) == 3
    rig.wait(lambda: not any(workers(PATIENT)[0].values()), "the end of all")


@pytest.mark.workers({}, {"paused": True})
@pytest.mark.broken_by(
    r"five started and two received", file="tasks.py", old=PLAIN, new=PLAIN.replace("task", "task(acks_late=1)", 1)
)
def test_flower_shows_what_a_killed_worker_ran_as_started_for_ever(rig, monkeypatch):
    """What a worker ran when it was killed stays STARTED in Flower, and what it held stays RECEIVED."""
    with rig.hold(UPDATE), flower(rig, monkeypatch) as ask:
        rig.send(tasks.update_corporation, 7, 98000001)
        rig.started(UPDATE, 5)
        rig.wait(lambda: states(ask) == {"STARTED": 5, "RECEIVED": 2}, "five started and two received")
        rig.kill(rig.workers[0])
        rig.resume(1)
        tasks.update_structures.delay(98000001)
        rig.finished(STRUCTURES)
        rig.wait(lambda: states(ask).get("SUCCESS"), "an end in Flower")
        rig.same(states(ask), {"STARTED": 5, "RECEIVED": 2, "SUCCESS": 1}, "flower says {}")


def with_conf(workers):
    """Return the workers that have told Flower their settings; it asks for one thing after the other."""
    return [worker for worker in workers.values() if "conf" in worker]


def states(ask):
    return dict(Counter(task["state"] for task in ask("/api/tasks").values()))


@pytest.mark.workers({})
@pytest.mark.broken_by(r"it answers", conf={"CACHES": {"default": {"LOCATION": "redis://127.0.0.1:6379/1"}}})
def test_flowers_open_api_shows_the_password_of_redis(rig, monkeypatch):
    """Flower's API refuses to answer until it is opened or has a login; open, it shows the password in `CACHES`."""
    password = urlsplit(current_app.conf.broker_url).password
    with flower(rig, monkeypatch) as ask:
        (worker,) = rig.wait(lambda: with_conf(ask("/api/workers?refresh=1")), "an answer of the worker")
        shown = worker["conf"]["CACHES"]["default"]["LOCATION"]
        masked = worker["conf"]["BROKER_URL"]
    assert password in shown, f"it answers {shown}"
    assert password not in masked
    monkeypatch.delenv("FLOWER_UNAUTHENTICATED_API")
    login = ("Kaia_Tennen", token_hex())
    codes = []
    for option, given in (((), (None,)), ((f"--basic-auth={':'.join(login)}",), (None, login))):
        process, url = start_flower(rig, *option)
        codes += [requests.get(f"{url}/api/workers", auth=one, timeout=PATIENT).status_code for one in given]
        rig.stop(process)
    rig.same(codes, [401, 401, 200], "it answers {}")


# Progress.


@pytest.fixture
def corporations():
    """Make three corporations and a user, and return the user's browser."""
    for number in (98000001, 98000002, 98000003):
        ids = {"corporation_id": number, "corporation_name": f"Corp {number}", "corporation_ticker": str(number)[-4:]}
        EveCorporationInfo.objects.create(**ids, member_count=0)
    return browser(User.objects.create(username="Kaia_Tennen"))


@pytest.mark.broken_by(r"the page shows", file="progress.py", old='cache.incr(f"{job}:done")', new="pass")
@pytest.mark.broken_by(r"asks again", file="views.py", old='response.headers["Refresh"] = "2"', new="pass")
def test_the_page_shows_the_progress_while_tasks_run_and_asks_again_until_all_have_ended(rig, corporations):
    """The page shows how many of the started tasks have ended, and has the browser ask again until all have."""
    assert shown(corporations) == (None, None), "nothing was started"
    rig.same(corporations.get(reverse("how_full:start")).status_code, 405, "to start by a link gives {}")
    with held("Imported the assets of 98000003"):
        press(corporations)
        come(rig, "Imported the assets of 98000003")
        rig.finished(IMPORT, 2)
        rig.same(shown(corporations), ("2 of 3", "2"), "the page shows {}; asks again")
    rig.finished(IMPORT, 3)
    rig.same(shown(corporations), ("3 of 3", None), "the page shows {}; asks again")


def press(browser):
    """Send the form of the page."""
    page = browser.get(reverse("how_full:index")).content.decode()
    action, fields = re.search(r'<form method="post" action="(/how_full/.*?)">(.*?)</form>', page, re.DOTALL).groups()
    answer = browser.post(action, dict(re.findall(r'name="(\w+)" value="(\w+)"', fields)))
    assert (answer.status_code, answer.headers["Location"]) == (302, reverse("how_full:index"))


def shown(browser):
    """Return the progress that the page shows, and after how many seconds the browser loads it again."""
    answer = browser.get(reverse("how_full:index"))
    found = re.search(
        r'<progress value="(\d+)" max="(\d+)"></progress>\s+(\1 of \2), the last one \d+ s ago',
        answer.content.decode(),
    )
    return (found and found[3]), answer.headers.get("Refresh")


@pytest.mark.broken_by(r"the other sees", file="views.py", old='request.session["how_full"] = begin', new="J = begin")
def test_another_user_does_not_see_the_progress(rig, corporations):
    """The progress is kept for the session that started the tasks: another user sees none."""
    other = browser(User.objects.create(username="Another"))
    with transaction.atomic():
        press(corporations)
        rig.same(len(rig.runs(IMPORT)), 0, "{} were sent before the commit")
    rig.finished(IMPORT, 3)
    rig.same(shown(other), (None, None), "the other sees {}")
    rig.same(shown(corporations)[0], "3 of 3", "the other sees none, the one {}")


@pytest.mark.broken_by(r"found \(-20", file="progress.py", old="cache.incr(f", new="cache.decr(f")
def test_twenty_tasks_on_five_threads_count_twenty(rig):
    """Twenty tasks on five threads count to twenty with `cache.incr`, one that fails among them."""
    job = begin(20)
    cache.set(f"{job}:at", time.time() - 600)
    for number in [0, *range(98000001, 98000020)]:
        tasks.import_assets.delay(number, job)
    assert {run.state for run in rig.finished(IMPORT, 20)} == {"failed", "succeeded"}
    found = progress(job)
    assert found["quiet"] < 600, "no task noted when it ended"
    assert 23 * 3600 < cache.ttl(f"{job}:at") <= 24 * 3600
    rig.same((found["done"], found["total"]), (20, 20), "counted 20, found {}")
    wanted = [f"INFO Imported the assets of {number}" for number in range(98000001, 98000020)]
    rig.same(sorted(rig.logged()), wanted, "they logged {}")
    rig.same(state(PATIENT)["failed"], {IMPORT: 1}, "failed: {}")


@pytest.mark.broken_by(r"counted 5", file="tasks.py", old='    cache.set(f"{job}:done", done + 1)', new="    step(job)")
def test_a_count_that_is_read_and_written_back_loses_tasks(rig):
    """Five tasks at a time that read the count, work, and write it back count to one."""
    job = begin(5)
    line = "Imported the assets of 98000001"
    with held(line):
        for _ in range(5):
            tasks.import_carelessly.delay(98000001, job)
        come(rig, line, 5)
    rig.finished(CARELESSLY, 5)
    rig.same(progress(job)["done"], 1, "counted {}")
    rig.same(rig.logged(), [f"INFO {line}"] * 5, "they logged {}")


@pytest.mark.broken_by(r"the row says 1", file="tasks.py", old="with transaction.atomic():", new="if True:")
def test_progress_in_a_row_is_not_seen_before_the_commit_and_in_the_cache_it_is(rig, corporations):
    """What a task writes inside `transaction.atomic()` is not seen before its end; what it writes to the cache is."""
    job = begin(2)
    line = "Imported one member of 98000001"
    with held(line):
        tasks.import_members.delay(98000001, job)
        come(rig, line)
        rig.same(members(), 0, "the row says {}")
        rig.same(progress(job)["done"], 1, "the cache says {}")
    rig.finished(MEMBERS)
    rig.same(members(), 1, "after the commit the row says {}")
    rig.same(EveCorporationInfo.objects.filter(member_count=0).count(), 2, "{} others are as they were")
    rig.same(rig.logged(), [f"INFO {line}"], "it logged {}")


def members():
    return EveCorporationInfo.objects.get(corporation_id=98000001).member_count


@pytest.mark.broken_by(r"ended as", file="progress.py", old="with suppress(ValueError):", new="if True:")
def test_where_the_progress_is_gone_the_task_goes_on(rig):
    """Where the progress is gone from the cache, the task goes on, and nothing is shown."""
    job = begin(1)
    assert 23 * 3600 < cache.ttl(f"{job}:total") <= 24 * 3600
    cache.delete_many(cache.keys(f"{job}:*"))
    tasks.import_assets.delay(98000001, job)
    (run,) = rig.finished(IMPORT)
    rig.same(run.state, "succeeded", "the task ended as {}")
    rig.same(progress(job), None, "shown: {}")


@pytest.mark.fresh
@pytest.mark.broken_by(r"quiet for", file="progress.py", old="round(time.time() - at)", new="0")
def test_a_killed_worker_leaves_a_progress_that_says_for_how_long_it_is_quiet(rig):
    """Where the worker was killed the progress stays as it is, and says for how long no task has ended."""
    job = begin(2)
    with held("Imported the assets of 98000002"):
        tasks.import_assets.delay(98000001, job)
        tasks.import_assets.delay(98000002, job)
        rig.finished(IMPORT)
        come(rig, "Imported the assets of 98000002")
        rig.kill(rig.workers[0])
    # The end of the first task is made older by ten minutes.
    cache.set(f"{job}:at", cache.get(f"{job}:at") - 600)
    found = progress(job)
    rig.same((found["done"], found["total"]), (1, 2), "found {}")
    assert 600 <= found["quiet"] < 660, f"quiet for {found['quiet']} s"


@pytest.mark.broken_by(r"a user gets 200", file="views.py", old="lambda user: user.is_superuser", new="bool")
def test_the_view_answers_superusers_with_what_the_command_prints(rig):
    """The view answers superusers with all that the command prints, as JSON; other users it sends to the login."""
    user = browser(User.objects.create(username="Another"))
    rig.same(user.get(reverse("how_full:queue")).status_code, 302, "a user gets {}")
    with rig.hold(UPDATE):
        rig.send(tasks.update_corporation, 2, 98000001)
        rig.started(UPDATE, 2)
        one = admin()
        found = rig.wait(lambda: (data := one.get(reverse("how_full:queue")).json())["running"] and data, "an answer")
    rig.finished(UPDATE, 2)
    wanted = state(PATIENT) | {"running": {rig.workers[0].node: [UPDATE] * 2}}
    rig.same(found, wanted, "found {}")


@pytest.mark.broken_by(r"printed", file="demo.py", old="begin(3)", new="begin(4)")
def test_three_tasks_count_to_three(rig, monkeypatch):
    """Three tasks that were started together count to 3 of 3."""
    pauses, pause = [], time.sleep
    with ExitStack() as holding:
        holding.enter_context(held("Imported the assets of 98000003"))

        def sleep(seconds):
            """Let the third task end when the page's calls have paused three times."""
            pauses.append(seconds)
            if pauses.count(0.2) == 3:
                holding.close()
            pause(seconds)

        monkeypatch.setattr(time, "sleep", sleep)
        rig.prints("demo.py", "3 of 3\n")
        monkeypatch.undo()
    assert pauses.count(0.2) >= 3, "it did not pause between its looks"
    rig.finished(IMPORT, 3)
