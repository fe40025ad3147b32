import time

import pytest
from allianceauth.eveonline.models import EveCorporationInfo
from celery import chain, current_app, group
from celery_once import AlreadyQueued
from django.core.cache import cache
from django_celery_beat.models import IntervalSchedule, PeriodicTask
from kombu.exceptions import EncodeError

from queue_once.tasks import (
    recount_fleets,
    update_characters,
    update_corporation,
    update_killmails,
    update_members,
    update_standings,
    update_wallet,
)

UPDATE = "queue_once.update_corporation"
LOCK = ":1:qo_queue_once.update_corporation_corporation_id-98000001"
KEPT = 'type("Kept", (QueueOnce,), {"abstract": True, "after_return": print})'


def as_base(base):
    """Break the chapter's main task: give it another base, or other options."""
    return {"file": "tasks.py", "old": '_corporation", base=QueueOnce)', "new": f'_corporation", base={base})'}


UNLOCKED = as_base("None")
KEPT_LOCK = as_base(KEPT)
ONE_KEY = as_base('QueueOnce, once={"keys": ["corporation_id"], "graceful": True}')
UNLOCKS_EARLY = as_base('QueueOnce, once={"unlock_before_run": True, "graceful": True}')


def lasting(seconds):
    backend = "allianceauth.services.tasks.DjangoBackend"
    return {"ONCE": {"backend": backend, "settings": {"default_timeout": seconds}}}


def start(task, *args, **options):
    try:
        result = task.apply_async(args, options.pop("kwargs", None), **options)
    except AlreadyQueued:
        return "AlreadyQueued"
    return "accepted" if result.id else "rejected"


def locks(lab):
    return [key.decode() for key in sorted(lab.redis.scan_iter(":1:qo_*"))]


def corporation():
    return EveCorporationInfo.objects.create(corporation_id=98000001, corporation_name="Jita Logistics")


def logged(lab):
    return [line.rpartition("] ")[2] for line in lab.log_file("extensions.log").splitlines()]


def begun(lab, count=1):
    """Wait until `count` runs have logged their first line; Celery tells of a start before the task's own code runs."""
    lab.wait(lambda: sum(line.endswith("begins") for line in logged(lab)) >= count, f"the first line of {count} runs")


# Without a worker, what was sent first waits for good.


@pytest.mark.broken_by(r"2 messages wait", **UNLOCKED)
@pytest.mark.workers
def test_a_start_while_another_waits_sends_no_message(lab):
    """While a start of the task waits in the queue, a second start with the same arguments sends no message."""
    lab.demo()
    waiting = sum(lab.waiting().values())
    assert waiting == 1, f"{waiting} messages wait"


@pytest.mark.broken_by(r"the second start returned AsyncResult", **UNLOCKED)
@pytest.mark.broken_by(r"printed 'The update has been started\\n'", file="demo_told.py", old="range(2)", new="range(1)")
@pytest.mark.workers
def test_a_rejected_start_returns_state_rejected_and_no_id(lab, capsys):
    """A rejected start raises nothing: it returns a result in the state REJECTED whose id is None."""
    lab.demo("demo_told.py")
    second = update_corporation.delay(98000001)
    assert type(second).__name__ == "EagerResult", f"the second start returned {type(second).__name__}"
    assert (second.id, second.state, second.ready(), second.get()) == (None, "REJECTED", True, None)
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


@pytest.mark.broken_by(
    r"the locks are \['.*qo_queue_once.corporation_c",
    file="tasks.py",
    old='name="queue_once.update_corporation"',
    new='name="queue_once.corporation"',
)
@pytest.mark.broken_by(r"the locks are \[\]", **UNLOCKED)
@pytest.mark.workers
def test_the_lock_is_a_key_in_djangos_cache(lab):
    """The lock is a key of Django's cache: `:1:qo_`, the task's name and each argument given, as name-value."""
    update_corporation.delay(98000001, force=True)
    assert locks(lab) == [f"{LOCK}_force-True"], f"the locks are {locks(lab)}"
    assert cache.get("qo_queue_once.update_corporation_corporation_id-98000001_force-True") == "lock"


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
    assert locks(lab) == [":1:qo_queue_once.tasks.update_characters_character_ids-[2112000001]"]


