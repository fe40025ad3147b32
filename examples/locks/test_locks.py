import base64
import io
import json
import logging
import os
import re
import signal
import textwrap
import time
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from functools import partial

import pytest
from allianceauth.eveonline.models import EveCorporationInfo
from celery import chain, current_app
from celery_once import AlreadyQueued
from django.core.cache import cache
from django.core.management import call_command
from django.db import transaction
from django_celery_beat.models import IntervalSchedule, PeriodicTask
from kombu.exceptions import EncodeError, OperationalError

from locks import tasks
from locks.exclusive import exclusive
from locks.tasks import (
    recount_members,
    report_members,
    update_and_wait,
    update_batch,
    update_corporation,
    update_corporation_assets,
    update_if_known,
    update_members,
    update_or_skip,
    update_pages,
    update_prices,
    update_roles,
    update_structures,
    update_wallet,
)

UPDATE = update_corporation.name
LOCK = f"qo_{UPDATE}_corporation_id-98000001"
COMMAND = "management/commands/once_locks.py"
MANY = range(98000001, 98000021)


def as_class(code):
    """Break Auth's class for every task of the chapter that has it as its base."""
    there = "from allianceauth.services.tasks import QueueOnce\n"
    begin = "class QueueOnce(QueueOnce):\n    abstract = True\n\n"
    return {"file": "tasks.py", "old": there, "new": there + begin + textwrap.indent(textwrap.dedent(code), "    ")}


def unlocked(name):
    """Break a task of the chapter: take its lock away."""
    return {
        "file": "tasks.py",
        "old": f"@shared_task(base=QueueOnce)\ndef {name}(",
        "new": f"@shared_task\ndef {name}(",
    }


def plain(name):
    """Break a task of the chapter: give it the base QueueOnce in place of Once."""
    return {"file": "tasks.py", "old": f"base=Once)\ndef {name}(", "new": f"base=QueueOnce)\ndef {name}("}


def pause(record):
    """Let a run come past a line that it logs only when no test holds that line."""
    line = record.getMessage()
    cache.add(f"come to {line}", 0, timeout=None)
    cache.incr(f"come to {line}")
    with cache.lock(f"hold {line}", sleep=0.01, blocking_timeout=20):
        return True


# The workers are forked from this process, so that what they log comes through here too.
logging.getLogger("extensions.locks.tasks").addFilter(pause)


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


def locks():
    return sorted(cache.keys("qo_*"))


def start(task, *args, **options):
    try:
        return "accepted" if task.apply_async(args, **options).id else "rejected"
    except AlreadyQueued:
        return "AlreadyQueued"


def lasts(seconds, key, since):
    """See that a lock which was taken after `since` was taken for so many seconds."""
    left = cache.pttl(key) / 1000
    most = left + time.monotonic() - since + 0.001
    assert left <= seconds <= most, f"the lock was taken for {most:.0f} s"


def due_in(seconds, rig):
    """See that each countdown that was sent is of so many seconds, and that there is one."""
    found = [event for event in rig.events if event["type"] == "task-sent" and event["eta"]]
    left = [datetime.fromisoformat(event["eta"]).timestamp() - event["timestamp"] for event in found]
    assert left, "no countdown was sent"
    # On a busy machine the event is later than the message.
    assert max(left) <= seconds, f"they are due in {left}"


def command(*words, wait=0.5):
    """Return what the command prints."""
    out = io.StringIO()
    call_command("once_locks", *words, "--wait", str(wait), stdout=out)
    return out.getvalue()


def answered(rig, *words):
    """Return what the command prints when the worker has answered it, which may take a busy machine longer."""
    return rig.wait(lambda: (text := command(*words)).startswith("workers that answered: 1\n") and text, "an answer")


def leave(*corporations, task=update_corporation):
    """Leave locks behind, as a killed worker does: nothing waits or runs for them."""
    for number in corporations:
        task.apply_async([number], queue="lost")
    with current_app.connection_for_write() as connection:
        connection.default_channel.queue_purge("lost")


def drop(rig):
    """Drop what waits in queues that no worker reads."""
    rig.redis.delete(*rig.waiting())


def corporation(members=0):
    """Make two corporations and return the first."""
    for number, name in ((98000002, "Perimeter Mining"), (98000001, "Jita Logistics")):
        ids = {"corporation_id": number, "corporation_name": name, "corporation_ticker": name[:4]}
        made = EveCorporationInfo.objects.create(**ids, member_count=members)
    return made


# The command and the snippets. Without a worker, nothing runs.


@pytest.mark.broken_by(r"found .*_assets_", file=COMMAND, old="max((name", new="min((name")
@pytest.mark.workers
def test_the_command_finds_all_locks_those_of_one_task_or_one_lock(rig, capsys):
    """`once_locks` lists all locks; with a task's name its own, none of a task whose name begins alike; or one."""
    leave(98000001, 98000002)
    leave(98000001, task=update_corporation_assets)
    cache.add("qo_app.tasks.gone_page-1", "lock")
    cache.add("another", "key")

    def found(*words):
        return re.findall(r"min at most: (\S+)$", command(*words, wait=0.01), re.MULTILINE)

    assert len(locks()) == 4
    for words, wanted in (((), locks()), ((UPDATE,), [LOCK, LOCK[:-1] + "2"]), ((LOCK,), [LOCK])):
        rig.same(found(*words), wanted, "found {}")
    with pytest.raises(SystemExit):
        call_command("once_locks", "--help")
    told = " ".join(capsys.readouterr().out.split())
    for words in ("Lists the locks of", "the name of a task", "in use, too", "to answer"):
        assert words in told, told
    assert told.count("left behind") == 2


