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


def come(lab, line, count=1):
    """Wait until `count` runs have come to `line`."""
    lab.wait(lambda: cache.get(f"come to {line}", 0) >= count, f"{count} x {line!r}")


def start(task, *args, **options):
    try:
        result = task.apply_async(args, options.pop("kwargs", None), **options)
    except AlreadyQueued:
        return "AlreadyQueued"
    return "accepted" if result.id else "rejected"


def locks():
    return sorted(cache.keys("qo_*"))


def lasts(key, since):
    """Return for how many seconds at least, and at most, a lock that was taken after `since` was taken."""
    left = cache.pttl(key) / 1000
    return left, left + time.monotonic() - since + 0.001


def due(lab, since):
    """Return how many seconds at least, and at most, the one countdown has that was sent after `since`."""
    (sent,) = [event for event in lab.events if event["type"] == "task-sent" and event["eta"]]
    at = datetime.fromisoformat(sent["eta"]).timestamp()
    return at - sent["timestamp"], at - since


def worked(*runs):
    """See that runs took the time which stands for work: the pages' calls count on it."""
    assert all(run.ended - run.started >= 0.3 for run in runs), runs


def drop(lab):
    """Drop what waits in the queue `nobody`, which no worker reads."""
    lab.redis.delete(*[key for key in lab.waiting() if key.startswith("nobody")])


def corporations():
    for number, name in ((98000001, "Jita Logistics"), (98000002, "Perimeter Logistics")):
        EveCorporationInfo.objects.create(corporation_id=number, corporation_name=name, corporation_ticker=number)


def logged(lab):
    """Return what the tasks logged, each line with its level."""
    lines = [re.match(r"\[.*?\] (\w+) \[.*?\] (.*)", line) for line in lab.log_file("extensions.log").splitlines()]
    return [" ".join(line.groups()) for line in lines if line]


def logged_here(caplog):
    return [f"{record.levelname} {record.getMessage()}" for record in caplog.records]


def lost(lab):
    """See that the task which a killed worker ran is gone, and its lock is not."""
    (run,) = lab.runs(UPDATE)
    assert run.ended is None
    assert not lab.redis.hlen("unacked"), "it would have been acknowledged at its end"
    assert lab.waiting() == {}
    after = start(update_corporation, 98000001)
    assert after == "rejected", f"after the kill: {after}"
    assert cache.ttl(LOCK) > 0


# Without a worker, what was sent first waits for good.


@pytest.mark.broken_by(r"2 messages wait", **UNLOCKED)
@pytest.mark.workers
def test_a_start_while_another_waits_sends_no_message(lab):
    """While a start of the task waits in the queue, a second start with the same arguments sends no message."""
    starts = lab.demo()
    waiting = sum(lab.waiting().values())
    assert waiting == 1, f"{waiting} messages wait"
    assert starts["accepted"].id, "the first was rejected"
    assert not starts["rejected"].id, "the second was accepted"


@pytest.mark.broken_by(r"raised AlreadyQueued", **RAISES)
@pytest.mark.workers
def test_a_rejected_start_returns_state_rejected_and_no_id(lab, capsys):
    """With Auth's options a rejected start raises nothing: it returns a result in state REJECTED whose id is None."""
    update_corporation.delay(98000001)
    try:
        second = update_corporation.delay(98000001)
    except AlreadyQueued:
        second = None
    assert second is not None, "the second start raised AlreadyQueued"
    assert (second.id, second.state, second.ready(), second.get()) == (None, "REJECTED", True, None), second
    cache.clear()
    lab.demo("demo_told.py")
    printed = capsys.readouterr().out
    assert printed == "The update has been started\nThe update is under way already\n", f"printed {printed!r}"


@pytest.mark.broken_by(r"its state is PENDING", conf={"result_backend": "cache+memory://"})
@pytest.mark.workers
def test_the_result_of_an_accepted_start_has_an_id_and_no_state(lab):
    """The result of an accepted start has an id but no state: Auth has no result backend, so that `.state` raises."""
    first = update_corporation.delay(98000001)
    assert first.id
    try:
        state = first.state
    except AttributeError:
        state = "unknown"
    assert state == "unknown", f"its state is {state}"


