import base64
import json
import re
import runpy
import time
import warnings
from datetime import UTC, datetime

import celery
import pytest
from allianceauth.eveonline.models import EveCharacter, EveCorporationInfo
from allianceauth.eveonline.tasks import run_model_update
from celery import current_app
from celery.bin.celery import celery as command
from kombu.transport.redis import Channel

from priorities import tasks

ANNOUNCE = "discord.announce_attack"
ATTACK = "priorities.tasks.report_attack"
ASSETS = "priorities.tasks.update_assets"
ASSETS_ACKS_LATE = "priorities.tasks.update_assets_acks_late"
FLEET = "priorities.tasks.follow_fleet"
MEMBERS = "priorities.tasks.update_members"
STRUCTURE = "priorities.tasks.update_structure"
LOW = "celery\x06\x16"
SERVICES = "services\x06\x16"


def steps(*numbers, **more):
    """Return Alliance Auth's transport options with these priority steps, and more."""
    return {"broker_transport_options": {"priority_steps": list(numbers), "queue_order_strategy": "priority", **more}}


def messages(rig):
    """Return args, kwargs, priority as named, and list of each message that waits, by the first argument."""
    found = []
    for key in rig.waiting():
        for raw in rig.redis.lrange(key, 0, -1):
            message = json.loads(raw)
            args, kwargs, _ = json.loads(base64.b64decode(message["body"]))
            found.append((args, kwargs, message["properties"]["priority"], key))
    return sorted(found, key=lambda message: message[0])


def lists(rig):
    """Return the number of the list in which each message waits, 0 for `celery`, in the order of the corporations."""
    return [int(key.removeprefix(LOW)) if key.startswith(LOW) else 0 for *_, key in messages(rig)]


def named(rig):
    """Return the priorities that the calls named, in the order of the corporations."""
    return [priority for _, _, priority, _ in messages(rig)]


def arrived(rig, skip=0):
    """Return the priorities with which the tasks say that they came, by the numbers that they name."""
    found = [re.fullmatch(r"INFO \w+ of (\d+)\b.* with priority (-?\d+)", line) for line in rig.logged()[skip:]]
    return [int(line[2]) for line in sorted(filter(None, found), key=lambda line: int(line[1]))]


def short(runs):
    """Return the last digits of each task's first argument, which tell it from the others."""
    return [int(re.match(r"[(\[](\d+)", run.args)[1]) % 10 for run in runs]


def at(rig, kind, args=""):
    """Return when the first event of this kind came, of a task with these arguments."""
    return next(event["timestamp"] for event in rig.events if event["type"] == kind and args in event.get("args", ""))


def due_at(rig, args=""):
    """Return when the first task with a countdown was due, of those with these arguments."""
    found = [event["eta"] for event in rig.events if event.get("eta") and args in event.get("args", "")]
    return datetime.fromisoformat(found[0]).timestamp()


def priorities_held(rig, name):
    """Return the priorities of the messages called `name` that workers have taken from Redis and not acknowledged."""
    taken = [json.loads(raw)[0] for raw in rig.redis.hvals("unacked")]
    return [message["properties"]["priority"] for message in taken if message["headers"]["task"] == name]


def held(runs):
    """Return the runs that a worker has taken from Redis and not ended."""
    return [run for run in runs if run.received is not None and run.ended is None]


def waits_and_runs(group, colour, runs, began):
    """The bars of a chart: how long each task waited from its sending on, or from `began`, and when it ran."""
    for run in runs:
        yield group, "", max(run.sent - began, 0), run.started - began, "wait"
        yield group, "", run.started - began, run.ended - began, colour


def let_them_take(rig, count, name=None):
    """Wait until the workers hold `count` tasks; if they want more, they take them before they answer the last ping."""
    rig.wait(lambda: len(held(rig.runs(name))) >= count, f"the receipt of {count} x {name or 'any task'}")
    for _ in range(3):
        assert len(current_app.control.ping(timeout=5, limit=len(rig.workers))) == len(rig.workers)


def fetched(runs):
    """Return the runs in the order in which the worker took them from Redis and gave them to its threads."""
    return sorted((run for run in runs if run.received is not None), key=lambda run: run.received)


def before(urgent, runs):
    """Return the runs that had not begun when the urgent one was sent, but were in the worker's hands before it."""
    return [run for run in fetched(runs) if run.started > urgent.sent and run.received < urgent.received]


# ---- without a worker: where the messages wait


@pytest.mark.workers
@pytest.mark.broken_by(r"the message holds", file="demo.py", old='kwargs={"with_fittings": True}', new="expires=60")
def test_apply_async_takes_the_arguments_as_a_list_and_a_dictionary(rig):
    """`apply_async` takes the task's arguments as `args`, a list, and `kwargs`, a dictionary, beside `priority`."""
    rig.demo()
    assert rig.waiting() == {LOW + "3": 1}, f"it waits in {rig.waiting()}"
    ((args, kwargs, *_),) = messages(rig)
    assert [args, kwargs] == [[1035466617946], {"with_fittings": True}], f"the message holds {args} and {kwargs}"