@pytest.mark.broken_by(r"the lock lasts 10 s", conf=lasting(10))
@pytest.mark.workers
def test_a_lock_lasts_an_hour_at_most(lab):
    """A lock that nothing removes ends 3600 seconds after the start."""
    update_corporation.delay(98000001)
    ttl = lab.redis.ttl(LOCK)
    assert 3590 <= ttl <= 3600, f"the lock lasts {ttl} s"


@pytest.mark.broken_by(r"the lock lasts (7200|7199) s", conf=lasting(7200))
@pytest.mark.workers
def test_a_countdown_does_not_lengthen_the_lock(lab):
    """A countdown does not lengthen the lock: a task sent for in two hours is without its lock after one."""
    update_corporation.apply_async([98000001], countdown=7200)
    ttl = lab.redis.ttl(LOCK)
    assert ttl <= 3600, f"the lock lasts {ttl} s"


@pytest.mark.broken_by(
    r"by keyword: accepted", file="tasks.py", old="(self, corporation_id, force=False)", new="(self, *ids, **named)"
)
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
    update_corporation.delay(98000001)
    second = start(update_corporation, 98000001, kwargs={"force": False})
    assert second == "accepted", f"with the default: {second}"


@pytest.mark.broken_by(r"'1' after 1: accepted", **UNLOCKED)
@pytest.mark.workers
def test_values_are_compared_as_text(lab):
    """Values are compared as text: 1 and "1" share a lock, 2 and 2.0 do not; the order in a dictionary is no matter."""
    seen = []
    for one, other in [(1, "1"), (2, 2.0), (None, "None"), ({"a": 1, "b": 2}, {"b": 2, "a": 1})]:
        update_corporation.delay(one)
        seen.append(f"{other!r} after {one!r}: {start(update_corporation, other)}")
    assert seen == [
        "'1' after 1: rejected",
        "2.0 after 2: accepted",
        "'None' after None: rejected",
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
    file="demo_by_name.py",
    old='current_app.send_task("queue_once.update_corporation", [98000001])',
    new="update_corporation.delay(98000001)",
)
@pytest.mark.workers
def test_send_task_asks_for_no_lock(lab):
    """`send_task` with the task's name asks for no lock: the message is sent although another waits."""
    lab.demo("demo_by_name.py")
    waiting = sum(lab.waiting().values())
    assert waiting == 2, f"{waiting} messages wait"
    assert locks(lab) == [LOCK]


@pytest.mark.broken_by(r"after the purge a start is accepted", **UNLOCKED)
@pytest.mark.workers
def test_a_purge_leaves_the_locks(lab):
    """Purging the queue throws the messages away but leaves the locks, so that new starts are rejected."""
    update_corporation.delay(98000001)
    assert current_app.control.purge() == 1
    again = start(update_corporation, 98000001)
    assert again == "rejected", f"after the purge a start is {again}"
    assert lab.waiting() == {}


@pytest.mark.broken_by(r"before: accepted", **UNLOCKED)
@pytest.mark.workers
def test_clearing_the_cache_drops_every_lock(lab):
    """`cache.clear()` drops every lock: a start that was rejected before it is accepted after it."""
    update_corporation.delay(98000001)
    before = start(update_corporation, 98000001)
    cache.clear()
    after = start(update_corporation, 98000001)
    assert (before, after) == ("rejected", "accepted"), f"before: {before}, after: {after}"


@pytest.mark.broken_by(r"3 of 3 were sent", **UNLOCKED)
@pytest.mark.workers
def test_a_group_is_sent_without_its_rejected_members(lab):
    """A group is sent without the members whose lock is held; its result lists them like the others."""
    result = group(update_corporation.si(number) for number in (98000001, 98000001, 98000002)).delay()
    sent = sum(lab.waiting().values())
    assert sent == 2, f"{sent} of 3 were sent"
    assert [bool(member.id) for member in result.results] == [True, True, True]


@pytest.mark.broken_by(r"2 messages wait", **UNLOCKED)
@pytest.mark.workers
def test_a_chain_whose_first_link_is_rejected_returns_a_result_as_if_it_ran(lab):
    """A chain whose first link is rejected sends nothing, and still returns a result with an id."""
    update_corporation.delay(98000001)
    result = chain(update_corporation.si(98000001), update_corporation.si(98000002)).delay()
    waiting = sum(lab.waiting().values())
    assert waiting == 1, f"{waiting} messages wait"
    assert result.id is not None, "the result has no id"