@pytest.mark.broken_by(r"the locks are \[\]", **once("celery_once.backends.File", location="locks-1"))
@pytest.mark.workers
def test_the_lock_is_a_key_in_djangos_cache(lab):
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
def test_the_base_alone_makes_the_lock(lab):
    """`base=QueueOnce` is enough: without `bind` and `name` the task has its lock, under the name Celery gives it."""
    update_characters.delay([2112000001])
    second = start(update_characters, [2112000001])
    assert second == "rejected", f"the second start was {second}"
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
def test_a_lock_lasts_an_hour_at_most(lab):
    """A lock that nothing gives back ends 3600 seconds after the start that took it; starts it rejects add nothing."""
    since = time.monotonic()
    update_corporation.delay(98000001)
    least, most = lasts(LOCK, since)
    assert least <= 3600 <= most, f"the lock was taken for {most:.0f} s"
    # As if half of the hour were over, then all but a moment.
    cache.expire(LOCK, 1800)
    assert start(update_corporation, 98000001) == "rejected"
    assert cache.pttl(LOCK) <= 1_800_000, f"a rejected start gave it {cache.pttl(LOCK) / 1000:.0f} s"
    cache.pexpire(LOCK, 1)
    lab.wait(lambda: locks() == [], "the end of the lock")
    assert start(update_corporation, 98000001) == "accepted"


@pytest.mark.broken_by(r"timeout of the task: 3600 s", file="tasks.py", old='{"timeout": 2 * 60 * 60}', new="{}")
@pytest.mark.workers
def test_the_timeout_of_a_task_is_how_long_its_lock_lasts(lab):
    """`once={"timeout": …}` on the task is how many seconds a lock of it lasts."""
    since = time.monotonic()
    update_members.delay(98000001)
    least, most = lasts("qo_queue_once.tasks.update_members_corporation_id-98000001", since)
    assert least <= 7200 <= most, f"timeout of the task: {most:.0f} s"


@pytest.mark.broken_by(
    r"after the key was deleted a start is rejected",
    file="demo_free.py",
    old="update_corporation.get_key([98000001])",
    new="update_corporation.name",
)
@pytest.mark.workers
def test_deleting_its_key_frees_a_lock(lab):
    """`cache.delete(TASK.get_key(ARGUMENTS))` frees the lock of a task's start with these arguments, and no other."""
    update_corporation.delay(98000001)
    update_corporation.delay(98000002)
    lab.demo("demo_free.py")
    assert start(update_corporation, 98000002) == "rejected"
    again = start(update_corporation, 98000001)
    assert again == "accepted", f"after the key was deleted a start is {again}"


@pytest.mark.broken_by(
    r"the lock was taken for 10800 s",
    **as_class("""
    def apply_async(self, args=None, kwargs=None, **options):
        return super().apply_async(args, kwargs, once={"timeout": 3600 + options["countdown"]}, **options)
"""),
)
@pytest.mark.workers
def test_a_countdown_does_not_lengthen_the_lock(lab):
    """A countdown does not lengthen the lock: a task sent for in two hours is without its lock after one."""
    since = time.monotonic()
    update_corporation.apply_async([98000001], countdown=7200)
    least, most = lasts(LOCK, since)
    assert least <= 3600 <= most, f"the lock was taken for {most:.0f} s"


AS_GIVEN = as_class("""
    def get_key(self, args=None, kwargs=None):
        return f"qo_{self.name} {list(args or [])!r} {kwargs or {}!r}"
""")


@pytest.mark.broken_by(r"by keyword: accepted", **AS_GIVEN)
@pytest.mark.workers
def test_an_argument_by_position_and_by_keyword_make_the_same_lock(lab):
    """It makes no difference to the lock whether an argument is given by position or by keyword."""
    update_corporation.delay(98000001)
    second = start(update_corporation, kwargs={"corporation_id": 98000001})
    assert second == "rejected", f"by keyword: {second}"


@pytest.mark.broken_by(r"with the default: rejected", **ONE_KEY)
@pytest.mark.workers
def test_leaving_an_argument_out_and_passing_its_default_make_two_locks(lab):
    """Leaving an argument out and passing its default value make two locks: both starts are accepted."""
    (default,) = update_corporation.run.__defaults__
    update_corporation.delay(98000001)
    second = start(update_corporation, 98000001, kwargs={"force": default})
    assert second == "accepted", f"with the default: {second}"
    assert locks() == [LOCK, f"{LOCK}_force-False"]


@pytest.mark.broken_by(r"'1' after 1: accepted", **AS_GIVEN)
@pytest.mark.workers
def test_values_are_compared_as_text(lab):
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
def test_a_better_priority_does_not_move_what_waits(lab):
    """A second start with a better priority is rejected too, and the first waits on with the priority it has."""
    update_corporation.apply_async([98000001], priority=7)
    second, waiting = start(update_corporation, 98000001, priority=1), lab.waiting()
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
def test_send_task_asks_for_no_lock(lab):
    """`send_task` with the task's name asks for no lock: the message is sent although another waits."""
    lab.demo("demo_by_name.py")
    waiting = sum(lab.waiting().values())
    assert waiting == 2, f"{waiting} messages wait"
    assert locks() == [LOCK]