@pytest.mark.workers
@pytest.mark.broken_by(r"wait in \{'celery\\x06\\x163': 2\}", conf={"task_default_priority": 3})
def test_a_task_without_a_priority_gets_five(rig):
    """A task that is started without a priority, with `delay` or `apply_async`, gets 5, Alliance Auth's default."""
    tasks.update_structure.delay(1035466617946)
    tasks.update_structure.apply_async(args=[1038457641673])
    assert rig.waiting() == {LOW + "5": 2}, f"they wait in {rig.waiting()}"


@pytest.mark.workers
@pytest.mark.broken_by(r"wait in \{.*'celery\\x06\\x166': 3", conf=steps(0, 3, 6, 9))
def test_each_priority_has_a_redis_list_of_its_own(rig):
    r"""Each priority has a Redis list of its own: `celery` for 0, and `celery\x06\x16` with the number for 1 to 9."""
    rig.demo("demo_ten.py")
    rig.same(rig.waiting(), {"celery": 1} | {f"{LOW}{number}": 1 for number in range(1, 10)}, "they wait in {}")


@pytest.mark.workers
@pytest.mark.broken_by(r"printed ''", file="tasks.py", old="with_fittings=False", new="with_fittings=False, **options")
def test_delay_cannot_take_a_priority(rig):
    """`delay(…, priority=3)` hands the priority to the function.

    Where that has no argument of the name, the call raises TypeError, and nothing is sent.
    """
    rig.prints("demo_delay.py", "update_structure() got an unexpected keyword argument 'priority'\n")
    assert rig.waiting() == {}, "something was sent"


@pytest.mark.workers
@pytest.mark.broken_by(r"printed ''", file="demo_bare_argument.py", old="(1035466617946)", new="([1035466617946])")
def test_a_bare_id_instead_of_a_list_raises_at_the_call(rig, capsys):
    """`apply_async` with a bare number where the list of arguments belongs raises TypeError at the call."""
    rig.demo("demo_bare_argument.py")
    printed = capsys.readouterr().out
    assert printed.endswith("argument after * must be an iterable, not int\n"), f"it printed {printed!r}"
    assert rig.waiting() == {}, "something was sent"


@pytest.mark.workers
@pytest.mark.broken_by(r"the lists \[0, 6, 6\]", conf=steps(0, 3, 6))
def test_below_zero_counts_as_zero_and_above_nine_as_nine(rig):
    """A number out of range raises nothing: -1 waits with those of 0, and 10 and 100 with those of 9."""
    rig.demo("demo_out_of_range.py")
    assert named(rig) == [-1, 10, 100], f"the calls named {named(rig)}"
    assert lists(rig) == [0, 9, 9], f"they wait in the lists {lists(rig)}"


@pytest.mark.workers
@pytest.mark.broken_by(r"the lists \[2, 2\]", conf=steps(0, 2, 4, 6, 8))
def test_digits_count_as_their_number_and_a_fraction_is_cut_off(rig):
    """The text `"3"` waits with those of 3, and so does 3.9, whose fraction is cut off."""
    rig.demo("demo_nearly_a_number.py")
    assert named(rig) == ["3", 3.9], f"the calls named {named(rig)}"
    assert lists(rig) == [3, 3], f"they wait in the lists {lists(rig)}"


@pytest.mark.workers
@pytest.mark.broken_by(r"warned of \[\]", file="tasks.py", old="bind=True, priority=3", new="bind=True")
def test_celery_will_drop_the_priority_of_the_decorator(rig):
    """Celery 5.7 warns that a priority in the decorator is deprecated and that version 6.0 removes it."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        again = runpy.run_path(tasks.__file__, run_name="again.tasks")
        for name in ("update_timers", "update_structure"):
            # A task is made when it is first used.
            assert again[name].name == f"again.tasks.{name}"
    text = [" ".join(str(found.message).split()) for found in caught if "task attribute" in str(found.message)]
    rig.same(
        [line.partition(" Use ")[0] for line in text],
        ["The 'priority' task attribute is deprecated and scheduled for removal in version 6.0."],
        "warned of {}",
    )
    assert celery.__version__.startswith("5.7."), f"this is Celery {celery.__version__}"


@pytest.mark.workers
@pytest.mark.broken_by(
    r"waits in \{'celery\\x06\\x162': 1, 'celery\\x06\\x165': 1\}",
    file="demo_group.py",
    old="group(signatures).apply_async(priority=7)",
    new="[signature.apply_async() for signature in signatures]",
)
def test_a_group_gives_its_priority_to_each_of_its_tasks(rig):
    """A group of tasks gives its priority to each of them, also to one whose signature names another."""
    signatures = rig.demo("demo_group.py")["signatures"]
    rig.same(
        [(signature.immutable, signature.options.get("priority")) for signature in signatures],
        [(True, None), (True, 2)],
        "the signatures are {}",
    )
    assert rig.waiting() == {LOW + "7": 2}, f"it waits in {rig.waiting()}"


@pytest.mark.workers
@pytest.mark.broken_by(r"wait in \{'auth.*': 2", conf={"task_routes": {"allianceauth.*": {"queue": "auth"}}})
def test_auths_own_update_waits_in_the_same_list_as_the_tasks_of_apps(rig):
    """Auth's own update of corporations and characters has priority 7 and waits in the same list as tasks of apps."""
    EveCorporationInfo.objects.create(corporation_id=98000001, corporation_name="Corporation", member_count=1)
    EveCharacter.objects.create(character_id=90000001, character_name="Character", corporation_id=98000001)
    run_model_update()
    tasks.update_structure.apply_async(args=[1035466617946], priority=7)
    assert rig.waiting() == {LOW + "7": 3}, f"they wait in {rig.waiting()}"