@pytest.mark.broken_by(r"the locks are \[\]", **UNLOCKED)
@pytest.mark.workers
def test_a_start_that_cannot_be_sent_leaves_its_lock(lab):
    """The lock is taken before the message is made: an argument that JSON can't hold raises and leaves a lock."""
    with pytest.raises(EncodeError):
        update_corporation.delay(98000001, force={1, 2})
    assert lab.waiting() == {}
    assert locks(lab) == [LOCK + "_force-{1, 2}"], f"the locks are {locks(lab)}"


@pytest.mark.broken_by(r"a second start raised nothing", **UNLOCKED)
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
    assert lab.redis.ttl(LOCK) == -1


@pytest.mark.broken_by(
    r"a second start: AlreadyQueued",
    file="tasks.py",
    old="base=celery_once.QueueOnce",
    new='base=celery_once.QueueOnce, once={"graceful": False}',
)
@pytest.mark.workers
def test_celery_onces_own_class_is_graceful_as_well(lab):
    """Auth changes celery-once's own defaults: a task based on `celery_once.QueueOnce` rejects without raising too."""
    update_standings.delay(98000001)
    second = start(update_standings, 98000001)
    assert second == "rejected", f"a second start: {second}"


@pytest.mark.broken_by(
    r"the locks are \[\]",
    file="tasks.py",
    old="base=celery_once.QueueOnce",
    new='base=celery_once.QueueOnce, once={"unlock_before_run": True}',
)
@pytest.mark.workers
def test_calling_the_task_like_a_function_knows_no_lock(lab, caplog):
    """Called like a function, the task runs although the lock is held, and leaves the lock as it is."""
    update_standings.delay(98000001)
    update_standings(98000001)
    assert caplog.messages == ["Standings of corporation 98000001 updated"]
    assert len(locks(lab)) == 1, f"the locks are {locks(lab)}"


@pytest.mark.broken_by(
    r"after apply\(\) a start is rejected", file="tasks.py", old="base=celery_once.QueueOnce", new=f"base={KEPT}"
)
@pytest.mark.workers
def test_apply_removes_the_lock_of_another_start(lab, caplog):
    """`.apply()` runs the task although the lock is held, and at its end removes the lock of the start that waits."""
    update_standings.delay(98000001)
    update_standings.apply([98000001])
    assert "Standings of corporation 98000001 updated" in caplog.messages
    again = start(update_standings, 98000001)
    assert again == "accepted", f"after apply() a start is {again}"


@pytest.mark.broken_by(
    r"printed ''",
    file="tasks.py",
    old='once={"keys": ["corporation_id"]}',
    new='once={"keys": ["corporation_id"], "graceful": True}',
)
@pytest.mark.workers
def test_options_of_a_task_replace_auths_so_that_a_second_start_raises(lab, capsys):
    """`once={…}` on a task replaces Auth's options: without `graceful` in it, a second start raises `AlreadyQueued`."""
    lab.demo("demo_raises.py")
    printed = capsys.readouterr().out
    assert printed == "AlreadyQueued: the lock ends in 60 minutes at the latest\n", f"printed {printed!r}"


@pytest.mark.broken_by(r"printed '.* 60 minutes", file="demo_call.py", old='{"timeout": 600}', new="{}")
@pytest.mark.broken_by(r"printed ''", file="demo_call.py", old='"graceful": False', new='"graceful": True')
@pytest.mark.workers
def test_graceful_and_timeout_can_be_given_with_a_call(lab, capsys):
    """`apply_async(once={…})` sets `graceful` and `timeout` for that one start."""
    lab.demo("demo_call.py")
    printed = capsys.readouterr().out
    assert printed == "AlreadyQueued: the lock ends in 10 minutes at the latest\n", f"printed {printed!r}"


@pytest.mark.broken_by(r"beat has sent it [2-9] times", **UNLOCKED)
@pytest.mark.workers
def test_beat_asks_for_the_lock_too(lab):
    """Beat asks for the lock as well: a run that falls due while the one before waits or runs is not sent."""
    other = "allianceauth.eveonline.tasks.update_all_factions"
    often = IntervalSchedule.objects.create(every=300_000, period=IntervalSchedule.MICROSECONDS)
    PeriodicTask.objects.create(name="locked", task=UPDATE, args="[98000001]", interval=often)
    PeriodicTask.objects.create(name="other", task=other, interval=often)
    lab.start_beat()
    lab.wait(lambda: len(lab.runs(other)) >= 3, "the third round of beat")
    times = len(lab.runs(UPDATE))
    assert times == 1, f"beat has sent it {times} times"


