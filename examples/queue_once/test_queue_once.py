import configparser
import logging
import re
import signal
import textwrap
import time
from contextlib import ExitStack, contextmanager
from datetime import datetime

import pytest
from allianceauth.eveonline.models import EveCorporationInfo
from celery import chain, current_app, group
from celery_once import AlreadyQueued
from django.core.cache import cache
from django_celery_beat.models import IntervalSchedule, PeriodicTask
from kombu.exceptions import EncodeError

from queue_once.tasks import (
    recount_fleets,
    recount_pilots,
    update_characters,
    update_corporation,
    update_killmails,
    update_members,
    update_standings,
    update_structures,
    update_wallet,
)

UPDATE = "queue_once.update_corporation"
LOCK = "qo_queue_once.update_corporation_corporation_id-98000001"
WALLET = "qo_queue_once.tasks.update_wallet_corporation_id-98000001"
BEGINS = "Corporation 98000001: update begins"
ENDS = "Corporation 98000001: update ends"
COUNTS = "Fleets of corporation 98000001: count begins"


def as_base(base):
    """Break the chapter's main task: give it another base, or other options."""
    return {"file": "tasks.py", "old": '_corporation", base=QueueOnce)', "new": f'_corporation", base={base})'}


def as_class(code):
    """Break every task of the chapter: `code` makes another class of Auth's."""
    there = "from allianceauth.services.tasks import QueueOnce\n"
    begin = "class QueueOnce(QueueOnce):\n    abstract = True\n\n"
    return {"file": "tasks.py", "old": there, "new": there + begin + textwrap.indent(textwrap.dedent(code), "    ")}


def once(backend, **settings):
    """Break the setting `ONCE` of Auth's celery.py."""
    return {"conf": {"ONCE": {"backend": backend, "settings": settings}}}


UNLOCKED = as_base("None")
KEPT_LOCK = as_class("""
    def after_return(self, *args):
        pass
""")
ONE_KEY = as_base('QueueOnce, once={"keys": ["corporation_id"], "graceful": True}')
UNLOCKS_EARLY = as_base('QueueOnce, once={"unlock_before_run": True, "graceful": True}')
RAISES = as_base('QueueOnce, once={"graceful": False}')


def pause(record):
    """Let a run come past a line that it logs only when no test holds that line."""
    line = record.getMessage()
    cache.add(f"come to {line}", 0, timeout=None)
    cache.incr(f"come to {line}")
    with cache.lock(f"hold {line}", sleep=0.01, blocking_timeout=20):
        return True


# The workers are forked from this process, so that what they log comes through here too.
logging.getLogger("extensions.queue_once.tasks").addFilter(pause)


@contextmanager
def held(*lines):
    """Hold each run that comes to one of `lines`, before it logs it."""
    with ExitStack() as locks:
        for line in lines:
            locks.enter_context(cache.lock(f"hold {line}"))
        yield


def come(rig, line, count=1):
    """Wait until `count` runs have come to `line`."""
    rig.wait(lambda: cache.get(f"come to {line}", 0) >= count, f"{count} x {line!r}")


def start(task, *args, **options):
    try:
        result = task.apply_async(args, options.pop("kwargs", None), **options)
    except AlreadyQueued:
        return "AlreadyQueued"
    return "accepted" if result.id else "rejected"


def locks():
    return sorted(cache.keys("qo_*"))


def lasts(seconds, key, since):
    """See that a lock which was taken after `since` was taken for so many seconds."""
    left = cache.pttl(key) / 1000
    most = left + time.monotonic() - since + 0.001
    assert left <= seconds <= most, f"the lock was taken for {most:.0f} s"


def due_in_a_second(rig, since):
    """See that the one countdown which was sent after `since` is of a second."""
    (sent,) = [event for event in rig.events if event["type"] == "task-sent" and event["eta"]]
    at = datetime.fromisoformat(sent["eta"]).timestamp()
    assert at - sent["timestamp"] <= 1 <= at - since, f"it is due in {at - since:.1f} s"


def worked(*runs):
    """See that runs took the time which stands for work: the pages' calls count on it."""
    assert all(run.ended - run.started >= 0.3 for run in runs), runs


def drop(rig):
    """Drop what waits in the queue `nobody`, which no worker reads."""
    rig.redis.delete(*[key for key in rig.waiting() if key.startswith("nobody")])


def corporations():
    for number, name in ((98000001, "Jita Logistics"), (98000002, "Perimeter Logistics")):
        names = {"corporation_name": name, "corporation_ticker": number}
        EveCorporationInfo.objects.create(corporation_id=number, member_count=1, **names)


def logged_here(caplog):
    return [f"{record.levelname} {record.getMessage()}" for record in caplog.records]


def lost(rig):
    """See that the task which a killed worker ran is gone, and its lock is not."""
    (run,) = rig.runs(UPDATE)
    assert run.ended is None
    assert not rig.redis.hlen("unacked"), "it would have been acknowledged at its end"
    assert rig.waiting() == {}
    rig.same(start(update_corporation, 98000001), "rejected", "after the kill: {}")
    assert cache.ttl(LOCK) > 0


# Without a worker, what was sent first waits for good.


@pytest.mark.broken_by(r"2 messages wait", **UNLOCKED)
@pytest.mark.workers
def test_a_start_while_another_waits_sends_no_message(rig):
    """While a start of the task waits in the queue, a second start with the same arguments sends no message."""
    starts = rig.demo()
    rig.same(sum(rig.waiting().values()), 1, "{} messages wait")
    assert starts["accepted"].id, "the first was rejected"
    assert not starts["rejected"].id, "the second was accepted"