@pytest.mark.broken_by(r"freed 2", file=COMMAND, old="(answers and state", new="(state")
@pytest.mark.workers
def test_where_no_worker_answers_the_command_frees_with_force_alone(rig):
    """Where no worker answers, `once_locks --free` frees nothing: it can't know what runs. `--force` frees all."""
    leave(98000001, 98000002)
    without = command("--free", wait=0.01)
    assert without.startswith("workers that answered: 0\n")
    rig.same(without.count("freed"), 0, "freed {}")
    rig.same(command("--free", "--force", wait=0.01).count("freed"), 2, "with force it freed {}")
    assert locks() == []


@pytest.mark.broken_by(r"left are set\(\)", file="demo_free_all.py", old="_corporation_id-*", new="*")
@pytest.mark.workers
def test_a_pattern_with_the_first_argument_frees_all_locks_of_one_task(rig):
    """`cache.delete_pattern("qo_TASK_ARGUMENT-*")` frees all locks of a task, and none of a longer name."""
    leave(*MANY)
    leave(*MANY, task=update_corporation_assets)
    rig.demo("demo_free_all.py")
    rig.same({lock.rpartition("_corporation")[0] for lock in locks()}, {f"qo_{UPDATE}_assets"}, "left are {}")
    assert len(locks()) == len(MANY)
    assert [start(update_corporation, number) for number in MANY] == ["accepted"] * len(MANY)


@pytest.mark.broken_by(r"left are \['", file="demo_pattern.py", old=".name}*", new=".name}_corporation_id-*")
@pytest.mark.workers
def test_a_pattern_with_the_name_alone_frees_the_locks_of_another_task(rig):
    """`cache.delete_pattern("qo_TASK*")` also frees the locks of tasks whose names begin alike."""
    leave(98000001)
    leave(98000001, task=update_corporation_assets)
    rig.demo("demo_pattern.py")
    rig.same(locks(), [], "left are {}")


# Locks of what is not sent.


@pytest.mark.broken_by(
    r"after the refusal: accepted",
    **as_class("""
    def apply_async(self, args=None, kwargs=None, **options):
        try:
            return super().apply_async(args, kwargs, **options)
        except Exception:
            self.once_backend.clear_lock(self.get_key(args, kwargs))
            raise
"""),
)
@pytest.mark.workers
def test_a_start_that_the_broker_refuses_leaves_its_lock(rig):
    """A start that the broker refuses raises and leaves its lock: when the broker is back, a start is rejected."""
    with rig.refused(cache=False), pytest.raises(OperationalError):
        update_corporation.delay(98000001)
    rig.same(start(update_corporation, 98000001), "rejected", "after the refusal: {}")
    assert rig.waiting() == {}


@pytest.mark.broken_by(r"after the refusal: rejected", **plain("update_wallet"))
@pytest.mark.workers
def test_a_base_class_can_give_back_the_lock_of_what_the_broker_refused(rig):
    """With the base `Once`, a start that the broker refused leaves no lock: the next one is accepted."""
    with rig.refused(cache=False), pytest.raises(OperationalError):
        update_wallet.delay(98000001)
    rig.same(start(update_wallet, 98000001), "accepted", "after the refusal: {}")
    assert sum(rig.waiting().values()) == 1


@pytest.mark.broken_by(r"the locks are \['", **plain("update_wallet"))
@pytest.mark.workers
def test_a_base_class_can_give_back_the_lock_of_what_json_cannot_hold(rig):
    """With the base `Once`, a start whose argument JSON can't hold raises, and leaves no lock."""
    for number in MANY:
        with pytest.raises(EncodeError):
            update_wallet.delay({number})
    rig.same(locks(), [], "the locks are {}")
    rig.same({start(update_wallet, number) for number in MANY}, {"accepted"}, "afterwards starts are {}")
    update_structures.delay(98000001)
    rig.same(start(update_structures, 98000001), "AlreadyQueued", "a rejected start: {}")


# Transactions.


AT_ONCE = {
    "file": "once.py",
    "old": "    def apply_async",
    "new": "    def delay_on_commit(self, *args):\n        self.delay(*args)\n\n"
    "    def apply_async_on_commit(self, args, **options):\n        self.apply_async(args, **options)\n\n"
    "    def apply_async",
}


@pytest.mark.broken_by(r"before the commit the locks are \['", **AT_ONCE)
@pytest.mark.workers
def test_on_commit_the_lock_is_taken_after_the_commit_and_a_second_start_rejected(rig):
    """On commit the lock is taken: of two equal starts in a transaction one is sent, unless it is over by then."""
    with transaction.atomic():
        # The row is made in one of its own.
        assert rig.savepoints("demo_commit.py") == ["SAVEPOINT"] * 2 + ["RELEASE SAVEPOINT"] * 2
        rig.same(locks(), [], "before the commit the locks are {}")
        assert len(transaction.get_connection().run_on_commit) == 2
        assert rig.waiting() == {}
    rig.same(sum(rig.waiting().values()), 1, "{} messages wait")
    due_in(1, rig)
    assert locks() == ["qo_locks.tasks.update_wallet_corporation_id-98000001"]
    assert EveCorporationInfo.objects.get(corporation_id=98000001).corporation_name == "Jita Logistics"
    rig.start_worker()
    rig.finished(update_wallet.name)
    with transaction.atomic():
        update_wallet.delay_on_commit(98000001)
        transaction.on_commit(partial(rig.finished, update_wallet.name, 2))
        update_wallet.delay_on_commit(98000001)
    rig.finished(update_wallet.name, 3)