# With one worker as Auth starts it.


@pytest.mark.broken_by(r"while it runs: accepted", **UNLOCKED)
@pytest.mark.broken_by(r"while it runs: accepted", **UNLOCKS_EARLY)
def test_a_start_while_it_runs_is_rejected_and_one_after_its_success_accepted(lab):
    """While the task runs a second start is rejected; after it has succeeded the next one is accepted."""
    update_corporation.delay(98000001)
    begun(lab)
    running = start(update_corporation, 98000001)
    assert running == "rejected", f"while it runs: {running}"
    (run,) = lab.finished(UPDATE)
    after = start(update_corporation, 98000001)
    assert (run.state, after) == ("succeeded", "accepted"), f"after it has {run.state}: {after}"
    lab.settle()


@pytest.mark.broken_by(
    r"after it has failed: AlreadyQueued",
    file="tasks.py",
    old='base=QueueOnce, once={"keys": ["corporation_id"]})',
    new=f'base={KEPT}, once={{"keys": ["corporation_id"]}})',
)
def test_a_start_after_a_failure_is_accepted(lab):
    """A task that raises gives its lock back: the next start is accepted."""
    update_members.delay(98000001)
    (run,) = lab.finished()
    assert run.state == "failed"
    after = start(update_members, 98000001)
    assert after == "accepted", f"after it has failed: {after}"
    lab.settle()


@pytest.mark.broken_by(
    r"during the retry: accepted", file="tasks.py", old="base=QueueOnce, max_retries=1", new="max_retries=1"
)
def test_a_retry_keeps_the_lock_and_takes_no_new_one(lab):
    """The lock is kept through a retry and its countdown, with the time it has left: a retry takes no new one."""
    update_wallet.apply_async([98000001], once={"timeout": 600})
    lab.wait(lambda: any(run.retries for run in lab.runs()), "a retry")
    during = start(update_wallet, 98000001)
    left = lab.redis.ttl(":1:qo_queue_once.tasks.update_wallet_corporation_id-98000001")
    assert during == "rejected", f"during the retry: {during}"
    assert left <= 600, f"the lock lasts {left} s"
    (run,) = lab.finished()
    assert (run.state, len(run.retries)) == ("failed", 1)
    lab.settle()
    corporation()
    after = start(update_wallet, 98000001)
    assert after == "accepted", f"after the retry: {after}"
    assert lab.finished(count=2)[-1].state == "succeeded"


@pytest.mark.broken_by(
    r"while it runs: rejected", file="tasks.py", old='"unlock_before_run": True', new='"unlock_before_run": False'
)
def test_unlock_before_run_accepts_one_start_while_another_runs(lab):
    """With `unlock_before_run` a start is rejected while another waits, but accepted while that one runs."""
    lab.demo("demo_unlock.py")
    waiting = start(recount_fleets, 98000001)
    begun(lab)
    running = start(recount_fleets, 98000001)
    assert (waiting, running) == ("rejected", "accepted"), f"while it runs: {running}"
    lab.settle()


@pytest.mark.broken_by(
    r"force=True: accepted",
    file="tasks.py",
    old='once={"keys": ["corporation_id"], "graceful": True}',
    new='once={"graceful": True}',
)
def test_keys_chooses_the_arguments_that_make_the_lock(lab, capsys):
    """With `keys` only the arguments named there make the lock: another value of `force` is rejected too."""
    lab.demo("demo_keys.py")
    printed = capsys.readouterr().out
    assert printed == "force=False: accepted\nforce=True: rejected\n", f"printed {printed!r}"
    assert locks(lab) == [":1:qo_queue_once.tasks.update_structures_corporation_id-98000001"]
    lab.settle()


@pytest.mark.broken_by(r"10000043 accepted", file="tasks.py", old='"keys": [], ', new="")
def test_an_empty_list_of_keys_makes_one_lock_for_the_task(lab, capsys):
    """With an empty list of `keys` the task has one lock, whatever its arguments."""
    lab.demo("demo_prices.py")
    printed = capsys.readouterr().out
    assert printed == "10000002 accepted\n10000043 rejected\n", f"printed {printed!r}"
    assert locks(lab) == [":1:qo_queue_once.tasks.update_prices"]
    lab.settle()