@pytest.mark.workers
@pytest.mark.broken_by(r"wait in \{'celery': 1, 'celery", conf={"task_routes": {}})
def test_a_task_named_discord_waits_in_a_queue_of_its_own(rig):
    r"""A task whose name begins with `discord.` waits in the queue `services`, also an app's.

    It has a list for each priority too: `services` for 0, and `services\x06\x16` with the number for 1 to 9.
    """
    for priority in range(10):
        tasks.announce_attack.apply_async(args=[1035466617946], priority=priority)
    tasks.announce_attack.delay(1035466617946)
    rig.same(
        rig.waiting(),
        {"services": 1} | {f"{SERVICES}{number}": 1 for number in range(1, 10)} | {SERVICES + "5": 2},
        "they wait in {}",
    )


@pytest.mark.workers
@pytest.mark.broken_by(r"it left \{\}", conf={"task_routes": {}})
def test_a_purge_leaves_the_tasks_named_discord(rig, monkeypatch, capsys):
    """`celery purge` and `app.control.purge()` leave the queue `services`; `celery purge -Q services` empties it."""
    tasks.announce_attack.delay(1035466617946)
    tasks.update_structure.delay(1035466617946)
    assert current_app.control.purge() == 1, f"not one was purged, it left {rig.waiting()}"
    assert rig.waiting() == {SERVICES + "5": 1}, f"it left {rig.waiting()}"
    tasks.update_structure.delay(1035466617946)
    # The command runs in a process of its own, which has not sent anything and so knows no queue but its own.
    monkeypatch.setattr(current_app.amqp, "queues", current_app.amqp.Queues(current_app.conf.task_queues))
    command.main(["-A", "myauth", "purge", "-f"], standalone_mode=False)
    assert rig.waiting() == {SERVICES + "5": 1}, f"it left {rig.waiting()}"
    command.main(["-A", "myauth", "purge", "-f", "-Q", "services"], standalone_mode=False)
    assert rig.waiting() == {}, f"the second left {rig.waiting()}"
    assert capsys.readouterr().out.count("Purged 1 message from 1 known task queue.") == 2


@pytest.mark.workers
@pytest.mark.broken_by(
    r"waits in \{'celery\\x06\\x165': 1\}",
    file="tasks.py",
    old="follow_fleet.apply_async(args=[fleet_id, rounds - 1], priority=1)",
    new="follow_fleet.delay(fleet_id, rounds - 1)",
)
def test_each_round_of_a_fleet_sends_the_next_with_priority_one(rig):
    """Each round of a fleet sends the next with priority 1, and the last one sends none."""
    tasks.follow_fleet(1108600000001, 2)
    assert rig.waiting() == {LOW + "1": 1}, f"the next one waits in {rig.waiting()}"
    tasks.follow_fleet(1108600000001, 1)
    assert rig.waiting() == {LOW + "1": 1}, f"after the last round {rig.waiting()} wait"


# ---- with Alliance Auth's worker


@pytest.mark.broken_by(r"came with \[5, 7\]", file="tasks.py", old="bind=True, priority=3", new="bind=True")
def test_apply_async_overrides_the_priority_of_the_decorator(rig):
    """`@shared_task(priority=3)` gives each start priority 3, with `delay()` too; `apply_async` overrides it."""
    rig.finished("priorities.tasks.update_timers", 2, after="demo_decorator.py")
    assert arrived(rig) == [3, 7], f"they came with {arrived(rig)}"


@pytest.mark.broken_by(r"came with \[7, 7, 7\]", conf={"task_inherit_parent_priority": True})
def test_a_chain_gives_its_priority_to_its_first_link_only(rig):
    """`chain(…).apply_async(priority=7)` is for the first link only: all others run with the default."""
    rig.finished(MEMBERS, 3, after="demo_chain.py")
    assert arrived(rig) == [7, 5, 5], f"the links came with {arrived(rig)}"


@pytest.mark.broken_by(r"came with \[7, 7, 7, 7\]", conf={"task_inherit_parent_priority": True})
def test_a_group_of_chains_gives_its_priority_to_the_first_link_of_each(rig):
    """A group of chains gives its priority to the first link of each chain only: all others run with the default."""
    rig.finished(MEMBERS, 4, after="demo_group_of_chains.py")
    assert arrived(rig) == [7, 5, 7, 5], f"the links came with {arrived(rig)}"


@pytest.mark.broken_by(
    r"came with \[5, 7, 7\]",
    file="demo_links.py",
    old="chain(links).apply_async()",
    new="chain(links).apply_async(priority=5)",
)
def test_a_link_keeps_the_priority_of_its_signature(rig):
    """A link whose signature has a priority, `.si(…).set(priority=7)`, runs with it."""
    rig.finished(MEMBERS, 3, after="demo_links.py")
    assert arrived(rig) == [7, 7, 7], f"the links came with {arrived(rig)}"