@pytest.mark.broken_by(r"after the purge a start is accepted", **UNLOCKED)
@pytest.mark.workers
def test_a_purge_leaves_the_locks(lab):
    """Purging the queue throws the messages away but leaves the locks, so that new starts are rejected."""
    update_corporation.delay(98000001)
    update_corporation.apply_async([98000002], priority=1)
    assert current_app.control.purge() == 2
    again = start(update_corporation, 98000001)
    assert again == "rejected", f"after the purge a start is {again}"
    assert lab.waiting() == {}
    assert locks() == [LOCK, LOCK[:-1] + "2"]


@pytest.mark.broken_by(r"after: rejected", **once("celery_once.backends.File", location="locks-2"))
@pytest.mark.workers
def test_clearing_the_cache_drops_every_lock(lab):
    """`cache.clear()` drops every lock: starts that were rejected before it are accepted after it."""
    tasks = update_corporation, recount_fleets, update_standings
    first, before = ({start(task, 98000001) for task in tasks} for _ in range(2))
    assert (first, before) == ({"accepted"}, {"rejected"})
    cache.clear()
    after = {start(task, 98000001) for task in tasks}
    assert after == {"accepted"}, f"after: {', '.join(sorted(after))}"


@pytest.mark.broken_by(r"3 of 3 were sent", **UNLOCKED)
@pytest.mark.workers
def test_a_group_is_sent_without_its_rejected_members(lab):
    """A group is sent without the members whose lock is held; its result lists them like the others."""
    result = group(update_corporation.si(number) for number in (98000001, 98000001, 98000002)).delay()
    sent = sum(lab.waiting().values())
    assert sent == 2, f"{sent} of 3 were sent"
    assert [bool(member.id) for member in result.results] == [True, True, True]


@pytest.mark.broken_by(r"the chain raised AlreadyQueued", **RAISES)
@pytest.mark.workers
def test_a_chain_whose_first_link_is_rejected_returns_a_result_as_if_it_ran(lab):
    """A chain whose first link is rejected sends nothing, and still returns a result with an id."""
    update_corporation.delay(98000001)
    came = "returned"
    try:
        result = chain(update_corporation.si(98000001), update_corporation.si(98000002)).delay()
    except AlreadyQueued:
        came = "raised AlreadyQueued"
    assert came == "returned", f"the chain {came}"
    waiting = sum(lab.waiting().values())
    assert waiting == 1, f"{waiting} messages wait"
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
def test_a_start_that_cannot_be_sent_leaves_its_lock(lab):
    """The lock is taken before the message is made: an argument that JSON can't hold raises and leaves a lock."""
    with pytest.raises(EncodeError):
        update_corporation.delay(98000001, force={1, 2})
    assert lab.waiting() == {}
    assert locks() == [LOCK + "_force-{1, 2}"], f"the locks are {locks()}"


@pytest.mark.broken_by(
    r"a second start raised nothing",
    **as_class("""
    def apply_async(self, args=None, kwargs=None, once=None, **options):
        return super().apply_async(args, kwargs, once={"timeout": 3600}, **options)
"""),
)
@pytest.mark.workers
def test_a_timeout_of_none_makes_the_next_start_raise(lab):
    """With `timeout` None a lock has no end, and Auth's backend fails on it: the next start raises `TypeError`."""
    update_corporation.apply_async([98000001], once={"timeout": None})
    raised = "nothing"
    try:
        update_corporation.delay(98000001)
    except TypeError:
        raised = "TypeError"
    assert raised == "TypeError", f"a second start raised {raised}"
    assert cache.ttl(LOCK) is None


@pytest.mark.broken_by(
    r"a second start: AlreadyQueued",
    file="tasks.py",
    old="logger = get_extension_logger(__name__)\n",
    new='celery_once.QueueOnce.once["graceful"] = False\nlogger = get_extension_logger(__name__)\n',
)
@pytest.mark.workers
def test_celery_onces_own_class_is_graceful_as_well(lab):
    """Auth changes celery-once's own defaults: a task based on `celery_once.QueueOnce` rejects without raising too."""
    update_standings.delay(98000001)
    second = start(update_standings, 98000001)
    assert second == "rejected", f"a second start: {second}"


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
def test_calling_the_task_like_a_function_asks_for_no_lock(lab, caplog):
    """Called like a function, a task runs although its lock is held, and leaves it; `unlock_before_run` removes it."""
    update_standings.delay(98000001)
    update_standings(98000001)
    assert logged_here(caplog) == ["INFO Standings of corporation 98000001 updated"]
    assert locks() == ["qo_queue_once.tasks.update_standings_corporation_id-98000001"], f"update_standings: {locks()}"
    cache.clear()
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
def test_apply_removes_the_lock_of_another_start(lab, caplog):
    """`.apply()` runs the task although the lock is held, and at its end removes the lock of the start that waits."""
    update_standings.delay(98000001)
    update_standings.apply([98000001])
    assert "INFO Standings of corporation 98000001 updated" in logged_here(caplog)
    again = start(update_standings, 98000001)
    assert again == "accepted", f"after apply() a start is {again}"