@pytest.mark.broken_by(r"after the rollbacks: rejected", **AT_ONCE)
@pytest.mark.workers
def test_a_rollback_takes_no_lock(rig):
    """With `delay_on_commit` a transaction that is rolled back takes no lock and sends nothing."""
    for _ in MANY:
        with transaction.atomic():
            update_wallet.delay_on_commit(98000001)
            transaction.set_rollback(True)
    rig.same(start(update_wallet, 98000001), "accepted", "after the rollbacks: {}")
    assert sum(rig.waiting().values()) == 1


@pytest.mark.broken_by(
    r"printed ''",
    file="tasks.py",
    old='once={"timeout": 2 * 60 * 60}',
    new='once={"timeout": 2 * 60 * 60, "graceful": True}',
)
@pytest.mark.workers
def test_already_queued_on_commit_raises_after_the_commit_and_drops_what_follows(rig):
    """`AlreadyQueued` on commit raises in the caller although all is saved, and what was to be sent next is not."""
    since = time.monotonic()
    rig.prints("demo_commit_raises.py", "AlreadyQueued, after the commit\n")
    due_in(1, rig)
    lasts(7200, "qo_locks.tasks.update_structures_corporation_id-98000001", since)
    assert len(locks()) == 1, f"the locks are {locks()}"

    def save():
        with transaction.atomic():
            corporation()
            transaction.on_commit(partial(update_structures.delay, 98000001))

    with pytest.raises(AlreadyQueued):
        save()
    assert EveCorporationInfo.objects.count() == 2, "the rows are not there"
    cache.clear()
    with transaction.atomic():
        assert rig.savepoints("demo_commit_raises.py") == ["SAVEPOINT", "RELEASE SAVEPOINT"]
        assert len(transaction.get_connection().run_on_commit) == 2
        transaction.set_rollback(True)


# Loops and chains.


@pytest.mark.broken_by(
    r"printed '98000001 started\\n98000003",
    file="demo_loop.py",
    old='        update_structures.delay(corporation_id)\n        print(corporation_id, "started")\n',
    new='        if update_structures.apply_async([corporation_id], once={"graceful": True}).id:\n'
    '            print(corporation_id, "started")\n',
)
@pytest.mark.workers
def test_one_locked_object_ends_a_loop_over_a_task_without_graceful(rig):
    """In a loop over a task without `graceful`, one locked object ends the loop: those after it are not started."""
    since = time.monotonic()
    rig.prints("demo_loop.py", "98000001 started\nAlreadyQueued: the loop ends\n")
    due_in(1, rig)
    taken = [f"qo_locks.tasks.update_structures_corporation_id-{number}" for number in MANY[:2]]
    assert locks() == taken
    for key in taken:
        lasts(7200, key, since)


@pytest.mark.broken_by(r"AlreadyQueued", file="demo_loop_graceful.py", old=', once={"graceful": True}', new="")
def test_with_graceful_a_loop_skips_locked_objects_and_starts_all_others(rig):
    """With `graceful` a loop skips the objects that are locked, and starts all others."""
    with rig.hold(update_structures.name):
        rig.prints("demo_loop_graceful.py", "98000001 started\n98000002 skipped\n98000003 started\n")
        due_in(1, rig)
        graceful = {"once": {"graceful": True}}
        found = [start(update_structures, number, **graceful) for number in MANY]
        assert found == ["rejected"] * 3 + ["accepted"] * 17, found
    rig.settle()
    assert sorted(rig.logged()) == [f"INFO Structures of corporation {number} updated" for number in MANY]


@pytest.mark.broken_by(
    r"updated: \[98000001\]",
    file="tasks.py",
    old='    with exclusive(corporation_id) as mine:\n        logger.info("Corporation %s %s"',
    new="    with exclusive(corporation_id) as mine:\n        if not mine:\n"
    '            update_or_skip.request.chain = None\n        logger.info("Corporation %s %s"',
)
def test_a_chain_whose_links_look_for_a_lock_themselves_goes_on_past_a_locked_object(rig):
    """A link that looks for a lock itself, and returns where it is held, lets its chain go on past a locked object."""
    since = time.monotonic()
    rig.demo("demo_chain.py")
    lasts(20, "locks_98000002", since)
    rig.settle()
    links = [run for run in rig.runs() if run.ended]
    found = [int(line[17:25]) for line in rig.logged() if line.endswith("updated")]
    assert found == [98000001, 98000003], f"updated: {found}"
    assert len(links) == 3
    # Each tenth of 20 is locked.
    cache.lock("locks_98000010", timeout=20).acquire()
    chain(update_or_skip.si(number) for number in MANY[3:]).delay()
    rig.settle()
    skipped = {98000002, 98000010}
    assert rig.logged() == [
        f"INFO Corporation {number} {'skipped' if number in skipped else 'updated'}" for number in MANY
    ]