@pytest.mark.broken_by(r"came with \[7, 7, 7\]", conf={"task_inherit_parent_priority": True})
def test_a_priority_on_the_chain_replaces_that_of_the_first_signature(rig):
    """Where chain and signatures name a priority, the chain's counts for the first link, theirs for the others."""
    rig.finished(MEMBERS, 3, after="demo_both.py")
    assert arrived(rig) == [7, 2, 2], f"the links came with {arrived(rig)}"


@pytest.mark.broken_by(
    r"came with \[7, 7\]",
    file="demo_inside.py",
    old="import update_alliance",
    new="import update_alliance_as_called as update_alliance",
)
def test_a_task_started_inside_a_task_gets_the_default(rig):
    """What a task with priority 7 starts does not inherit that: it gets the default."""
    rig.finished(MEMBERS, 2, after="demo_inside.py")
    assert arrived(rig) == [7, 5, 5], f"they came with {arrived(rig)}"


@pytest.mark.broken_by(
    r"came with \[5, 5\]",
    file="tasks.py",
    old='priority = self.request.delivery_info["priority"]\n    for',
    new="priority = self.priority\n    for",
)
def test_a_task_can_hand_its_own_priority_on(rig):
    """A bound task finds its priority in `self.request.delivery_info` and can hand it on."""
    rig.finished(MEMBERS, 2, after="demo_handed_on.py")
    assert arrived(rig) == [7, 7], f"they came with {arrived(rig)}"


@pytest.mark.broken_by(
    r"came with \[7, 5\]",
    file="tasks.py",
    old='raise ConnectionError("ESI is down")',
    new="raise self.retry(priority=5)",
)
def test_a_retry_keeps_the_priority(rig):
    """A task that `autoretry_for` tries again comes back with the priority with which it was started."""
    rig.settle(after="demo_retry.py")
    assert arrived(rig) == [7, 7], f"the attempts came with {arrived(rig)}"
    # An attempt may tell of its retry when the next has ended.
    rig.wait(lambda: any(event["type"] == "task-retried" for event in rig.events), "word of the retry")
    # A start may be told of late, the receipt is never later.
    due, taken, retried = due_at(rig), at(rig, "task-received"), at(rig, "task-retried")
    assert due - retried <= 0.2 <= due - taken, f"it is due {due - taken:.2f} s after its receipt"


@pytest.mark.broken_by(r"waits in \{\}", conf={"task_routes": {}})
def test_the_ordinary_worker_takes_no_task_named_discord(rig):
    """Auth's ordinary worker takes no task whose name begins with `discord.`, not even when it has nothing to do."""
    tasks.announce_attack.delay(1035466617946)
    tasks.update_structure.delay(1035466617946)
    rig.finished(STRUCTURE)
    let_them_take(rig, 0)
    left = rig.waiting()
    rig.redis.delete(SERVICES + "5")
    assert left == {SERVICES + "5": 1}, f"what waits in {left} was left"


@pytest.mark.broken_by(r"it goes after \[[1-9]", conf={"worker_prefetch_multiplier": 2})
def test_with_acks_late_the_worker_holds_only_what_it_runs(rig):
    """Of tasks with `acks_late=True` a worker of five threads takes only five at a time: an urgent task is next."""
    with rig.hold(ASSETS_ACKS_LATE):
        rig.demo("demo_busy_acks_late.py")
        rig.started(ASSETS_ACKS_LATE, 5)
        let_them_take(rig, 5)
        rig.demo("demo_attack.py")
        attacks = rig.waiting()
    rig.settle()
    (attack,) = rig.runs(ATTACK)
    late = rig.runs(ASSETS_ACKS_LATE)
    first = short(before(attack, late))
    assert not first, f"it goes after {first}, which had not begun"
    rig.same(
        sorted(line for line in rig.logged() if "assets" in line),
        [f"INFO Updated the assets of {90000001 + number}" for number in range(8)],
        "logged {}",
    )
    assert attacks == {LOW + "1": 1, LOW + "9": 3}, f"beside those that ran {attacks} waited"


@pytest.mark.broken_by(r"the worker holds 1[0-9]", conf={"worker_prefetch_multiplier": 2})
def test_beside_ordinary_tasks_a_worker_holds_tasks_with_acks_late_too(rig):
    """For each ordinary task that runs beside tasks with `acks_late=True`, a worker of five threads takes one more.

    These go before an urgent one: three where three ordinary tasks run.
    """
    with rig.hold(ASSETS), rig.hold(ASSETS_ACKS_LATE):
        rig.send(tasks.update_assets, 3, 90000001)
        rig.send(tasks.update_assets_acks_late, 2, 90000004)
        rig.wait(lambda: sum(run.started is not None for run in rig.runs()) == 5, "the start of five")
        rig.demo("demo_busy_acks_late.py")
        let_them_take(rig, 8)
        holds = len(held(rig.runs()))
        rig.demo("demo_attack.py")
    rig.settle()
    (attack,) = rig.runs(ATTACK)
    first = before(attack, rig.runs(ASSETS_ACKS_LATE))
    assert (holds, len(first)) == (8, 3), f"the worker holds {holds}, and {len(first)} of these go first"