@pytest.mark.broken_by(
    r"printed ''",
    file="tasks.py",
    old='{"timeout": 2 * 60 * 60}',
    new='{"timeout": 2 * 60 * 60, "graceful": True}',
)
@pytest.mark.workers
def test_options_of_a_task_replace_auths_so_that_a_second_start_raises(lab, capsys):
    """`once={…}` on a task replaces Auth's options: without `graceful` in it, a second start raises `AlreadyQueued`."""
    since = time.time()
    lab.demo("demo_raises.py")
    printed = capsys.readouterr().out
    assert printed == "AlreadyQueued: the lock ends in 120 minutes at the latest\n", f"printed {printed!r}"
    least, most = due(lab, since)
    assert least <= 1 <= most, f"the first is due in {most:.1f} s"
    assert str(EveCorporationInfo.objects.get(corporation_id=98000001)) == "Jita Logistics"


@pytest.mark.broken_by(
    r"printed ''",
    **as_class("""
    def apply_async(self, args=None, kwargs=None, once=None, **options):
        return super().apply_async(args, kwargs, **options)
"""),
)
@pytest.mark.workers
def test_graceful_and_timeout_can_be_given_with_a_call(lab, capsys):
    """`apply_async(once={…})` sets `graceful` and `timeout` for that one start."""
    since = time.monotonic()
    lab.demo("demo_call.py")
    printed = capsys.readouterr().out
    assert printed == "AlreadyQueued: the lock ends in 120 minutes at the latest\n", f"printed {printed!r}"
    least, most = lasts(LOCK, since)
    assert least <= 7200 <= most, f"the lock was taken for {most:.0f} s"
    assert start(update_corporation, 98000001) == "rejected"
    update_members.delay(98000001)
    members = [start(update_members, 98000001, once=once) for once in ({"graceful": True}, {})]
    assert members == ["rejected", "AlreadyQueued"], members


# With one worker as Auth starts it.


@pytest.mark.broken_by(r"while it runs: accepted", **UNLOCKED)
@pytest.mark.broken_by(r"while it runs: accepted", **UNLOCKS_EARLY)
def test_a_start_while_it_runs_is_rejected_and_one_after_its_success_accepted(lab):
    """While the task runs a second start is rejected; after it has succeeded the next one is accepted."""
    with held(BEGINS):
        update_corporation.delay(98000001)
        come(lab, BEGINS)
        running = start(update_corporation, 98000001)
        assert running == "rejected", f"while it runs: {running}"
    (run,) = lab.finished(UPDATE)
    after = start(update_corporation, 98000001)
    assert (run.state, after) == ("succeeded", "accepted"), f"after it has {run.state}: {after}"
    lab.settle()


@pytest.mark.broken_by(r"after it has failed: AlreadyQueued", **KEPT_LOCK)
def test_a_start_after_a_failure_is_accepted(lab):
    """A task that raises gives its lock back: the next start is accepted."""
    update_members.delay(98000001)
    (run,) = lab.finished()
    assert run.state == "failed"
    corporations()
    after = start(update_members, 98000001)
    assert after == "accepted", f"after it has failed: {after}"
    lab.settle()
    assert logged(lab) == ["INFO Members of Jita Logistics updated"]


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
def test_a_retry_keeps_the_lock_and_takes_no_new_one(lab):
    """The lock is kept through a retry and its countdown, with the time it has left: a retry takes no new one."""
    first, second = (f"Wallet of corporation 98000001: attempt {number}" for number in (1, 2))
    since = time.time()
    with held(second):
        with held(first):
            update_wallet.delay(98000001)
            come(lab, first)
            # As if most of the hour were over: a lock that was given back and taken anew would have more.
            cache.expire(WALLET, 600)
        lab.wait(lambda: any(run.retries for run in lab.runs()), "a retry")
        before = start(update_wallet, 98000001)
        assert before == "rejected", f"before the second attempt: {before}"
        come(lab, second)
        during = start(update_wallet, 98000001)
        assert during == "rejected", f"during the second attempt: {during}"
        left = cache.pttl(WALLET) / 1000
        assert left <= 600, f"the lock has {left:.0f} s left"
        least, most = due(lab, since)
        assert least <= 1 <= most, f"the retry is due in {most:.1f} s"
    (run,) = lab.finished()
    assert (run.state, len(run.retries), run.exception[:12]) == ("failed", 1, "DoesNotExist")
    lab.settle()
    corporations()
    after = start(update_wallet, 98000001)
    assert after == "accepted", f"after the retry: {after}"
    assert lab.finished(count=2)[-1].state == "succeeded"
    assert logged(lab) == [f"INFO {line}" for line in (first, second, first, "Wallet of Jita Logistics updated")]