@pytest.mark.broken_by(
    r"raised RecursionError",
    file="tasks.py",
    old="@shared_task\ndef update_or_skip(",
    new="""
from celery import Task


class Recursive(Task):
    abstract = True

    def apply_async(self, *args, chain=None, **options):
        def walk(links):
            return links and walk(links[1:])

        walk(chain)
        return super().apply_async(*args, chain=chain, **options)


@shared_task(base=Recursive)
def update_or_skip(""",
)
def test_a_chain_of_2000_links_goes_on_without_a_recursion_error(rig):
    """A chain of 2,000 links that is made at once raises no `RecursionError`: the first link hands on the others."""
    links = [update_or_skip.si(number) for number in range(98000001, 98002001)]
    links[1].set(queue="nobody")
    try:
        chain(links).delay()
    except RecursionError:
        raise AssertionError("raised RecursionError") from None
    rig.finished(update_or_skip.name)
    rig.wait(rig.waiting, "the second link")
    (raw,) = rig.redis.lrange("nobody\x06\x165", 0, -1)
    body = base64.b64decode(json.loads(raw)["body"])
    assert len(json.loads(body)[2]["chain"]) == 1998
    drop(rig)


# What is sent, and does not end as a task should. With one worker as Auth starts it.


@pytest.mark.broken_by(
    r"left behind, 60 min at most: \S+_assets_", file=COMMAND, old='redis.hvals("unacked")', new="()"
)
@pytest.mark.broken_by(
    r"left behind, 60 min at most: \S+-98000005", file=COMMAND, old="in answers.values()", new="in ()"
)
def test_the_command_says_for_which_locks_something_waits_or_runs(rig):
    """`once_locks` says of each lock whether its task waits, also in a worker's hands, or runs, or neither."""
    with rig.hold(UPDATE):
        for number in MANY[:5]:
            update_corporation.delay(number)
        rig.started(UPDATE, 5)
        update_corporation_assets.delay(98000001)
        update_structures.apply_async([98000001], queue="nobody")
        # A message of an older version, whose argument has been renamed since.
        current_app.send_task(UPDATE, kwargs={"corp_id": 1}, queue="nobody")
        cache.add("qo_locks.tasks.update_prices_region_id-1", "lock", timeout=600)
        cache.add("qo_locks.tasks.update_wallet_corporation_id-1", "lock", timeout=None)
        rig.wait(lambda: rig.redis.hlen("unacked") == 1, "a task in the worker's hands")
        found = answered(rig)
    wanted = [
        "workers that answered: 1",
        f"waits, 60 min at most: qo_{UPDATE}_assets_corporation_id-98000001",
        *(f"runs, 60 min at most: qo_{UPDATE}_corporation_id-{number}" for number in MANY[:5]),
        "left behind, 10 min at most: qo_locks.tasks.update_prices_region_id-1",
        "waits, 120 min at most: qo_locks.tasks.update_structures_corporation_id-98000001",
        "left behind, for good: qo_locks.tasks.update_wallet_corporation_id-1",
    ]
    assert found.splitlines() == wanted, found
    drop(rig)
    rig.finished(count=6)


@pytest.mark.broken_by(r"freed 21", file=COMMAND, old="in answers.values()", new="in ()")
@pytest.mark.broken_by(r"freed 0", file=COMMAND, old="cache.delete(lock)", new="continue")
def test_the_command_frees_what_was_left_behind_and_nothing_else(rig):
    """`once_locks --free` frees the locks that were left behind, and none of a task that waits or runs."""
    leave(*MANY)
    with rig.hold(UPDATE + "_assets"):
        update_corporation_assets.delay(98000001)
        rig.started(UPDATE + "_assets")
        update_structures.apply_async([98000001], queue="nobody")
        rig.same(answered(rig, "--free").count("freed"), len(MANY), "freed {}")
        left = ["update_corporation_assets", "update_structures"]
        assert locks() == [f"qo_locks.tasks.{name}_corporation_id-98000001" for name in left], locks()
    drop(rig)
    assert {start(update_corporation, number) for number in MANY} == {"accepted"}
    rig.finished(UPDATE, len(MANY))
    updated = [f"INFO Corporation {number} updated" for number in MANY]
    assert sorted(rig.logged()) == ["INFO Assets of corporation 98000001 updated", *updated]
    # Of one task, or one lock.
    leave(98000001, 98000002)
    leave(98000001, task=update_corporation_assets)
    assert answered(rig, LOCK, "--free").endswith(f"{LOCK}\nfreed\n")
    assert f"{LOCK[:-1]}2\nfreed\n" in answered(rig, UPDATE, "--free")
    assert [lock for lock in locks() if UPDATE in lock] == [f"qo_{UPDATE}_assets_corporation_id-98000001"], locks()


@pytest.mark.broken_by(r"it printed ''", file=COMMAND, old="for lock in locks", new="for lock in ()")
def test_the_locks_of_expired_starts_are_freed_with_the_name_of_their_task(rig, capsys):
    """What expired starts leave is listed as left behind, and `--free` with the name of their task frees it."""
    rig.demo()
    rig.finished(UPDATE, 2)
    rig.settle()
    assert {run.state for run in rig.runs()} == {"revoked"}
    capsys.readouterr()

    def freed():
        rig.demo("demo_free.py")
        answers, _, rest = capsys.readouterr().out.partition("\n")
        return answers == "workers that answered: 1" and [rest]

    (found,) = rig.wait(freed, "an answer")
    wanted = "".join(f"left behind, 60 min at most: {LOCK[:-1]}{number}\nfreed\n" for number in (1, 2))
    rig.same(found, wanted, "it printed {!r}")
    assert locks() == []