@pytest.mark.broken_by(r"it goes after ([6-9]|10) tasks", conf={"worker_prefetch_multiplier": 2})
def test_an_urgent_task_waits_behind_ten_that_the_worker_holds(rig):
    """Where more wait, Auth's worker holds ten tasks, five that run and five for later.

    An urgent task that is sent then starts only when one of those five has ended too.
    """
    with rig.hold(ASSETS):
        rig.demo("demo_busy.py")
        rig.started(ASSETS, 5)
        let_them_take(rig, 10)
        rig.demo("demo_attack.py")
        waiting = rig.waiting()
    rig.settle()
    (attack,) = rig.runs(ATTACK)
    first = before(attack, rig.runs(ASSETS))
    assert len(first) == 5, f"it goes after {len(first)} tasks that had not begun"
    early = min(run.ended for run in first) - attack.started
    assert early <= 0, f"it started {early} s before the end of the first of them"
    assert waiting == {LOW + "1": 1, LOW + "9": 2}, f"outside the worker {waiting} waited"
    assert "WARNING Structure 1035466617946 is under attack" in rig.logged(), f"logged {rig.logged()}"
    assert "INFO Updated the assets of 90000012" in rig.logged(), f"logged {rig.logged()}"
    assert current_app.conf.worker_prefetch_multiplier == 1
    runs = rig.runs(ASSETS)
    began = runs[0].sent
    running = [run for run in runs if run.started < attack.sent]
    held = [run for run in runs if run.received < attack.sent <= run.started]
    queued = [run for run in runs if run.received >= attack.sent]
    groups = (("run", "two", running), ("held by the worker", "two", held), ("wait in Redis", "two", queued))
    rig.chart(
        "urgent_behind_ten",
        "timeline",
        [bar for group in (*groups, ("urgent", "one", [attack])) for bar in waits_and_runs(*group, began)],
        legend=[("one", "runs, priority 1"), ("two", "runs, priority 9")],
        values={"high": 1, "low": 9, "held": len(running + held), "running": len(running), "before": len(first)},
    )


@pytest.mark.broken_by(r"the receipt of both did not happen", conf={"worker_disable_prefetch": True})
def test_a_countdown_that_ends_overtakes_what_waits_in_redis(rig):
    """A worker keeps a task with a countdown or an eta itself; when due, it overtakes more urgent tasks in Redis."""
    with rig.hold(ASSETS):
        rig.send(tasks.update_assets, 5, 90000031)
        rig.started(ASSETS, 5)
        began = time.time()
        eta = datetime.fromtimestamp(began + 0.45, UTC)
        tasks.update_structure.apply_async(args=[1038457641673], priority=9, eta=eta)
        rig.demo("demo_countdown.py")
        rig.wait(lambda: len(fetched(rig.runs(STRUCTURE))) == 2, "the receipt of both")
        late = priorities_held(rig, STRUCTURE)
        rig.demo("demo_urgent.py")
        let_them_take(rig, 10)
        # What is due is no longer scheduled: it waits for a thread.
        rig.wait(lambda: not any(current_app.control.inspect(limit=1, timeout=5).scheduled().values()), "both are due")
        waiting = rig.waiting()
    rig.settle()
    structures = rig.runs(STRUCTURE)
    due, sent = due_at(rig, "1035466617946"), at(rig, "task-sent", "1035466617946")
    assert due - sent <= 0.45 <= due - began, f"it is due {due - began:.2f} s after the call"
    overtaken = [run for run in rig.runs(ASSETS) if run.started > max(one.started for one in structures)]
    assert overtaken, f"it overtook {len(overtaken)} tasks"
    assert (late, list(waiting)) == ([9, 9], [LOW + "1"]), f"with {late} they overtook what waited in {waiting}"


@pytest.mark.broken_by(r"services, priority 1: 0", file="demo_waiting.py", old="if waiting:", new="if priority < 2:")
def test_the_lists_hold_what_waits_and_unacked_what_workers_took_and_have_not_begun(rig, capsys):
    """The lists hold the tasks that wait at each priority, `unacked` those that a worker took and has not begun.

    Of twelve tasks a worker of five threads runs five and holds five in `unacked`; two wait in their list.
    """
    with rig.hold(ASSETS):
        rig.demo("demo_busy.py")
        let_them_take(rig, 10)
        rig.demo("demo_attack.py")
        tasks.update_structure.apply_async(args=[1035466617946], priority=0)
        tasks.announce_attack.delay(1035466617946)
        rig.demo("demo_waiting.py")
        printed = capsys.readouterr().out
    rig.finished(STRUCTURE)
    rig.redis.delete(SERVICES + "5")
    waiting = ["celery, priority 0: 1", "celery, priority 1: 1", "celery, priority 9: 2", "services, priority 5: 1"]
    wanted = [*(f"{line} waiting" for line in waiting), "held by workers, not begun: 5"]
    assert printed.splitlines() == wanted, f"printed {printed}"