@pytest.mark.broken_by(
    r"after the first attempt: rejected",
    file="tasks.py",
    old='once={"unlock_before_run": True, "graceful": True}, max_retries',
    new='once={"graceful": True}, max_retries',
)
def test_with_unlock_before_run_a_retry_holds_no_lock(lab):
    """With `unlock_before_run` a retry holds no lock: a start is accepted while it waits for its countdown."""
    since = time.time()
    recount_pilots.delay(98000001)
    lab.wait(lambda: any(run.retries for run in lab.runs()), "a retry")
    least, most = due(lab, since)
    assert least <= 1 <= most, f"the retry is due in {most:.1f} s"
    after = start(recount_pilots, 98000001)
    assert after == "accepted", f"after the first attempt: {after}"
    assert [(run.state, len(run.retries), run.exception[:12]) for run in lab.settle()] == [
        ("failed", 1, "DoesNotExist")
    ] * 2
    corporations()
    recount_pilots.delay(98000001)
    lab.settle()
    assert logged(lab) == ["INFO Pilots of Jita Logistics counted"]
    waiting = [start(recount_pilots, 98000001, queue="nobody") for _ in range(2)]
    assert waiting == ["accepted", "rejected"], f"while another waits: {waiting[1]}"
    drop(lab)


@pytest.mark.broken_by(
    r"while it runs: rejected",
    file="tasks.py",
    old='once={"unlock_before_run": True, "graceful": True})\ndef recount_fleets',
    new='once={"graceful": True})\ndef recount_fleets',
)
def test_unlock_before_run_accepts_one_start_while_another_runs(lab, capsys):
    """With `unlock_before_run` a start is rejected while another waits, accepted while that one runs: then both run."""
    since = time.time()
    with held(COUNTS):
        lab.demo("demo_unlock.py")
        least, most = due(lab, since)
        printed = capsys.readouterr().out
        assert printed == "while the first waits: rejected\n", f"printed {printed!r}"
        come(lab, COUNTS)
        running = start(recount_fleets, 98000001)
        assert running == "accepted", f"while it runs: {running}"
        come(lab, COUNTS, 2)
    lab.settle()
    assert least <= 1 <= most, f"the first is due in {most:.1f} s"
    assert sorted(logged(lab)) == [f"INFO {COUNTS}"] * 2 + [f"INFO {COUNTS[:-6]}ends"] * 2


@pytest.mark.broken_by(
    r"it ran 1 times",
    file="tasks.py",
    old='once={"unlock_before_run": True, "graceful": True})\ndef recount_fleets',
    new='once={"graceful": True})\ndef recount_fleets',
)
def test_with_unlock_before_run_a_chain_of_the_same_task_and_arguments_runs_to_its_end(lab):
    """With `unlock_before_run` a chain of the same task with the same arguments runs to its end."""
    link = recount_fleets.si(98000001)
    chain(link, link).delay()
    runs = lab.settle()
    assert len(runs) == 2, f"it ran {len(runs)} times"
    worked(*runs)


@pytest.mark.broken_by(
    r"force=True: accepted",
    file="tasks.py",
    old='once={"keys": ["corporation_id"], "graceful": True}',
    new='once={"graceful": True}',
)
def test_keys_chooses_the_arguments_that_make_the_lock(lab, capsys):
    """With `keys` only the arguments named there make the lock: another value of `force` is rejected too."""
    line = "Structures of corporation 98000001 updated"
    with held(line):
        lab.demo("demo_keys.py")
        printed = capsys.readouterr().out
        assert printed == "force=False: accepted\nforce=True: rejected\n", f"printed {printed!r}"
        assert locks() == ["qo_queue_once.tasks.update_structures_corporation_id-98000001"]
        assert start(update_structures, 98000002, False) == "accepted"
    worked(*lab.settle())
    assert f"INFO {line}" in logged(lab)