@pytest.mark.broken_by(
    r"the locks are \[\]",
    **as_class("""
    def on_retry(self, exc, task_id, args, kwargs, einfo):
        self.once_backend.clear_lock(self.get_key(args, kwargs))
"""),
)
def test_a_retry_with_other_arguments_leaves_the_first_lock(rig):
    """A retry with other arguments gives back the lock of those, and leaves that of the first ones."""
    update_pages.delay(98000001)
    rig.settle()
    assert rig.logged() == ["INFO 2 pages of corporation 98000001 updated"]
    assert locks() == ["qo_locks.tasks.update_pages_corporation_id-98000001"], f"the locks are {locks()}"


@pytest.mark.broken_by(
    r"the locks are \[\]",
    file="tasks.py",
    old='    while corporation_ids:\n        logger.info("Corporation %s updated", corporation_ids.pop())\n',
    new='    for corporation_id in corporation_ids:\n        logger.info("Corporation %s updated", corporation_id)\n',
)
def test_a_task_that_changes_its_argument_leaves_its_lock(rig):
    """A task that changes a list it was given leaves its lock: at its end it looks for that of the changed list."""
    update_batch.delay([98000001, 98000002])
    rig.settle()
    assert sorted(rig.logged()) == [f"INFO Corporation {number} updated" for number in MANY[:2]]
    assert locks() == ["qo_locks.tasks.update_batch_corporation_ids-[98000001, 98000002]"], f"the locks are {locks()}"


@pytest.mark.broken_by(
    r"the locks are \[\]",
    **as_class("""
    def get_key(self, args=None, kwargs=None):
        import json

        return super().get_key(*json.loads(json.dumps([list(args or []), kwargs or {}])))
"""),
)
def test_a_dictionary_with_numbers_as_keys_leaves_its_lock(rig):
    """A dictionary with numbers as keys reaches the worker with text as keys, and leaves the lock of the numbers."""
    update_corporation.delay({1: 2})
    rig.settle()
    assert locks() == [LOCK.replace("98000001", "{1: 2}")], f"the locks are {locks()}"


@pytest.mark.broken_by(
    r"the locks are \[\]",
    **as_class("""
    def apply_async(self, args=None, kwargs=None, **options):
        result = super().apply_async(args, kwargs, **options)
        self.once_backend.clear_lock(self.get_key(args, kwargs))
        return result
"""),
)
def test_a_message_that_the_worker_does_not_know_leaves_its_lock(rig):
    """A worker that does not know the task throws its message away, and leaves its lock."""

    def gone(corporation_id):
        pass

    current_app.task(base=tasks.QueueOnce, name="locks.tasks.gone")(gone).delay(98000001)
    current_app.tasks.pop("locks.tasks.gone")
    rig.wait(lambda: "unregistered task of type 'locks.tasks.gone'" in rig.printed(rig.workers[0]), "the line")
    rig.wait(lambda: not rig.waiting() and not rig.redis.hlen("unacked"), "the end of the message")
    assert locks() == ["qo_locks.tasks.gone_corporation_id-98000001"], f"the locks are {locks()}"


@pytest.mark.broken_by(
    r"the locks are \[\]",
    **as_class("""
    def after_return(self, *args):
        from django.core.cache import cache

        cache.delete_pattern(f"qo_{self.name}_*")
"""),
)
def test_a_message_whose_arguments_fit_no_more_leaves_its_lock(rig):
    """A message from before an argument was renamed fails with TypeError, and leaves the lock of the old name."""
    old = LOCK.replace("corporation_id", "corp_id")
    cache.add(old, "lock")
    current_app.send_task(UPDATE, kwargs={"corp_id": 98000001})
    (run,) = rig.finished(UPDATE)
    assert (run.state, run.exception[:9]) == ("failed", "TypeError")
    rig.settle()
    assert locks() == [old], f"the locks are {locks()}"


@pytest.mark.broken_by(r"the locks are \['", **plain("update_wallet"))
def test_a_signal_can_give_back_the_locks_of_what_is_revoked_or_expires(rig):
    """With the base `Once`, tasks that have expired or were revoked leave no lock: a start is accepted."""
    assert current_app.control.revoke("one", reply=True, timeout=10, limit=1), "the worker has not heard of it"
    update_wallet.apply_async([98000001], task_id="one")
    for number in MANY[1:]:
        update_wallet.apply_async([number], expires=0)
    assert {run.state for run in rig.finished(update_wallet.name, len(MANY))} == {"revoked"}
    rig.settle()
    assert locks() == [], f"the locks are {locks()}"
    assert {start(update_wallet, number) for number in MANY} == {"accepted"}
    rig.settle()
    assert sorted(rig.logged()) == [f"INFO Wallet of corporation {number} updated" for number in MANY]
    # Those of other classes stay.
    update_corporation.apply_async([98000001], expires=0)
    rig.settle()
    assert locks() == [LOCK]