@pytest.mark.workers({}, {"program": "worker_services"})
@pytest.mark.broken_by(r"printed .*_00 runs 0 tasks", file="demo_workers.py", old=".active()", new=".reserved()")
def test_active_names_the_workers_that_answer_and_what_they_run(rig, capsys):
    """`app.control.inspect().active()` names each worker that answers, and each task it runs, with its arguments."""
    with rig.hold(ASSETS):
        tasks.update_assets.delay(90000001)
        tasks.update_assets.delay(character_id=90000002)
        rig.started(ASSETS, 2)
        rig.demo("demo_workers.py")
        printed = capsys.readouterr().out.splitlines()
    rig.settle()
    # Which of the two answers first, nobody decides.
    first, second = (f"{worker.node} runs {count} tasks" for worker, count in zip(rig.workers, (2, 0), strict=True))
    running = [f"  {ASSETS} [90000001] {{}}", f"  {ASSETS} [] {{'character_id': 90000002}}"]
    assert sorted(printed) == sorted([first, second, *running]), f"printed {printed}"
    below = printed[printed.index(first) + 1 :][:2]
    assert sorted(below) == sorted(running), f"printed {printed}"


@pytest.mark.workers
@pytest.mark.broken_by(r"printed ''", file="demo_workers.py", old='print("no worker answers")', new="pass")
def test_active_returns_nothing_where_no_worker_answers(rig, capsys):
    """Where no worker answers, `app.control.inspect().active()` returns None."""
    rig.demo("demo_workers.py")
    printed = capsys.readouterr().out
    assert printed == "no worker answers\n", f"printed {printed!r}"
    assert current_app.control.inspect(timeout=0.1).active() is None


@pytest.mark.broken_by(r"taken in the order \[", conf=steps(0, 3, 6, 9))
def test_a_busy_worker_takes_zero_first_and_nine_last(rig):
    """A worker of five threads, too, takes 0 first of the tasks that wait, then 1, and 9 last."""
    with rig.hold(ASSETS):
        rig.send(tasks.update_assets, 10, 90000001)
        let_them_take(rig, 10)
        rig.demo("demo_ten.py")
    rig.settle()
    rig.same(short(fetched(rig.runs(STRUCTURE))), list(range(10)), "they were taken in the order {}")


@pytest.mark.broken_by(
    r"the end of 8 x .* did not happen",
    file="tasks.py",
    old="def update_structure(structure_id, with_fittings=False):\n",
    new="def update_structure(structure_id, with_fittings=False):\n    from celery import current_app\n"
    "    while 'update_assets' in str(current_app.control.inspect(limit=1, timeout=5).active()):\n"
    "        pass\n",
)
def test_with_five_threads_a_later_task_may_end_first(rig):
    """A worker of five threads takes tasks of the same priority in order, but one that was sent later may end first."""
    with rig.hold(ASSETS):
        tasks.update_assets.apply_async(args=[90000000], priority=8)
        rig.send(tasks.update_structure, 8, 1035466617941, priority=8)
        rig.finished(STRUCTURE, 8)
        (first,) = rig.runs(ASSETS)
        assert first.ended is None, "the first one was not held"
    rig.settle()
    rig.same(short(fetched(rig.runs())), list(range(9)), "they were taken in the order {}")


# ---- with one thread


@pytest.mark.workers({"concurrency": 1})
@pytest.mark.broken_by(
    r"ran in the order \[0, 2, 4, 6, 1",
    file="tasks.py",
    old="@shared_task\ndef update_structure(structure_id, with_fittings=False):\n",
    new="@shared_task(bind=True)\ndef update_structure(self, structure_id, with_fittings=False):\n"
    "    if structure_id % 2 and not self.request.retries:\n        raise self.retry(countdown=0.2)\n",
)
def test_with_one_thread_first_come_is_first_served(rig):
    """One worker of one thread runs tasks of the same priority in the order in which they were sent."""
    with rig.hold(ASSETS):
        tasks.update_assets.delay(90000001)
        rig.started(ASSETS)
        rig.send(tasks.update_structure, 8, 1035466617940, priority=8)
    rig.settle()
    rig.same(short(sorted(rig.runs(STRUCTURE), key=lambda run: run.ended)), list(range(8)), "they ran in the order {}")


@pytest.mark.workers({"concurrency": 1})
@pytest.mark.broken_by(
    r"started \d+\.\d+ s before the end",
    file="tasks.py",
    old="@shared_task\ndef update_assets(character_id):\n",
    new="@shared_task(bind=True)\ndef update_assets(self, character_id):\n"
    "    if not self.request.retries:\n        raise self.retry(countdown=0.5)\n",
)
def test_a_running_task_is_not_interrupted(rig):
    """A task that runs is not interrupted: a more urgent one starts when it has ended."""
    with rig.hold(ASSETS):
        tasks.update_assets.apply_async(args=[90000001], priority=9)
        rig.started(ASSETS)
        rig.demo("demo_attack.py")
        let_them_take(rig, 2)
    rig.settle()
    (attack,), (running,) = rig.runs(ATTACK), rig.runs(ASSETS)
    early = running.ended - attack.started
    assert early <= 0, f"it started {early:.2f} s before the end of the other"
    assert running.ended - running.started >= 0.3, f"the other ran for {running.ended - running.started:.2f} s only"