@pytest.mark.broken_by(r"raised nothing", file="tasks.py", old='"corporation_id", "page"', new='"corporation_id"')
def test_a_key_that_is_left_to_its_default_raises_key_error(lab):
    """A start that leaves out an argument named in `keys` raises `KeyError`, even where the argument has a default."""
    update_killmails.delay(98000001, page=1)
    lab.finished()
    raised = "nothing"
    try:
        update_killmails.delay(98000001)
    except KeyError as error:
        raised = repr(error)
    assert raised == "KeyError('page')", f"raised {raised}"


@pytest.mark.broken_by(r"with keys: rejected", **ONE_KEY)
@pytest.mark.broken_by(r"while it runs: accepted", **UNLOCKS_EARLY)
def test_keys_and_unlock_before_run_are_ignored_in_a_call(lab):
    """`keys` and `unlock_before_run` have no effect in `apply_async(once={…})`: they count on the task alone."""
    update_corporation.apply_async([98000001], once={"unlock_before_run": True})
    keys = start(update_corporation, 98000001, True, once={"keys": ["corporation_id"]})
    assert keys == "accepted", f"with keys: {keys}"
    begun(lab, 2)
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
    """A tuple reaches the worker as a list, which makes another lock: the task's own is never given back."""
    lab.demo("demo_tuple.py")
    (run,) = lab.finished()
    lab.settle()
    assert run.state == "succeeded"
    left = [":1:qo_queue_once.tasks.update_characters_character_ids-(2112000001, 2112000002)"]
    assert locks(lab) == left, f"the locks are {locks(lab)}"


@pytest.mark.broken_by(r"of \[98000001\] have run", **as_base("QueueOnce, once={'keys': [], 'graceful': True}"))
def test_starts_with_other_arguments_run_at_the_same_time(lab):
    """Starts with other arguments are not held back: two corporations are updated at the same time."""
    lab.demo("demo_parallel.py")
    runs = lab.settle()
    ran = [98000001, 98000002][: len(runs)]
    assert len(runs) == 2, f"updates of {ran} have run"
    assert runs[1].started < runs[0].ended, f"they ran one after the other: {runs}"


@pytest.mark.broken_by(
    r"98000002'\] while the first runs", file="demo_links.py", old="import chain", new="import group as chain"
)
def test_a_links_lock_is_taken_when_the_link_is_sent(lab):
    """In a chain each link's lock is taken when the link before it ends, not when the chain is started."""
    lab.demo("demo_links.py")
    lab.started(UPDATE)
    first = locks(lab)
    assert first == [LOCK], f"{first} while the first runs"
    lab.started(UPDATE, 2)
    lab.wait(lambda: locks(lab) == [LOCK[:-1] + "2"], "the second link's lock alone")
    lab.settle()


@pytest.mark.broken_by(r"ran: .*98000003", **UNLOCKED)
def test_a_rejected_link_ends_the_chain_without_a_word(lab):
    """A link that is rejected ends the chain: the links after it never run, and nothing is logged."""
    lab.demo("demo_chain.py")
    ran = [int(run.args.strip("([,])")) for run in lab.settle()]
    assert ran == [98000001, 98000002], f"ran: {ran}"
    lines = [f"Corporation {number}: update {what}" for number in (98000001, 98000002) for what in ("begins", "ends")]
    assert logged(lab) == lines
    assert "98000003" not in lab.printed(lab.workers[0])


@pytest.mark.broken_by(r"it ran 2 times", **UNLOCKED)
@pytest.mark.broken_by(r"it ran 2 times", **UNLOCKS_EARLY)
def test_a_chain_of_the_same_task_and_arguments_ends_after_the_first_link(lab):
    """A link with the same lock as the one before it is rejected: that one gives its lock back after sending it."""
    lab.demo("demo_same_link.py")
    times = len(lab.settle())
    assert times == 1, f"it ran {times} times"


@pytest.mark.broken_by(
    r"the first link succeeded",
    file="tasks.py",
    old='once={"keys": ["corporation_id"]}',
    new='once={"keys": ["corporation_id"], "graceful": True}',
)
def test_a_link_that_raises_already_queued_fails_the_link_before_it_and_leaves_its_lock(lab):
    """Without `graceful` a rejected link makes the finished link before it fail, and that one's lock stays behind."""
    corporation()
    chain(update_members.si(98000001), update_members.si(98000001)).delay()
    (run,) = lab.finished()
    lab.settle()
    assert run.state == "failed", f"the first link {run.state}"
    assert logged(lab) == ["Members of Jita Logistics updated"]
    assert locks(lab) == [":1:qo_queue_once.tasks.update_members_corporation_id-98000001"]