@pytest.mark.broken_by(r"AlreadyQueued", **RAISES)
@pytest.mark.workers
def test_a_rejected_start_returns_state_rejected_and_no_id(rig):
    """With Auth's options a rejected start raises nothing: it returns a result in state REJECTED whose id is None."""
    update_corporation.delay(98000001)
    second = update_corporation.delay(98000001)
    assert (second.id, second.state, second.ready(), second.get()) == (None, "REJECTED", True, None), second
    cache.delete_pattern("*")
    rig.prints("demo_told.py", "The update has been started\nThe update is under way already\n")


@pytest.mark.broken_by(r"DID NOT RAISE", conf={"result_backend": "cache+memory://"})
@pytest.mark.workers
def test_the_result_of_an_accepted_start_has_an_id_and_no_state(rig):
    """The result of an accepted start has an id but no state: Auth has no result backend, so that `.state` raises."""
    first = update_corporation.delay(98000001)
    assert first.id
    with pytest.raises(AttributeError):
        _ = first.state


@pytest.mark.broken_by(r"the locks are \[\]", **once("celery_once.backends.File", location="locks-1"))
@pytest.mark.workers
def test_the_lock_is_a_key_in_djangos_cache(rig):
    """The lock is a key of Django's cache: `qo_`, the task's name and each argument given, as name-value."""
    update_corporation.delay(98000001)
    update_corporation.delay(force=True, corporation_id=98000002)
    update_killmails.delay(98000001, page=1)
    taken = [LOCK, LOCK[:-1] + "2_force-True", "qo_queue_once.tasks.update_killmails_corporation_id-98000001_page-1"]
    assert locks() == sorted(taken), f"the locks are {locks()}"
    assert [cache.get(key) for key in taken] == ["lock"] * 3


@pytest.mark.broken_by(
    r"the second start was accepted",
    file="tasks.py",
    old="@shared_task(base=QueueOnce)\ndef update_characters",
    new="@shared_task\ndef update_characters",
)
@pytest.mark.workers
def test_the_base_alone_makes_the_lock(rig):
    """`base=QueueOnce` is enough: without `bind` and `name` the task has its lock, under the name Celery gives it."""
    update_characters.delay([2112000001])
    rig.same(start(update_characters, [2112000001]), "rejected", "the second start was {}")
    assert locks() == ["qo_queue_once.tasks.update_characters_character_ids-[2112000001]"]


@pytest.mark.broken_by(
    r"a rejected start gave it \d+ s",
    **as_class("""
    def apply_async(self, args=None, kwargs=None, **options):
        result = super().apply_async(args, kwargs, **options)
        from django.core.cache import cache
        cache.touch(self.get_key(args, kwargs), 3600)
        return result
"""),
)
@pytest.mark.broken_by(
    r"the lock was taken for 10 s",
    **once("allianceauth.services.tasks.DjangoBackend", default_timeout=10),
)
@pytest.mark.workers
def test_a_lock_lasts_an_hour_at_most(rig):
    """A lock that nothing gives back ends 3600 seconds after the start that took it; starts it rejects add nothing."""
    since = time.monotonic()
    update_corporation.delay(98000001)
    lasts(3600, LOCK, since)
    # As if half of the hour were over, then all but a moment.
    cache.expire(LOCK, 1800)
    assert start(update_corporation, 98000001) == "rejected"
    assert cache.pttl(LOCK) <= 1_800_000, f"a rejected start gave it {cache.pttl(LOCK) / 1000:.0f} s"
    cache.pexpire(LOCK, 1)
    rig.wait(lambda: locks() == [], "the end of the lock")
    assert start(update_corporation, 98000001) == "accepted"


@pytest.mark.broken_by(r"the lock was taken for 3600 s", file="tasks.py", old='{"timeout": 2 * 60 * 60}', new="{}")
@pytest.mark.workers
def test_the_timeout_of_a_task_is_how_long_its_lock_lasts(rig):
    """`once={"timeout": …}` on the task is how many seconds a lock of it lasts."""
    since = time.monotonic()
    update_members.delay(98000001)
    lasts(7200, "qo_queue_once.tasks.update_members_corporation_id-98000001", since)


@pytest.mark.broken_by(r"told of \[\]", file="demo_locks.py", old='"qo_*"', new='"once_*"')
@pytest.mark.workers
def test_iter_keys_lists_the_locks_and_ttl_says_how_long_each_lasts_at_most(rig, capsys):
    """`cache.iter_keys("qo_*")` finds every lock, and `cache.ttl(key)` is the seconds until it ends by itself."""
    update_members.delay(98000002)
    update_corporation.delay(98000001)
    cache.set("another", "key")
    rig.demo("demo_locks.py")
    told = re.findall(r"^(\S+) is held for (\d+) s at most$", capsys.readouterr().out, re.MULTILINE)
    second = "qo_queue_once.tasks.update_members_corporation_id-98000002"
    assert [key for key, _ in told] == sorted([LOCK, second]), f"told of {told}"
    left = {key: int(seconds) for key, seconds in told}
    assert 3500 < left[LOCK] <= 3600 < 7100 < left[second] <= 7200, f"told of {told}"


@pytest.mark.broken_by(
    r"after the key was deleted a start is rejected",
    file="demo_free.py",
    old="update_corporation.get_key([98000001])",
    new="update_corporation.name",
)
@pytest.mark.workers
def test_deleting_its_key_frees_a_lock(rig):
    """`cache.delete(TASK.get_key(ARGUMENTS))` frees the lock of a task's start with these arguments, and no other."""
    update_corporation.delay(98000001)
    update_corporation.delay(98000002)
    rig.demo("demo_free.py")
    assert start(update_corporation, 98000002) == "rejected"
    rig.same(start(update_corporation, 98000001), "accepted", "after the key was deleted a start is {}")