@pytest.mark.workers({"concurrency": 1, "paused": True})
@pytest.mark.broken_by(r"ran in the order \[", conf=steps(0, 3, 6, 9))
def test_zero_runs_first_and_nine_last(rig):
    """Whatever the order in which they were sent, of the tasks that wait 0 runs first, then 1, and 9 runs last."""
    rig.demo("demo_ten.py")
    rig.resume()
    order = short(rig.finished(STRUCTURE, 10))
    sent = short(sorted(rig.runs(STRUCTURE), key=lambda run: run.sent))
    assert order == list(range(10)), f"they ran in the order {order}"
    rig.same(
        rig.logged(),
        [f"INFO Updated structure {1035466617940 + number}, with fittings: False" for number in range(10)],
        "logged {}",
    )
    colours = {number: "two" if number < 5 else "one" if number == 5 else "three" for number in sent}
    rig.chart(
        "ten_priorities",
        "order",
        [(f"priority {number}", order.index(number) + 1, colours[number]) for number in sent],
        names=("sent", "ran"),
        values={"count": len(sent), "sent": ", ".join(map(str, sent)), "ran": ", ".join(map(str, order))},
    )


@pytest.mark.workers({"concurrency": 1, "paused": True})
@pytest.mark.broken_by(
    r"ran in the order \[0, 1, 1, 2, 9\]",
    file="demo_no_number.py",
    old=", priority=priority",
    new=", **({'priority': priority} if isinstance(priority, int) else {})",
)
def test_none_and_words_run_before_everything_else(rig):
    """`priority=None` is not the default: it waits with those of 0 and runs before all others; a word does, too."""
    for priority in (9, 1, 0):
        tasks.update_members.apply_async(args=[98000000 + priority], priority=priority)
    rig.demo("demo_no_number.py")
    waiting = rig.waiting()
    rig.resume()
    rig.same(short(rig.finished(MEMBERS, 5)), [0, 1, 2, 1, 9], "they ran in the order {}")
    assert waiting == {"celery": 3, LOW + "1": 1, LOW + "9": 1}, f"they waited in {waiting}"


# ---- with more or other workers


@pytest.mark.workers({"concurrency": 1, "paused": True}, {"concurrency": 1, "paused": True})
@pytest.mark.broken_by(
    r"did not happen|in the order \[1, 2, 3, 4, 5, 6, 7, 8\]", conf={"worker_disable_prefetch": True}
)
def test_with_two_workers_a_later_task_may_start_first(rig):
    """With two workers of one thread each, a task may start after others of its priority that were sent later."""
    tasks.update_assets.apply_async(args=[90000000], priority=8)
    rig.send(tasks.update_structure, 8, 1035466617941, priority=8)
    with rig.hold(ASSETS):
        rig.resume(0)
        let_them_take(rig, 2)
        rig.resume(1)
        rig.finished(STRUCTURE, 7)
    rig.settle()
    rig.same(short(rig.runs(STRUCTURE)), [2, 3, 4, 5, 6, 7, 8, 1], "they started in the order {}")


@pytest.mark.workers({"concurrency": 1}, {"concurrency": 3}, {"concurrency": 2, "pool": "prefork"})
@pytest.mark.broken_by(r"the workers hold \[", conf={"worker_prefetch_multiplier": 2})
def test_a_worker_holds_twice_as_many_tasks_as_it_runs_at_once(rig):
    """With Auth's prefetch multiplier of 1 a worker holds twice as many ordinary tasks as it runs at once.

    That is so with the pool `threads` as with `prefork`: one thread holds two, three hold six, two processes four.
    """
    with rig.hold(ASSETS):
        rig.send(tasks.update_assets, 20, 90000001)
        let_them_take(rig, 12)
        taken = held(rig.runs(ASSETS))
    rig.settle()
    nodes = [worker.argv[worker.argv.index("-n") + 1] for worker in rig.workers]
    rig.same([sum(run.worker == node for run in taken) for node in nodes], [2, 6, 4], "the workers hold {}")


@pytest.mark.workers({"program": "worker_services"})
@pytest.mark.broken_by(r"the end of 8 x discord.announce_attack did not happen", conf={"task_routes": {}})
def test_the_services_worker_takes_the_tasks_named_discord_and_no_others(rig):
    """Auth's second worker, `worker_services`, has one thread; it takes the tasks named `discord.…`, and no others."""
    tasks.update_structure.apply_async(args=[1035466617946], priority=1)
    rig.send(tasks.announce_attack, 8, 1035466617940)
    rig.finished(ANNOUNCE, 8)
    let_them_take(rig, 0)
    left = rig.waiting()
    (stats,) = current_app.control.inspect(limit=1, timeout=5).stats().values()
    rig.same(
        rig.logged(),
        [f"INFO Announced the attack on structure {1035466617940 + number}" for number in range(8)],
        "logged {}",
    )
    assert left == {LOW + "1": 1}, f"it left {left}"
    assert stats["pool"]["max-concurrency"] == 1, f"its pool is {stats['pool']}"


# ---- overuse