@pytest.mark.broken_by(r"10000043 accepted", file="tasks.py", old='"keys": [], ', new="")
def test_an_empty_list_of_keys_makes_one_lock_for_the_task(lab, capsys):
    """With an empty list of `keys` the task has one lock, whatever its arguments."""
    line = "Prices in region 10000002 updated"
    with held(line):
        lab.demo("demo_prices.py")
        printed = capsys.readouterr().out
        assert printed == "10000002 accepted\n10000043 rejected\n", f"printed {printed!r}"
        assert locks() == ["qo_queue_once.tasks.update_prices"]
    worked(*lab.settle())
    assert logged(lab) == [f"INFO {line}"]


@pytest.mark.broken_by(r"raised nothing", file="tasks.py", old='"corporation_id", "page"', new='"corporation_id"')
def test_a_key_that_is_left_to_its_default_raises_key_error(lab, caplog):
    """A start that leaves out an argument named in `keys` raises `KeyError`, even where the argument has a default."""
    line = "Page 2 of the kills of corporation 98000001 updated"
    with held(line):
        passed = [start(update_killmails, 98000001, kwargs={"page": 2}) for _ in range(2)]
        assert passed == ["accepted", "rejected"], f"with page: {passed}"
    lab.finished()
    raised = "nothing"
    try:
        update_killmails.delay(98000001)
    except KeyError as error:
        raised = repr(error)
    assert raised == "KeyError('page')", f"raised {raised}"
    update_killmails(98000001)
    assert logged_here(caplog)[-1:] == ["INFO Page 1 of the kills of corporation 98000001 updated"]
    assert logged(lab) == [f"INFO {line}"]


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
def test_keys_and_unlock_before_run_are_ignored_in_a_call(lab):
    """`keys` and `unlock_before_run` have no effect in `apply_async(once={…})`: they count on the task alone."""
    with held(BEGINS):
        update_corporation.apply_async([98000001], once={"unlock_before_run": True})
        keys = start(update_corporation, 98000001, True, once={"keys": ["corporation_id"]})
        assert keys == "accepted", f"with keys: {keys}"
        come(lab, BEGINS, 2)
        running = start(update_corporation, 98000001)
        assert running == "rejected", f"while it runs: {running}"
    lab.settle()


@pytest.mark.broken_by(
    r"the locks are \[\]",
    file="demo_tuple.py",
    old="(2112000001, 2112000002)",
    new="[2112000001, 2112000002]",
)
def test_a_tuple_as_an_argument_leaves_the_lock_behind(lab):
    """A tuple reaches the worker as a list: it gives back the lock of the list, and the tuple's own stays."""
    with held("2 characters updated"):
        lab.demo("demo_tuple.py")
        come(lab, "2 characters updated")
        cache.add("qo_queue_once.tasks.update_characters_character_ids-[2112000001, 2112000002]", "lock")
    lab.settle()
    left = ["qo_queue_once.tasks.update_characters_character_ids-(2112000001, 2112000002)"]
    assert locks() == left, f"the locks are {locks()}"
    assert logged(lab) == ["INFO 2 characters updated"]


@pytest.mark.broken_by(r"the second start was rejected", **as_base("QueueOnce, once={'keys': [], 'graceful': True}"))
def test_starts_with_other_arguments_run_at_the_same_time(lab):
    """Starts with other arguments are not held back, nor other tasks: two corporations are updated at the same time."""
    other = BEGINS.replace("1:", "2:")
    with held(BEGINS, other):
        lab.demo("demo_parallel.py")
        second = "accepted" if len(locks()) == 2 else "rejected"
        assert second == "accepted", f"the second start was {second}"
        come(lab, BEGINS)
        come(lab, other)
        assert start(recount_fleets, 98000001) == "accepted"
    assert len(lab.settle()) == 3


@pytest.mark.broken_by(
    r"98000002'\] while the first runs",
    **as_class("""
    def apply_async(self, args=None, kwargs=None, **options):
        for link in options.get("chain") or []:
            self.once_backend.raise_or_lock(self.get_key(link["args"]), 3600)
        return super().apply_async(args, kwargs, **options)
"""),
)
def test_a_links_lock_is_taken_when_the_link_is_sent(lab):
    """In a chain each link's lock is taken when the link before it ends, not when the chain is started."""
    other = BEGINS.replace("1:", "2:")
    with held(other):
        with held(ENDS):
            lab.demo("demo_links.py")
            come(lab, ENDS)
            assert locks() == [LOCK], f"{locks()} while the first runs"
        come(lab, other)
        lab.finished(UPDATE)
        assert locks() == [LOCK[:-1] + "2"], f"{locks()} after it has ended"
    lab.settle()