@pytest.mark.broken_by(
    r"the lock was taken for 10800 s",
    **as_class("""
    def apply_async(self, args=None, kwargs=None, **options):
        return super().apply_async(args, kwargs, once={"timeout": 3600 + options["countdown"]}, **options)
"""),
)
@pytest.mark.workers
def test_a_countdown_does_not_lengthen_the_lock(rig):
    """A countdown does not lengthen the lock: a task sent for in two hours is without its lock after one."""
    since = time.monotonic()
    update_corporation.apply_async([98000001], countdown=7200)
    lasts(3600, LOCK, since)


AS_GIVEN = as_class("""
    def get_key(self, args=None, kwargs=None):
        return f"qo_{self.name} {list(args or [])!r} {kwargs or {}!r}"
""")


@pytest.mark.broken_by(r"by keyword: accepted", **AS_GIVEN)
@pytest.mark.workers
def test_an_argument_by_position_and_by_keyword_make_the_same_lock(rig):
    """It makes no difference to the lock whether an argument is given by position or by keyword."""
    update_corporation.delay(98000001)
    rig.same(start(update_corporation, kwargs={"corporation_id": 98000001}), "rejected", "by keyword: {}")


@pytest.mark.broken_by(r"with the default: rejected", **ONE_KEY)
@pytest.mark.workers
def test_leaving_an_argument_out_and_passing_its_default_make_two_locks(rig):
    """Leaving an argument out and passing its default value make two locks: both starts are accepted."""
    (default,) = update_corporation.run.__defaults__
    update_corporation.delay(98000001)
    rig.same(start(update_corporation, 98000001, kwargs={"force": default}), "accepted", "with the default: {}")
    assert locks() == [LOCK, f"{LOCK}_force-False"]


@pytest.mark.broken_by(r"'1' after 1: accepted", **AS_GIVEN)
@pytest.mark.workers
def test_values_are_compared_as_text(rig):
    """Values are compared as text: 1 and "1" share a lock, 2 and 2.0 don't, nor [1] and ["1"]; a dict has no order."""
    pairs = [(1, "1"), (None, "None"), (2, 2.0), ([1], ["1"]), ({"a": 1, "b": 2}, {"b": 2, "a": 1})]
    seen = []
    for one, other in pairs:
        update_corporation.delay(one)
        seen.append(f"{other!r} after {one!r}: {start(update_corporation, other)}")
    assert seen == [
        "'1' after 1: rejected",
        "'None' after None: rejected",
        "2.0 after 2: accepted",
        "['1'] after [1]: accepted",
        "{'b': 2, 'a': 1} after {'a': 1, 'b': 2}: rejected",
    ], seen


@pytest.mark.broken_by(r"the second is accepted", **UNLOCKED)
@pytest.mark.workers
def test_a_better_priority_does_not_move_what_waits(rig):
    """A second start with a better priority is rejected too, and the first waits on with the priority it has."""
    update_corporation.apply_async([98000001], priority=7)
    second, waiting = start(update_corporation, 98000001, priority=1), rig.waiting()
    assert second == "rejected", f"the second is {second}, waiting: {waiting}"
    assert waiting == {"celery\x06\x167": 1}


@pytest.mark.broken_by(
    r"1 messages wait",
    file="tasks.py",
    old="logger = get_extension_logger(__name__)\n",
    new="""
from celery import current_app
send = current_app.send_task


def send_task(name, args=None, kwargs=None, task_type=None, **options):
    if task_type:
        return send(name, args, kwargs, task_type=task_type, **options)
    return current_app.tasks[name].apply_async(args, kwargs, **options)


current_app.send_task = send_task
logger = get_extension_logger(__name__)
""",
)
@pytest.mark.workers
def test_send_task_asks_for_no_lock(rig):
    """`send_task` with the task's name asks for no lock: the message is sent although another waits."""
    rig.demo("demo_by_name.py")
    rig.same(sum(rig.waiting().values()), 2, "{} messages wait")
    assert locks() == [LOCK]


@pytest.mark.broken_by(r"after the purge a start is accepted", **UNLOCKED)
@pytest.mark.workers
def test_a_purge_leaves_the_locks(rig):
    """Purging the queue throws the messages away but leaves the locks, so that new starts are rejected."""
    update_corporation.delay(98000001)
    update_corporation.apply_async([98000002], priority=1)
    assert current_app.control.purge() == 2
    rig.same(start(update_corporation, 98000001), "rejected", "after the purge a start is {}")
    assert rig.waiting() == {}
    assert locks() == [LOCK, LOCK[:-1] + "2"]


@pytest.mark.broken_by(r"after: .*rejected", **once("celery_once.backends.File", location="locks-2"))
@pytest.mark.workers
# It flushes the database, which may be lent else.
@pytest.mark.server
def test_clearing_the_cache_drops_every_lock(rig):
    """`cache.clear()` drops every lock: starts that were rejected before it are accepted after it."""
    tasks = update_corporation, recount_fleets, update_standings
    first, before = ({start(task, 98000001) for task in tasks} for _ in range(2))
    assert (first, before) == ({"accepted"}, {"rejected"})
    cache.clear()
    rig.same({start(task, 98000001) for task in tasks}, {"accepted"}, "after: {}")