@pytest.mark.broken_by(
    r"by Celery's own report: \['", file="tasks.py", old="        raise Ignore\n", new="        return\n"
)
@pytest.mark.fresh
def test_a_task_that_raises_ignore_leaves_its_lock(rig):
    """A task that raises `Ignore` leaves its lock, and Celery tells no end of it."""
    corporation()
    update_if_known.delay(98000001)
    rig.finished(update_if_known.name)
    assert locks() == []
    update_if_known.delay(98000003)
    rig.started(update_if_known.name, 2)
    rig.wait(lambda: "runs, " not in answered(rig), "the end of its run")
    rig.same([run.state for run in rig.runs() if run.over][1:], [], "by Celery's own report: {}")
    assert locks() == ["qo_locks.tasks.update_if_known_corporation_id-98000003"], f"the locks are {locks()}"


# Transactions, with a worker.


@pytest.mark.broken_by(
    r"Jita Logistics has 2 members",
    file="tasks.py",
    old="@shared_task(base=Once)\ndef report_members(",
    new='@shared_task(base=Once, once={"unlock_before_run": True, "graceful": True})\ndef report_members(',
)
def test_what_is_saved_while_the_task_runs_is_missed(rig):
    """A change that is saved while the task runs is missed: the start on its commit is rejected."""
    row = corporation(members=1)
    line = "Jita Logistics has 1 members"
    with held(line):
        report_members.delay(98000001)
        come(rig, line)
        with transaction.atomic():
            row.member_count = 2
            row.save()
            report_members.delay_on_commit(98000001)
    rig.settle()
    assert rig.logged() == [f"INFO {line}"], rig.logged()


@pytest.mark.broken_by(
    r"the last count is missing",
    file="tasks.py",
    old='once={"unlock_before_run": True, "graceful": True})\ndef recount_members',
    new='once={"graceful": True})\ndef recount_members',
)
def test_with_unlock_before_run_the_last_change_is_seen(rig):
    """With `unlock_before_run` the last of 20 changes is seen, although the first run reads its row before them."""
    row = corporation()
    first = "Jita Logistics has 1 members"
    with held(first):
        for number in range(1, 21):
            with transaction.atomic():
                row.member_count = number
                row.save()
                recount_members.delay_on_commit(98000001)
            if number == 1:
                come(rig, first)
    rig.settle()
    assert "INFO Jita Logistics has 20 members" in rig.logged(), f"the last count is missing: {rig.logged()}"
    assert start(recount_members, 98000001, queue="nobody") == "accepted"
    assert start(recount_members, 98000001, queue="nobody") == "rejected"
    drop(rig)


# Locks across tasks.


@pytest.mark.broken_by(
    r"the start of 2 x ", **as_class('    def get_key(self, args=None, kwargs=None):\n        return "qo_one"\n')
)
def test_two_queue_once_tasks_for_one_object_run_at_the_same_time(rig):
    """Two different `QueueOnce` tasks for the same object run at the same time: each task has locks of its own."""
    with rig.hold(UPDATE), rig.hold(UPDATE + "_assets"):
        update_corporation.delay(98000001)
        update_corporation_assets.delay(98000001)
        rig.wait(lambda: len([run for run in rig.runs() if run.started and not run.ended]) == 2, "the start of 2 x it")
    rig.settle()


@pytest.mark.broken_by(
    r"in between|a retry of both did not happen", file="exclusive.py", old="yield mine", new="yield True"
)
def test_two_tasks_with_one_lock_never_overlap_and_all_starts_run(rig):
    """Tasks that ask for one lock and retry where it is held never overlap; of 20 starts each runs once."""
    line = "Members of corporation 98000001: update begins"
    with held(line):
        update_members.delay(98000001)
        come(rig, line)
        rig.demo("demo_across.py")
        second = [update_members.name, update_roles.name]

        def come_back():
            return [run for run in rig.runs() if run.retries or run.over]

        rig.wait(lambda: len(come_back()) == 2, "a retry of both")
        assert all(run.retries for run in come_back()), "another begins in between"
        due_in(1, rig)
        assert [current_app.tasks[name].max_retries for name in second] == [None, None]
        # Another object is not held up.
        update_roles.delay(98000002)
        rig.finished(update_roles.name)
    for _ in range(9):
        rig.demo("demo_across.py")
    rig.settle(timeout=20)
    lines = [line for line in rig.logged() if "98000001" in line]
    assert lines[1::2] == [line.replace("begins", "ends") for line in lines[::2]], "another begins in between"
    found = [
        sum(line == f"INFO {name} of corporation 98000001: update ends" for line in lines)
        for name in ("Members", "Roles")
    ]
    assert found == [11, 10], f"ran {found} times"
    assert len(rig.runs()) == 22