@pytest.mark.broken_by(r"the locks are \[\]", **UNLOCKED)
def test_revoked_and_expired_tasks_leave_their_locks(lab):
    """A task that is revoked or has expired before it ran is thrown away, but its lock stays."""
    result = update_corporation.apply_async([98000001], countdown=0.5)
    update_corporation.apply_async([98000001], {"force": True}, countdown=0.5, expires=0.3)
    current_app.control.revoke(result.id)
    states = {run.state for run in lab.finished(UPDATE, 2)}
    assert states == {"revoked"}
    lab.settle()
    assert locks(lab) == [LOCK, LOCK + "_force-True"], f"the locks are {locks(lab)}"


# With other workers.


@pytest.mark.broken_by(r"\['accepted', 'accepted'", **UNLOCKED)
@pytest.mark.workers({"paused": True}, {"paused": True})
def test_with_two_workers_too_a_start_is_rejected_until_the_one_before_has_ended(lab):
    """With two workers too, a start is rejected from the moment another was sent until that one has ended."""
    attempts = []

    def attempt():
        at = time.time()
        attempts.append({"at": at, "outcome": start(update_corporation, 98000001)})

    attempt()
    attempt()
    lab.resume()
    lab.started(UPDATE)
    attempt()
    attempt()
    lab.finished(UPDATE)
    attempt()
    outcomes = [entry["outcome"] for entry in attempts]
    assert outcomes == ["accepted", "rejected", "rejected", "rejected", "accepted"], outcomes
    runs = lab.settle()
    # An attempt is put on the events' clock by the first one's message.
    began = attempts[0]["at"] - runs[0].sent
    lab.record(
        task=UPDATE,
        attempts=[
            {"at": round(entry["at"] - began, 4), "accepted": entry["outcome"] == "accepted"} for entry in attempts
        ],
    )


@pytest.mark.broken_by(r"while the second runs: rejected", **KEPT_LOCK)
@pytest.mark.workers({"paused": True, "concurrency": 1})
def test_a_task_that_outlives_its_lock_gives_away_the_next_ones(lab):
    """A task that outlives its lock lets a second one in, and at its end removes the lock of that one."""
    update_corporation.apply_async([98000001], once={"timeout": 0.5})
    lab.wait(lambda: not locks(lab), "the end of the lock")
    second = start(update_corporation, 98000001)
    assert second == "accepted", f"after the lock's end: {second}"
    lab.resume()
    lab.started(UPDATE, 2)
    third = start(update_corporation, 98000001)
    assert third == "accepted", f"while the second runs: {third}"
    lab.settle()


@pytest.mark.broken_by(r"acknowledged at its end", **as_base("QueueOnce, acks_late=True"))
@pytest.mark.broken_by(r"after the kill: accepted", **UNLOCKED)
@pytest.mark.fresh
def test_a_killed_worker_loses_the_task_and_leaves_its_lock(lab):
    """A worker killed with -9 loses the task it runs and leaves its lock: starts are rejected until it ends."""
    update_corporation.delay(98000001)
    lab.started(UPDATE)
    lab.wait(lambda: not lab.redis.hlen("unacked"), "the acknowledgement")
    lab.kill(lab.workers[0])
    (run,) = lab.runs(UPDATE)
    assert run.ended is None, "acknowledged at its end"
    assert lab.waiting() == {}
    after = start(update_corporation, 98000001)
    assert after == "rejected", f"after the kill: {after}"
    assert lab.redis.ttl(LOCK) > 3500


@pytest.mark.broken_by(r"the locks are \['", **KEPT_LOCK)
@pytest.mark.fresh
def test_a_worker_stopped_by_supervisor_ends_the_task_and_gives_the_lock_back(lab):
    """A worker that is stopped as supervisor does it finishes the task it runs and gives the lock back."""
    update_corporation.delay(98000001)
    lab.started(UPDATE)
    lab.stop(lab.workers[0])
    assert logged(lab)[-1] == "Corporation 98000001: update ends"
    assert locks(lab) == [], f"the locks are {locks(lab)}"