@pytest.mark.broken_by(r"3 of 3 were sent", **UNLOCKED)
@pytest.mark.workers
def test_a_group_is_sent_without_its_rejected_members(rig):
    """A group is sent without the members whose lock is held; its result lists them like the others."""
    result = group(update_corporation.si(number) for number in (98000001, 98000001, 98000002)).delay()
    rig.same(sum(rig.waiting().values()), 2, "{} of 3 were sent")
    assert [bool(member.id) for member in result.results] == [True, True, True]


@pytest.mark.broken_by(r"AlreadyQueued", **RAISES)
@pytest.mark.workers
def test_a_chain_whose_first_link_is_rejected_returns_a_result_as_if_it_ran(rig):
    """A chain whose first link is rejected sends nothing, and still returns a result with an id."""
    update_corporation.delay(98000001)
    result = chain(update_corporation.si(98000001), update_corporation.si(98000002)).delay()
    rig.same(sum(rig.waiting().values()), 1, "{} messages wait")
    assert result.id is not None, "the result has no id"


@pytest.mark.broken_by(
    r"the locks are \[\]",
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
def test_a_start_that_cannot_be_sent_leaves_its_lock(rig):
    """The lock is taken before the message is made: an argument that JSON can't hold raises and leaves a lock."""
    with pytest.raises(EncodeError):
        update_corporation.delay(98000001, force={1, 2})
    assert rig.waiting() == {}
    assert locks() == [LOCK + "_force-{1, 2}"], f"the locks are {locks()}"


@pytest.mark.broken_by(
    r"DID NOT RAISE",
    **as_class("""
    def apply_async(self, args=None, kwargs=None, once=None, **options):
        return super().apply_async(args, kwargs, once={"timeout": 3600}, **options)
"""),
)
@pytest.mark.workers
def test_a_timeout_of_none_makes_the_next_start_raise(rig):
    """With `timeout` None a lock has no end, and Auth's backend fails on it: the next start raises `TypeError`."""
    update_corporation.apply_async([98000001], once={"timeout": None})
    with pytest.raises(TypeError):
        update_corporation.delay(98000001)
    assert cache.ttl(LOCK) is None


@pytest.mark.broken_by(
    r"a second start: AlreadyQueued",
    file="tasks.py",
    old="logger = get_extension_logger(__name__)\n",
    new='celery_once.QueueOnce.once["graceful"] = False\nlogger = get_extension_logger(__name__)\n',
)
@pytest.mark.workers
def test_celery_onces_own_class_is_graceful_as_well(rig):
    """Auth changes celery-once's own defaults: a task based on `celery_once.QueueOnce` rejects without raising too."""
    update_standings.delay(98000001)
    rig.same(start(update_standings, 98000001), "rejected", "a second start: {}")


@pytest.mark.broken_by(
    r"recount_fleets: \['qo_queue_once.tasks.recount_fleets",
    file="tasks.py",
    old='once={"unlock_before_run": True, "graceful": True})\ndef recount_fleets',
    new='once={"graceful": True})\ndef recount_fleets',
)
@pytest.mark.broken_by(
    r"update_standings: \[\]",
    file="tasks.py",
    old="base=celery_once.QueueOnce",
    new='base=celery_once.QueueOnce, once={"unlock_before_run": True}',
)
@pytest.mark.workers
def test_calling_the_task_like_a_function_asks_for_no_lock(rig, caplog):
    """Called like a function, a task runs although its lock is held, and leaves it; `unlock_before_run` removes it."""
    update_standings.delay(98000001)
    update_standings(98000001)
    assert logged_here(caplog) == ["INFO Standings of corporation 98000001 updated"]
    assert locks() == ["qo_queue_once.tasks.update_standings_corporation_id-98000001"], f"update_standings: {locks()}"
    cache.delete_pattern("*")
    recount_fleets.delay(98000001)
    recount_fleets(98000001)
    assert locks() == [], f"recount_fleets: {locks()}"


@pytest.mark.broken_by(
    r"after apply\(\) a start is rejected",
    file="tasks.py",
    old="base=celery_once.QueueOnce",
    new='base=type("Kept", (QueueOnce,), {"abstract": True, "after_return": print})',
)
@pytest.mark.workers
def test_apply_removes_the_lock_of_another_start(rig, caplog):
    """`.apply()` runs the task although the lock is held, and at its end removes the lock of the start that waits."""
    update_standings.delay(98000001)
    update_standings.apply([98000001])
    assert "INFO Standings of corporation 98000001 updated" in logged_here(caplog)
    rig.same(start(update_standings, 98000001), "accepted", "after apply() a start is {}")


@pytest.mark.broken_by(
    r"printed ''",
    file="tasks.py",
    old='{"timeout": 2 * 60 * 60}',
    new='{"timeout": 2 * 60 * 60, "graceful": True}',
)
@pytest.mark.workers
def test_options_of_a_task_replace_auths_so_that_a_second_start_raises(rig):
    """`once={…}` on a task replaces Auth's options: without `graceful` in it, a second start raises `AlreadyQueued`."""
    since = time.time()
    rig.prints("demo_raises.py", "AlreadyQueued: the lock ends in 120 minutes at the latest\n")
    due_in_a_second(rig, since)
    assert str(EveCorporationInfo.objects.get(corporation_id=98000001)) == "Jita Logistics"


@pytest.mark.broken_by(
    r"printed ''",
    **as_class("""
    def apply_async(self, args=None, kwargs=None, once=None, **options):
        return super().apply_async(args, kwargs, **options)
"""),
)
@pytest.mark.workers
def test_graceful_and_timeout_can_be_given_with_a_call(rig):
    """`apply_async(once={…})` sets `graceful` and `timeout` for that one start."""
    since = time.monotonic()
    rig.prints("demo_call.py", "AlreadyQueued: the lock ends in 120 minutes at the latest\n")
    lasts(7200, LOCK, since)
    assert start(update_corporation, 98000001) == "rejected"
    update_members.delay(98000001)
    rig.same(
        [start(update_members, 98000001, once=once) for once in ({"graceful": True}, {})],
        ["rejected", "AlreadyQueued"],
        "{}",
    )


# With one worker as Auth starts it.


@pytest.mark.broken_by(r"while it runs: accepted", **UNLOCKED)
@pytest.mark.broken_by(r"while it runs: accepted", **UNLOCKS_EARLY)
def test_a_start_while_it_runs_is_rejected_and_one_after_its_success_accepted(rig):
    """While the task runs a second start is rejected; after it has succeeded the next one is accepted."""
    with held(BEGINS):
        update_corporation.delay(98000001)
        come(rig, BEGINS)
        rig.same(start(update_corporation, 98000001), "rejected", "while it runs: {}")
    (run,) = rig.finished(UPDATE)
    after = start(update_corporation, 98000001)
    assert (run.state, after) == ("succeeded", "accepted"), f"after it has {run.state}: {after}"
    rig.settle()


@pytest.mark.broken_by(r"after it has failed: AlreadyQueued", **KEPT_LOCK)
def test_a_start_after_a_failure_is_accepted(rig):
    """A task that raises gives its lock back: the next start is accepted."""
    update_members.delay(98000001)
    (run,) = rig.finished()
    assert run.state == "failed"
    corporations()
    rig.same(start(update_members, 98000001), "accepted", "after it has failed: {}")
    rig.settle()
    assert rig.logged() == ["INFO Members of Jita Logistics updated"]


@pytest.mark.broken_by(
    r"before the second attempt: accepted",
    **as_class("""
    def on_retry(self, exc, task_id, args, kwargs, einfo):
        self.once_backend.clear_lock(self.get_key(args, kwargs))
"""),
)
@pytest.mark.broken_by(
    r"the lock has 3\d\d\d s left",
    **as_class("""
    def on_retry(self, exc, task_id, args, kwargs, einfo):
        from django.core.cache import cache
        cache.touch(self.get_key(args, kwargs), 3600)
"""),
)
def test_a_retry_keeps_the_lock_and_takes_no_new_one(rig):
    """The lock is kept through a retry and its countdown, with the time it has left: a retry takes no new one."""
    first, second = (f"Wallet of corporation 98000001: attempt {number}" for number in (1, 2))
    since = time.time()
    with held(second):
        with held(first):
            update_wallet.delay(98000001)
            come(rig, first)
            # As if most of the hour were over: a lock that was given back and taken anew would have more.
            cache.expire(WALLET, 600)
        rig.wait(lambda: any(run.retries for run in rig.runs()), "a retry")
        rig.same(start(update_wallet, 98000001), "rejected", "before the second attempt: {}")
        come(rig, second)
        rig.same(start(update_wallet, 98000001), "rejected", "during the second attempt: {}")
        left = cache.pttl(WALLET) / 1000
        assert left <= 600, f"the lock has {left:.0f} s left"
        due_in_a_second(rig, since)
    (run,) = rig.finished()
    assert (run.state, len(run.retries), run.exception[:12]) == ("failed", 1, "DoesNotExist")
    rig.settle()
    corporations()
    rig.same(start(update_wallet, 98000001), "accepted", "after the retry: {}")
    assert rig.finished(count=2)[-1].state == "succeeded"
    assert rig.logged() == [f"INFO {line}" for line in (first, second, first, "Wallet of Jita Logistics updated")]


@pytest.mark.broken_by(
    r"after the first attempt: rejected",
    file="tasks.py",
    old='once={"unlock_before_run": True, "graceful": True}, max_retries',
    new='once={"graceful": True}, max_retries',
)
def test_with_unlock_before_run_a_retry_holds_no_lock(rig):
    """With `unlock_before_run` a retry holds no lock: a start is accepted while it waits for its countdown."""
    since = time.time()
    recount_pilots.delay(98000001)
    rig.wait(lambda: any(run.retries for run in rig.runs()), "a retry")
    due_in_a_second(rig, since)
    rig.same(start(recount_pilots, 98000001), "accepted", "after the first attempt: {}")
    rig.settle()
    rig.wait(lambda: all(run.retries for run in rig.runs()), "word of both retries")
    assert [(run.state, len(run.retries), run.exception[:12]) for run in rig.runs()] == [
        ("failed", 1, "DoesNotExist")
    ] * 2
    corporations()
    recount_pilots.delay(98000001)
    rig.settle()
    assert rig.logged() == ["INFO Pilots of Jita Logistics counted"]
    waiting = [start(recount_pilots, 98000001, queue="nobody") for _ in range(2)]
    rig.same(waiting, ["accepted", "rejected"], "while another waits: {}")
    drop(rig)


@pytest.mark.broken_by(
    r"while it runs: rejected",
    file="tasks.py",
    old='once={"unlock_before_run": True, "graceful": True})\ndef recount_fleets',
    new='once={"graceful": True})\ndef recount_fleets',
)
def test_unlock_before_run_accepts_one_start_while_another_runs(rig):
    """With `unlock_before_run` a start is rejected while another waits, accepted while that one runs: then both run."""
    since = time.time()
    with held(COUNTS):
        with rig.hold("queue_once.tasks.recount_fleets"):
            rig.prints("demo_unlock.py", "while the first waits: rejected\n")
        due_in_a_second(rig, since)
        come(rig, COUNTS)
        rig.same(start(recount_fleets, 98000001), "accepted", "while it runs: {}")
        come(rig, COUNTS, 2)
    rig.settle()
    assert sorted(rig.logged()) == [f"INFO {COUNTS}"] * 2 + [f"INFO {COUNTS[:-6]}ends"] * 2


@pytest.mark.broken_by(
    r"it ran 1 times",
    file="tasks.py",
    old='once={"unlock_before_run": True, "graceful": True})\ndef recount_fleets',
    new='once={"graceful": True})\ndef recount_fleets',
)
def test_with_unlock_before_run_a_chain_of_the_same_task_and_arguments_runs_to_its_end(rig):
    """With `unlock_before_run` a chain of the same task with the same arguments runs to its end."""
    link = recount_fleets.si(98000001)
    chain(link, link).delay()
    runs = rig.settle()
    assert len(runs) == 2, f"it ran {len(runs)} times"
    worked(*runs)


@pytest.mark.broken_by(
    r"force=True: accepted",
    file="tasks.py",
    old='once={"keys": ["corporation_id"], "graceful": True}',
    new='once={"graceful": True}',
)
def test_keys_chooses_the_arguments_that_make_the_lock(rig):
    """With `keys` only the arguments named there make the lock: another value of `force` is rejected too."""
    line = "Structures of corporation 98000001 updated"
    with held(line):
        rig.prints("demo_keys.py", "force=False: accepted\nforce=True: rejected\n")
        assert locks() == ["qo_queue_once.tasks.update_structures_corporation_id-98000001"]
        assert start(update_structures, 98000002, False) == "accepted"
    worked(*rig.settle())
    assert f"INFO {line}" in rig.logged()


@pytest.mark.broken_by(r"10000043 accepted", file="tasks.py", old='"keys": [], ', new="")
def test_an_empty_list_of_keys_makes_one_lock_for_the_task(rig):
    """With an empty list of `keys` the task has one lock, whatever its arguments."""
    line = "Prices in region 10000002 updated"
    with held(line):
        rig.prints("demo_prices.py", "10000002 accepted\n10000043 rejected\n")
        assert locks() == ["qo_queue_once.tasks.update_prices"]
    worked(*rig.settle())
    assert rig.logged() == [f"INFO {line}"]


@pytest.mark.broken_by(r"DID NOT RAISE", file="tasks.py", old='"corporation_id", "page"', new='"corporation_id"')
def test_a_key_that_is_left_to_its_default_raises_key_error(rig, caplog):
    """A start that leaves out an argument named in `keys` raises `KeyError`, even where the argument has a default."""
    line = "Page 2 of the kills of corporation 98000001 updated"
    with held(line):
        rig.same(
            [start(update_killmails, 98000001, kwargs={"page": 2}) for _ in range(2)],
            ["accepted", "rejected"],
            "with page: {}",
        )
    rig.finished()
    with pytest.raises(KeyError, match=r"^'page'$"):
        update_killmails.delay(98000001)
    update_killmails(98000001)
    assert logged_here(caplog)[-1:] == ["INFO Page 1 of the kills of corporation 98000001 updated"]
    assert rig.logged() == [f"INFO {line}"]


@pytest.mark.broken_by(
    r"with keys: rejected",
    **as_class("""
    def apply_async(self, args=None, kwargs=None, **options):
        self.once = self.once | options.get("once", {})
        return super().apply_async(args, kwargs, **options)
"""),
)
@pytest.mark.broken_by(
    r"while it runs: accepted",
    **as_class("""
    def apply_async(self, args=None, kwargs=None, once=None, **options):
        result = super().apply_async(args, kwargs, **options)
        if (once or {}).get("unlock_before_run"):
            self.once_backend.clear_lock(self.get_key(args, kwargs))
        return result
"""),
)
def test_keys_and_unlock_before_run_are_ignored_in_a_call(rig):
    """`keys` and `unlock_before_run` have no effect in `apply_async(once={…})`: they count on the task alone."""
    with held(BEGINS):
        update_corporation.apply_async([98000001], once={"unlock_before_run": True})
        rig.same(
            start(update_corporation, 98000001, True, once={"keys": ["corporation_id"]}), "accepted", "with keys: {}"
        )
        come(rig, BEGINS, 2)
        rig.same(start(update_corporation, 98000001), "rejected", "while it runs: {}")
    rig.settle()


@pytest.mark.broken_by(
    r"the locks are \[\]",
    file="demo_tuple.py",
    old="(2112000001, 2112000002)",
    new="[2112000001, 2112000002]",
)
def test_a_tuple_as_an_argument_leaves_the_lock_behind(rig):
    """A tuple reaches the worker as a list: it gives back the lock of the list, and the tuple's own stays."""
    with held("2 characters updated"):
        rig.demo("demo_tuple.py")
        come(rig, "2 characters updated")
        cache.add("qo_queue_once.tasks.update_characters_character_ids-[2112000001, 2112000002]", "lock")
    rig.settle()
    rig.same(
        locks(), ["qo_queue_once.tasks.update_characters_character_ids-(2112000001, 2112000002)"], "the locks are {}"
    )
    assert rig.logged() == ["INFO 2 characters updated"]


@pytest.mark.broken_by(r"the second start was rejected", **as_base("QueueOnce, once={'keys': [], 'graceful': True}"))
def test_starts_with_other_arguments_run_at_the_same_time(rig):
    """Starts with other arguments are not held back, nor other tasks: two corporations are updated at the same time."""
    other = BEGINS.replace("1:", "2:")
    with held(BEGINS, other):
        rig.demo("demo_parallel.py")
        rig.same("accepted" if len(locks()) == 2 else "rejected", "accepted", "the second start was {}")
        come(rig, BEGINS)
        come(rig, other)
        assert start(recount_fleets, 98000001) == "accepted"
    assert len(rig.settle()) == 3


@pytest.mark.broken_by(
    r"98000002'\] while the first runs",
    **as_class("""
    def apply_async(self, args=None, kwargs=None, **options):
        for link in options.get("chain") or []:
            self.once_backend.raise_or_lock(self.get_key(link["args"]), 3600)
        return super().apply_async(args, kwargs, **options)
"""),
)
def test_a_links_lock_is_taken_when_the_link_is_sent(rig):
    """In a chain each link's lock is taken when the link before it ends, not when the chain is started."""
    other = BEGINS.replace("1:", "2:")
    with held(other):
        with held(ENDS):
            rig.demo("demo_links.py")
            come(rig, ENDS)
            assert locks() == [LOCK], f"{locks()} while the first runs"
        come(rig, other)
        rig.finished(UPDATE)
        assert locks() == [LOCK[:-1] + "2"], f"{locks()} after it has ended"
    rig.settle()


@pytest.mark.broken_by(r"ran: .*98000003", **UNLOCKED)
@pytest.mark.broken_by(r"the worker also logged .*AlreadyQueued", **RAISES)
def test_a_rejected_link_ends_the_chain_without_a_word(rig):
    """A link that is rejected ends the chain: the links after it never run, and nothing is logged."""
    since = time.time()
    with held(BEGINS.replace("1:", "2:")):
        rig.demo("demo_chain.py")
        due_in_a_second(rig, since)
        # The start of the second corporation's own update waits or runs until the chain has come to it.
        rig.finished(UPDATE)
    rig.same(sorted(int(run.args.strip("([,])")) for run in rig.settle()), [98000001, 98000002], "ran: {}")
    words = re.findall(r"\d+: update \w+", rig.log_file("extensions.log"))
    assert words == [f"{number}: update {what}" for number in (98000001, 98000002) for what in ("begins", "ends")]
    rig.same(
        [line for line in rig.printed(rig.workers[0]).splitlines() if not re.search(r"\d+: update \w+$", line)],
        [],
        "the worker also logged {}",
    )


@pytest.mark.broken_by(r"it ran 2 times", **UNLOCKED)
@pytest.mark.broken_by(r"it ran 2 times", **UNLOCKS_EARLY)
def test_a_chain_of_the_same_task_and_arguments_ends_after_the_first_link(rig):
    """A link with the same lock as the one before it is rejected: that one gives its lock back after sending it."""
    runs = rig.settle(after="demo_same_link.py")
    assert len(runs) == 1, f"it ran {len(runs)} times"
    assert locks() == []
    worked(*runs)


@pytest.mark.broken_by(
    r"the first link succeeded",
    file="tasks.py",
    old='{"timeout": 2 * 60 * 60}',
    new='{"timeout": 2 * 60 * 60, "graceful": True}',
)
def test_a_link_that_raises_already_queued_fails_the_link_before_it_and_leaves_its_lock(rig):
    """Without `graceful` a rejected link makes the finished link before it fail, and that one's lock stays behind."""
    corporations()
    members = "qo_queue_once.tasks.update_members_corporation_id-98000001"
    cache.add(members, "lock")
    chain(update_corporation.si(98000001), update_members.si(98000001)).delay()
    (run,) = rig.finished()
    rig.settle()
    assert run.state == "failed", f"the first link {run.state}"
    assert rig.logged() == [f"INFO {BEGINS}", f"INFO {ENDS}"]
    assert locks() == [members, LOCK], f"the locks are {locks()}"


@pytest.mark.broken_by(
    r"the locks are \[\]",
    **as_class("""
    from celery.signals import task_revoked

    @task_revoked.connect
    def give_back(sender, request, **_):
        sender.once_backend.clear_lock(sender.get_key(request.args, request.kwargs))
"""),
)
def test_revoked_and_expired_tasks_leave_their_locks(rig):
    """A task that is revoked or has expired before it ran is thrown away, but its lock stays."""
    assert current_app.control.revoke("one", reply=True, timeout=10, limit=1), "the worker has not heard of it"
    update_corporation.apply_async([98000001], task_id="one")
    update_corporation.apply_async([98000001], {"force": True}, expires=0)
    assert [run.state for run in rig.finished(UPDATE, 2)] == ["revoked", "revoked"]
    rig.settle()
    assert rig.logged() == []
    assert locks() == [LOCK, LOCK + "_force-True"], f"the locks are {locks()}"


@pytest.mark.broken_by(r"beat has sent it [1-9] times while one waits", **UNLOCKED)
@pytest.mark.broken_by(r"beat has sent it [2-9] times while one runs", **UNLOCKS_EARLY)
def test_beat_asks_for_the_lock_too(rig):
    """Beat asks for the lock as well: a run that falls due while the one before waits or runs is not sent."""
    other = "allianceauth.eveonline.tasks.update_all_factions"
    often = IntervalSchedule.objects.create(every=200_000, period=IntervalSchedule.MICROSECONDS)
    PeriodicTask.objects.create(name="locked", task=UPDATE, args="[98000001]", interval=often)
    PeriodicTask.objects.create(name="other", task=other, interval=often, queue="nobody")

    def rounds(count):
        count += len(rig.runs(other))
        rig.wait(lambda: len(rig.runs(other)) >= count, "the next rounds of beat")
        return len(rig.runs(UPDATE))

    with held(BEGINS):
        start(update_corporation, 98000001, queue="nobody")
        beat = rig.start_beat()
        times = rounds(2) - 1
        assert times == 0, f"beat has sent it {times} times while one waits"
        cache.delete(LOCK)
        come(rig, BEGINS)
        times = rounds(2) - 1
        assert times == 1, f"beat has sent it {times} times while one runs"
    rig.wait(lambda: len(rig.runs(UPDATE)) > 2, "a start after its end")
    # Not stopped: told so while it saves, Celery's beat may not end.
    rig.kill(beat)
    drop(rig)


@pytest.mark.broken_by(r"when the first has ended: rejected", **KEPT_LOCK)
def test_a_task_that_outlives_its_lock_gives_away_the_next_ones(rig):
    """A task that outlives its lock lets a second one in, and at its end removes the lock of that one."""
    with held(BEGINS):
        update_corporation.apply_async([98000001], once={"timeout": 1})
        come(rig, BEGINS)
        rig.wait(lambda: locks() == [], "the end of the lock")
        rig.same(start(update_corporation, 98000001, queue="nobody"), "accepted", "after the lock's end: {}")
        assert locks() == [LOCK]
    rig.finished(UPDATE)
    rig.same(start(update_corporation, 98000001), "accepted", "when the first has ended: {}")
    drop(rig)
    rig.finished(UPDATE, 2)


# With other workers.


@pytest.mark.broken_by(r"\['accepted', 'accepted'", **UNLOCKED)
@pytest.mark.workers({"paused": True}, {"paused": True})
def test_with_two_workers_too_a_start_is_rejected_until_the_one_before_has_ended(rig):
    """With two workers too, a start is rejected from the moment another was sent until that one has ended."""
    attempts = []

    def attempt():
        at = time.time()
        attempts.append({"at": at, "outcome": start(update_corporation, 98000001)})

    with held(BEGINS):
        attempt()
        attempt()
        rig.resume()
        come(rig, BEGINS)
        attempt()
        attempt()
    rig.finished(UPDATE)
    attempt()
    outcomes = [entry["outcome"] for entry in attempts]
    assert outcomes == ["accepted", "rejected", "rejected", "rejected", "accepted"], outcomes
    rig.settle()
    runs = rig.runs(UPDATE)
    coming = iter(runs)
    rows = []
    # The attempts' clock is not the events': each counts from the first start.
    for number, entry in enumerate(attempts, 1):
        at = entry["at"] - attempts[0]["at"]
        if entry["outcome"] == "rejected":
            rows.append((f"start {number}", "", at, at + 0.005, "two", "rejected"))
            continue
        run = next(coming)
        sent, started, ended = (when - runs[0].sent for when in (run.sent, run.started, run.ended))
        rows.append((f"start {number}", "waits", sent, started, "wait"))
        rows.append((f"start {number}", "runs", started, ended, "one", "accepted"))
    rig.chart(
        "accepted_and_rejected",
        "timeline",
        rows,
        legend=[("one", "accepted: waits, then runs"), ("two", "rejected")],
        values={"attempts": len(outcomes), "rejected": outcomes.count("rejected")},
    )


@pytest.mark.broken_by(r"acknowledged at its end", **as_base("QueueOnce, acks_late=True"))
@pytest.mark.broken_by(r"after the kill: accepted", **UNLOCKED)
@pytest.mark.fresh
def test_a_killed_worker_loses_the_task_and_leaves_its_lock(rig):
    """A worker killed with -9 loses the task it runs and leaves its lock: starts are rejected until it ends."""
    with held(ENDS):
        update_corporation.delay(98000001)
        come(rig, ENDS)
        rig.kill(rig.workers[0])
    lost(rig)


@pytest.mark.broken_by(r"the locks are \['", **KEPT_LOCK)
@pytest.mark.fresh
def test_a_worker_stopped_by_supervisor_ends_the_task_and_gives_the_lock_back(rig):
    """A worker that gets SIGTERM, as supervisor sends it, finishes the task it runs and gives the lock back."""
    (worker,) = rig.workers
    with held(BEGINS):
        update_corporation.delay(98000001)
        come(rig, BEGINS)
        worker.signal(signal.SIGTERM)
        rig.wait(lambda: "Warm shutdown" in rig.printed(worker), "the shutdown's begin")
    assert worker.join(10), "the worker has not ended"
    assert rig.logged() == [f"INFO {BEGINS}", f"INFO {ENDS}"]
    assert locks() == [], f"the locks are {locks()}"


@pytest.mark.broken_by(r"after the kill: accepted", **UNLOCKED)
@pytest.mark.fresh
def test_a_worker_killed_in_its_shutdown_loses_the_task_and_leaves_its_lock(rig):
    """A worker killed in its warm shutdown, by supervisor after 600 s, loses the task it runs and leaves its lock."""
    conf = configparser.ConfigParser(interpolation=None, inline_comment_prefixes=(";",))
    conf.read("supervisor.conf")
    rig.same(
        [conf["program:worker"].get(name) for name in ("stopsignal", "stopwaitsecs", "killasgroup")],
        [None, "600", "true"],
        "{}",
    )
    (worker,) = rig.workers
    with held(ENDS):
        update_corporation.delay(98000001)
        come(rig, ENDS)
        worker.signal(signal.SIGTERM)
        rig.wait(lambda: "Warm shutdown" in rig.printed(worker), "the shutdown's begin")
        rig.kill(worker)
    lost(rig)