@pytest.mark.workers({"paused": True})
@pytest.mark.broken_by(
    r"[1-5] structures came before", file="tasks.py", old="rounds - 1], priority=1)", new="rounds - 1], priority=9)"
)
def test_a_steady_flow_of_priority_one_starves_nine(rig):
    """While tasks of priority 1 keep coming to a worker of five threads, no task of priority 9 runs.

    Twelve fleets are followed, and the tasks of priority 9 were sent first.
    """
    rig.demo("demo_starvation.py")
    waiting = rig.waiting()
    rig.resume()
    rig.settle()
    order = fetched(rig.runs())
    names = [run.name for run in order]
    first = {run.name for run in sorted(order, key=lambda run: run.sent)[:5]}
    # From here on one fleet has no next round: the flow is no longer what it was.
    last = next(place for place, run in enumerate(order) if run.name == FLEET and run.args.endswith(" 1]"))
    rig.same(names[:last].count(STRUCTURE), 0, "{} structures came before the end of the flow")
    assert (names.count(FLEET), names.count(STRUCTURE)) == (36, 5), f"{names} ran"
    assert first == {STRUCTURE}, f"the first five were {first}"
    assert waiting == {LOW + "1": 12, LOW + "9": 5}, f"at first {waiting} waited"
    rounds = [f"INFO Fleet {1108600000001 + fleet}, {left} rounds to go" for fleet in range(12) for left in range(3)]
    assert sorted(line for line in rig.logged() if "Fleet" in line) == rounds, f"logged {rig.logged()}"
    shortest = min(run.ended - run.started for run in order if run.name == FLEET)
    assert shortest >= 0.05, f"a round took {shortest:.3f} s"
    urgent, late = rig.runs(FLEET), rig.runs(STRUCTURE)
    began = urgent[0].started
    urgent_runs = [("priority 1", "", run.started - began, run.ended - began, "one") for run in urgent]
    rig.chart(
        "starvation",
        "timeline",
        [*urgent_runs, *waits_and_runs("priority 9", "two", late, began)],
        legend=[("one", "runs, priority 1"), ("two", "runs, priority 9")],
        values={
            "high": 1,
            "low": 9,
            "late": len(late),
            "before": sum(run.started < late[0].started for run in urgent),
        },
    )


# ---- other settings


@pytest.mark.workers
@pytest.mark.broken_by(
    r"the started tasks came with \[7, 7\]",
    file="demo_inside.py",
    old="import update_alliance",
    new="import update_alliance_as_called as update_alliance",
)
def test_task_inherit_parent_priority_reaches_links_but_no_started_tasks(rig, monkeypatch):
    """With `task_inherit_parent_priority`, which Auth leaves off, links inherit; what a task starts does not."""
    assert current_app.conf.task_inherit_parent_priority is False
    # The worker takes over what this process has set.
    monkeypatch.setitem(current_app.conf, "task_inherit_parent_priority", True)
    rig.start_worker()
    rig.settle(after="demo_chain.py")
    rig.same(arrived(rig), [7, 7, 7], "the links came with {}")
    rig.settle(after="demo_inside.py")
    rig.same(arrived(rig, skip=3), [7, 5, 5], "the started tasks came with {}")


@pytest.mark.workers
@pytest.mark.broken_by(
    r"it goes after [1-9]\d* tasks", file="demo_busy.py", old="priority=9)", new="priority=9, countdown=0.1)"
)
def test_without_prefetch_an_urgent_task_is_next(rig, monkeypatch):
    """With `worker_disable_prefetch`, which Auth leaves off, a worker of five threads takes no more than it runs.

    That is so for tasks without a countdown; an urgent one is next, then.
    """
    assert current_app.conf.worker_disable_prefetch is False
    monkeypatch.setitem(current_app.conf, "worker_disable_prefetch", True)
    rig.start_worker()
    with rig.hold(ASSETS):
        rig.demo("demo_busy.py")
        rig.started(ASSETS, 5)
        let_them_take(rig, 5)
        rig.demo("demo_attack.py")
        waiting = rig.waiting()
    rig.settle()
    (attack,) = rig.runs(ATTACK)
    first = before(attack, rig.runs(ASSETS))
    assert not first, f"it goes after {len(first)} tasks that had not begun"
    assert waiting == {LOW + "1": 1, LOW + "9": 7}, f"outside the worker {waiting} waited"


@pytest.mark.workers
@pytest.mark.broken_by(r"the second start of .* did not happen", conf=steps(*range(10), visibility_timeout=3600))
def test_with_acks_late_a_task_longer_than_the_visibility_timeout_starts_again(rig, monkeypatch):
    """A task with `acks_late=True` that outlasts the visibility timeout starts again while it runs.

    One without does not. Measured on a single worker of five threads, with a timeout of one second instead of one hour.
    """
    impatient = {"visibility_timeout": 1, "unacked_restore_interval": 0.5, "unacked_restore_throttle": 1}
    by_auth = current_app.conf.broker_transport_options
    monkeypatch.setitem(current_app.conf, "broker_transport_options", {**impatient, **by_auth})
    rig.start_worker()

    def starts():
        begun = [event["uuid"] for event in rig.events if event["type"] == "task-started"]
        return {run.name: begun.count(run.id) for run in rig.runs()}

    with rig.hold(ASSETS), rig.hold(ASSETS_ACKS_LATE):
        tasks.update_assets.delay(90000001)
        tasks.update_assets_acks_late.delay(90000002)
        rig.wait(lambda: starts().get(ASSETS_ACKS_LATE, 0) > 1, f"the second start of {ASSETS_ACKS_LATE}")
    rig.settle()
    assert starts()[ASSETS] == 1, f"the one without started {starts()[ASSETS]} times"
    assert (Channel.visibility_timeout, "visibility_timeout" in by_auth) == (3600, False), "it is not an hour"