@pytest.mark.broken_by(r"ran: .*98000003", **UNLOCKED)
@pytest.mark.broken_by(r"the worker also logged .*AlreadyQueued", **RAISES)
def test_a_rejected_link_ends_the_chain_without_a_word(lab):
    """A link that is rejected ends the chain: the links after it never run, and nothing is logged."""
    since = time.time()
    with held(BEGINS.replace("1:", "2:")):
        lab.demo("demo_chain.py")
        least, most = due(lab, since)
        # The start of the second corporation's own update waits or runs until the chain has come to it.
        lab.finished(UPDATE)
    ran = [int(run.args.strip("([,])")) for run in lab.settle()]
    assert sorted(ran) == [98000001, 98000002], f"ran: {ran}"
    assert least <= 1 <= most, f"the other start is due in {most:.1f} s"
    words = re.findall(r"\d+: update \w+", lab.log_file("extensions.log"))
    assert words == [f"{number}: update {what}" for number in (98000001, 98000002) for what in ("begins", "ends")]
    others = [line for line in lab.printed(lab.workers[0]).splitlines() if not re.search(r"\d+: update \w+$", line)]
    assert others == [], f"the worker also logged {others}"


@pytest.mark.broken_by(r"it ran 2 times", **UNLOCKED)
@pytest.mark.broken_by(r"it ran 2 times", **UNLOCKS_EARLY)
def test_a_chain_of_the_same_task_and_arguments_ends_after_the_first_link(lab):
    """A link with the same lock as the one before it is rejected: that one gives its lock back after sending it."""
    lab.demo("demo_same_link.py")
    runs = lab.settle()
    assert len(runs) == 1, f"it ran {len(runs)} times"
    assert locks() == []
    worked(*runs)


@pytest.mark.broken_by(
    r"the first link succeeded",
    file="tasks.py",
    old='{"timeout": 2 * 60 * 60}',
    new='{"timeout": 2 * 60 * 60, "graceful": True}',
)
def test_a_link_that_raises_already_queued_fails_the_link_before_it_and_leaves_its_lock(lab):
    """Without `graceful` a rejected link makes the finished link before it fail, and that one's lock stays behind."""
    corporations()
    members = "qo_queue_once.tasks.update_members_corporation_id-98000001"
    cache.add(members, "lock")
    chain(update_corporation.si(98000001), update_members.si(98000001)).delay()
    (run,) = lab.finished()
    lab.settle()
    assert run.state == "failed", f"the first link {run.state}"
    assert logged(lab) == [f"INFO {BEGINS}", f"INFO {ENDS}"]
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
def test_revoked_and_expired_tasks_leave_their_locks(lab):
    """A task that is revoked or has expired before it ran is thrown away, but its lock stays."""
    assert current_app.control.revoke("one", reply=True, timeout=10, limit=1), "the worker has not heard of it"
    update_corporation.apply_async([98000001], task_id="one")
    update_corporation.apply_async([98000001], {"force": True}, expires=0)
    states = [run.state for run in lab.finished(UPDATE, 2)]
    assert states == ["revoked", "revoked"]
    lab.settle()
    assert logged(lab) == []
    assert locks() == [LOCK, LOCK + "_force-True"], f"the locks are {locks()}"


@pytest.mark.broken_by(r"beat has sent it [1-9] times while one waits", **UNLOCKED)
@pytest.mark.broken_by(r"beat has sent it [2-9] times while one runs", **UNLOCKS_EARLY)
def test_beat_asks_for_the_lock_too(lab):
    """Beat asks for the lock as well: a run that falls due while the one before waits or runs is not sent."""
    other = "allianceauth.eveonline.tasks.update_all_factions"
    often = IntervalSchedule.objects.create(every=200_000, period=IntervalSchedule.MICROSECONDS)
    PeriodicTask.objects.create(name="locked", task=UPDATE, args="[98000001]", interval=often)
    PeriodicTask.objects.create(name="other", task=other, interval=often, queue="nobody")

    def rounds(count):
        count += len(lab.runs(other))
        lab.wait(lambda: len(lab.runs(other)) >= count, "the next rounds of beat")
        return len(lab.runs(UPDATE))

    with held(BEGINS):
        start(update_corporation, 98000001, queue="nobody")
        beat = lab.start_beat()
        times = rounds(2) - 1
        assert times == 0, f"beat has sent it {times} times while one waits"
        cache.delete(LOCK)
        come(lab, BEGINS)
        times = rounds(2) - 1
        assert times == 1, f"beat has sent it {times} times while one runs"
    lab.wait(lambda: len(lab.runs(UPDATE)) > 2, "a start after its end")
    # Not stopped: told so while it saves, Celery's beat may not end.
    lab.kill(beat)
    drop(lab)