@pytest.mark.broken_by(
    r"runs although|did not happen",
    file="tasks.py",
    old='def update_and_wait(corporation_id):\n    with cache.lock(f"locks_{corporation_id}", timeout=10 * 60):',
    new="def update_and_wait(corporation_id):\n    with exclusive(corporation_id):",
)
def test_tasks_that_wait_for_a_lock_fill_the_threads(rig):
    """Five tasks that wait for a lock fill the five threads: a task that needs no lock waits with them."""
    line = "Corporation 98000001 updated"
    with ExitStack() as later:
        with exclusive(98000001):
            for _ in range(5):
                update_and_wait.delay(98000001)
            rig.started(update_and_wait.name, 5)
            update_corporation.delay(98000002)
            rig.wait(lambda: any(run.received for run in rig.runs(UPDATE)), "its receipt")
            for _ in range(3):
                assert current_app.control.ping(timeout=5, limit=1)
            (other,) = rig.runs(UPDATE)
            assert other.started is None, "it runs although five wait"
            later.enter_context(held(line))
            since = time.monotonic()
        come(rig, line)
        lasts(600, "locks_98000001", since)
    rig.settle()
    assert sorted(rig.logged()) == [f"INFO {line}"] * 5 + ["INFO Corporation 98000002 updated"]


@pytest.mark.broken_by(
    r"the other's lock is gone",
    file="exclusive.py",
    old="lock.release()",
    new="cache.delete(lock.name.removeprefix(':1:'))",
)
def test_a_task_that_outlasts_such_a_lock_fails_and_leaves_the_lock_of_the_next(rig):
    """A task that outlasts such a lock fails at its end with `LockNotOwnedError`, and leaves the lock of the next."""
    line = "Members of corporation 98000001: update ends"
    with held(line):
        since = time.monotonic()
        update_members.delay(98000001)
        come(rig, line)
        lasts(600, "locks_98000001", since)
        # As if ten minutes were over.
        cache.pexpire("locks_98000001", 1)
        rig.wait(lambda: not cache.keys("locks_*"), "the end of the lock")
        other = cache.lock("locks_98000001", timeout=600)
        assert other.acquire(blocking=False)
    (run,) = rig.finished(update_members.name)
    assert other.owned(), "the other's lock is gone"
    assert run.state == "failed"
    assert "LockNotOwnedError" in run.exception, run.exception
    rig.settle()


# Beat.


@contextmanager
def beat(rig, *rows):
    """Start beat on `rows`, and on one that shows how often it has looked; both fall due all the time."""
    often = IntervalSchedule.objects.create(every=200_000, period=IntervalSchedule.MICROSECONDS)
    for number, fields in enumerate(rows):
        PeriodicTask.objects.create(name=str(number), interval=often, **fields)
    PeriodicTask.objects.create(name="rounds", task="locks.tasks.round", interval=often, queue="nobody")
    process = rig.start_beat()

    def rounds(count):
        count += len(rig.runs("locks.tasks.round"))
        rig.wait(lambda: len(rig.runs("locks.tasks.round")) >= count, "the next rounds of beat")

    yield rounds, process
    # Not stopped: told so while it saves, Celery's beat may not end.
    rig.kill(process)
    drop(rig)


@pytest.mark.workers({"paused": True})
@pytest.mark.broken_by(
    r"sent [2-9] times",
    file="tasks.py",
    old="@shared_task(base=QueueOnce)\ndef update_corporation(",
    new="@shared_task(base=Once)\ndef update_corporation(",
)
def test_after_an_outage_expire_seconds_and_queue_once_send_nothing_until_the_lock_ends(rig):
    """After an outage longer than `expire_seconds` a `QueueOnce` entry is not sent again before its lock has ended."""
    other = update_corporation_assets.name
    rows = {"task": UPDATE, "args": "[98000001]", "expire_seconds": 1}, {"task": other, "args": "[98000001]"}
    with beat(rig, *rows) as (rounds, _):
        (sent,) = rig.wait(lambda: [event for event in rig.events if event.get("expires")], "the first message")
        rig.wait(lambda: datetime.now(UTC) > datetime.fromisoformat(sent["expires"]), "the end of the second")
        rounds(1)
        rig.resume()
        rig.finished(UPDATE)
        rig.finished(other, 2)
        rounds(2)
        runs, others = rig.runs(UPDATE), rig.finished(other, 3)
        assert len(runs) == 1, f"sent {len(runs)} times"
        assert runs[0].state == "revoked"
        assert cache.ttl(LOCK) > 3500
        # As if the hour were over.
        cache.delete(LOCK)
        rig.wait(lambda: any(run.state == "succeeded" for run in rig.runs(UPDATE)), "a run")
    began = min(run.sent for run in (*runs, *others))
    end = others[-1].ended
    with_it, without = "with expire_seconds", "without"
    bars = [(with_it, "waits", runs[0].sent, runs[0].ended, "wait")]
    bars += [(with_it, "thrown away; the lock stays, nothing is sent", runs[0].ended, end, "two")]
    for run in others:
        bars += [(without, "waits", run.sent, run.started, "wait"), (without, "", run.started, run.ended, "one")]
    rig.chart(
        "after_an_outage",
        "timeline",
        [(group, label, start - began, end - began, kind) for group, label, start, end, kind in bars],
        legend=[("wait", "waits"), ("one", "runs"), ("two", "locked, and nothing waits or runs")],
        values={"runs": len(others)},
    )