@pytest.mark.broken_by(r"when the first has ended: rejected", **KEPT_LOCK)
def test_a_task_that_outlives_its_lock_gives_away_the_next_ones(lab):
    """A task that outlives its lock lets a second one in, and at its end removes the lock of that one."""
    with held(BEGINS):
        update_corporation.apply_async([98000001], once={"timeout": 1})
        come(lab, BEGINS)
        lab.wait(lambda: locks() == [], "the end of the lock")
        second = start(update_corporation, 98000001, queue="nobody")
        assert second == "accepted", f"after the lock's end: {second}"
        assert locks() == [LOCK]
    lab.finished(UPDATE)
    third = start(update_corporation, 98000001)
    assert third == "accepted", f"when the first has ended: {third}"
    drop(lab)
    lab.finished(UPDATE, 2)


# With other workers.


@pytest.mark.broken_by(r"\['accepted', 'accepted'", **UNLOCKED)
@pytest.mark.workers({"paused": True}, {"paused": True})
def test_with_two_workers_too_a_start_is_rejected_until_the_one_before_has_ended(lab):
    """With two workers too, a start is rejected from the moment another was sent until that one has ended."""
    attempts = []

    def attempt():
        at = time.time()
        attempts.append({"at": at, "outcome": start(update_corporation, 98000001)})

    with held(BEGINS):
        attempt()
        attempt()
        lab.resume()
        come(lab, BEGINS)
        attempt()
        attempt()
    lab.finished(UPDATE)
    attempt()
    outcomes = [entry["outcome"] for entry in attempts]
    assert outcomes == ["accepted", "rejected", "rejected", "rejected", "accepted"], outcomes
    lab.settle()
    runs = lab.runs(UPDATE)
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
    lab.chart(
        "accepted_and_rejected",
        "timeline",
        rows,
        legend=[("one", "accepted: waits, then runs"), ("two", "rejected")],
        values={"attempts": len(outcomes), "rejected": outcomes.count("rejected")},
    )


@pytest.mark.broken_by(r"acknowledged at its end", **as_base("QueueOnce, acks_late=True"))
@pytest.mark.broken_by(r"after the kill: accepted", **UNLOCKED)
@pytest.mark.fresh
def test_a_killed_worker_loses_the_task_and_leaves_its_lock(lab):
    """A worker killed with -9 loses the task it runs and leaves its lock: starts are rejected until it ends."""
    with held(ENDS):
        update_corporation.delay(98000001)
        come(lab, ENDS)
        lab.kill(lab.workers[0])
    lost(lab)


@pytest.mark.broken_by(r"the locks are \['", **KEPT_LOCK)
@pytest.mark.fresh
def test_a_worker_stopped_by_supervisor_ends_the_task_and_gives_the_lock_back(lab):
    """A worker that gets SIGTERM, as supervisor sends it, finishes the task it runs and gives the lock back."""
    (worker,) = lab.workers
    with held(BEGINS):
        update_corporation.delay(98000001)
        come(lab, BEGINS)
        worker.signal(signal.SIGTERM)
        lab.wait(lambda: "Warm shutdown" in lab.printed(worker), "the shutdown's begin")
    assert worker.join(10), "the worker has not ended"
    assert logged(lab) == [f"INFO {BEGINS}", f"INFO {ENDS}"]
    assert locks() == [], f"the locks are {locks()}"


@pytest.mark.broken_by(r"after the kill: accepted", **UNLOCKED)
@pytest.mark.fresh
def test_a_worker_killed_in_its_shutdown_loses_the_task_and_leaves_its_lock(lab):
    """A worker killed in its warm shutdown, by supervisor after 600 s, loses the task it runs and leaves its lock."""
    conf = configparser.ConfigParser(interpolation=None, inline_comment_prefixes=(";",))
    conf.read("supervisor.conf")
    given = [conf["program:worker"].get(name) for name in ("stopsignal", "stopwaitsecs", "killasgroup")]
    assert given == [None, "600", "true"], given
    (worker,) = lab.workers
    with held(ENDS):
        update_corporation.delay(98000001)
        come(lab, ENDS)
        worker.signal(signal.SIGTERM)
        lab.wait(lambda: "Warm shutdown" in lab.printed(worker), "the shutdown's begin")
        lab.kill(worker)
    lost(lab)