@pytest.mark.workers({"paused": True})
@pytest.mark.broken_by(r"\d+ wait", **unlocked("update_corporation"))
def test_without_expire_seconds_one_run_of_a_queue_once_entry_is_made_up_after_an_outage(rig):
    """Without `expire_seconds` one message of a `QueueOnce` entry waits through an outage, and runs after it.

    Each time the lock ends during the outage, one more waits.
    """
    with beat(rig, {"task": UPDATE, "args": "[98000001]"}) as (rounds, _):
        rig.wait(lambda: rig.runs(UPDATE), "the first message")
        rounds(3)
        count = len(rig.runs(UPDATE))
        assert count == 1, f"{count} wait"
        # As if the hour were over.
        cache.delete(LOCK)
        rig.wait(lambda: len(rig.runs(UPDATE)) == 2, "one more message")
        rounds(1)
        assert len(rig.runs(UPDATE)) == 2
        rig.resume()
        assert [run.state for run in rig.finished(UPDATE, 3)[:2]] == ["succeeded"] * 2


@pytest.mark.workers
@pytest.mark.broken_by(
    r"the log of beat", file="tasks.py", old='once={"timeout": 2 * 60 * 60}', new='once={"graceful": True}'
)
def test_beat_logs_an_error_for_a_task_without_graceful_and_goes_on(rig):
    """Without `graceful`, beat logs an error at each time at which a lock is held, and sends its other entries."""
    with beat(rig, {"task": update_structures.name, "args": "[98000001]"}) as (rounds, process):
        rig.wait(lambda: rig.runs(update_structures.name), "the first message")
        rounds(3)
        found = rig.printed(process).count("Couldn't apply scheduled task 0: ")
        assert found >= 2, f"the log of beat has it {found} times"
        assert len(rig.runs(update_structures.name)) == 1


# Others.


@pytest.mark.broken_by(
    r"after its end: accepted",
    file="once.py",
    old="    def after_return(self, *args):\n        pass\n",
    new="    pass\n",
)
def test_a_base_class_can_keep_the_lock_after_the_end(rig):
    """With a base whose `after_return` does nothing, a task runs once in so many seconds as its `timeout` says."""
    since = time.monotonic()
    update_prices.delay(10000002)
    rig.finished(update_prices.name)
    rig.same(start(update_prices, 10000002), "rejected", "after its end: {}")
    key = "qo_locks.tasks.update_prices_region_id-10000002"
    lasts(600, key, since)
    cache.pexpire(key, 1)
    rig.wait(lambda: locks() == [], "the end of the lock")
    assert start(update_prices, 10000002) == "accepted"
    rig.settle()
    assert rig.logged() == ["INFO Prices in region 10000002 updated"] * 2


@pytest.mark.broken_by(r"the locks are \[\]", **unlocked("update_corporation"))
@pytest.mark.workers({"pool": "prefork", "concurrency": 1})
def test_with_prefork_a_child_that_is_killed_leaves_the_lock(rig):
    """With the pool `prefork`, a child process that is killed, as for want of memory, leaves the lock of its task."""
    with rig.hold(UPDATE):
        update_corporation.delay(98000001)
        os.kill(running(rig)["worker_pid"], signal.SIGKILL)
        rig.finished(UPDATE)
    rig.wait(lambda: "WorkerLostError" in rig.printed(rig.workers[0]), "the line in the log")
    assert locks() == [LOCK], f"the locks are {locks()}"


@pytest.mark.broken_by(
    r"the locks are \[\]",
    file="tasks.py",
    old="@shared_task(base=QueueOnce)\ndef update_corporation(",
    new="@shared_task(base=Once)\ndef update_corporation(",
)
@pytest.mark.workers({"pool": "prefork", "concurrency": 1})
def test_with_prefork_a_task_that_is_terminated_leaves_its_lock(rig):
    """With the pool `prefork`, a task that is ended by `revoke(terminate=True)` leaves its lock."""
    with rig.hold(UPDATE):
        update_corporation.delay(98000001)
        current_app.control.revoke(running(rig)["id"], terminate=True)
        (run,) = rig.finished(UPDATE)
        assert run.state == "revoked"
    assert locks() == [LOCK], f"the locks are {locks()}"


@pytest.mark.broken_by(r"the locks are \['", **as_class("    def after_return(self, *args):\n        pass\n"))
@pytest.mark.workers({"pool": "prefork", "concurrency": 1})
def test_with_prefork_a_hard_time_limit_gives_the_lock_back(rig):
    """With the pool `prefork` and Celery 5.7, a task that its hard time limit ends gives its lock back."""
    with rig.hold(UPDATE):
        update_corporation.apply_async([98000001], time_limit=1)
        rig.finished(UPDATE)
    rig.wait(lambda: "Hard time limit" in rig.printed(rig.workers[0]), "the line in the log")
    assert locks() == [], f"the locks are {locks()}"


def running(rig):
    """Return what the worker says of the one task that it runs."""

    def found():
        answers = current_app.control.inspect(timeout=0.3).active() or {}
        return [task for tasks in answers.values() for task in tasks]

    (task,) = rig.wait(found, "a task that runs")
    return task


@pytest.mark.fresh
@pytest.mark.broken_by(r"after the kill: \[\]", file="exclusive.py", old="lock.acquire(blocking=False)", new="True")
def test_a_killed_worker_leaves_such_a_lock_for_its_ten_minutes(rig):
    """A worker that is killed leaves such a lock too, for the rest of its ten minutes."""
    line = "Members of corporation 98000001: update begins"
    with held(line):
        update_members.delay(98000001)
        come(rig, line)
        rig.kill(rig.workers[0])
    found = [600 - cache.ttl(key) < 300 for key in cache.keys("locks_*")]
    rig.same(found, [True], "after the kill: {}")
