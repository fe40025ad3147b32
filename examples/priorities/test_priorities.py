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


def messages(lab):
    """Return args, kwargs, priority as named, and list of each message that waits, by the first argument."""
    found = []
    for key in lab.waiting():
        for raw in lab.redis.lrange(key, 0, -1):
            message = json.loads(raw)
            args, kwargs, _ = json.loads(base64.b64decode(message["body"]))
            found.append((args, kwargs, message["properties"]["priority"], key))
    return sorted(found, key=lambda message: message[0])


def lists(lab):
    """Return the number of the list in which each message waits, 0 for `celery`, in the order of the corporations."""
    return [int(key.removeprefix(LOW)) if key.startswith(LOW) else 0 for *_, key in messages(lab)]


def named(lab):
    """Return the priorities that the calls named, in the order of the corporations."""
    return [priority for _, _, priority, _ in messages(lab)]


def logged(lab):
    """Return the lines that the tasks logged, with their level."""
    found = re.findall(r"^\[.*?\] (\w+) \[.*?\] (.*)$", lab.log_file("extensions.log"), re.MULTILINE)
    return [" ".join(line) for line in found]


def arrived(lab, skip=0):
    """Return the priorities with which the tasks say that they came, by the numbers that they name."""
    found = [re.fullmatch(r"INFO \w+ of (\d+)\b.* with priority (-?\d+)", line) for line in logged(lab)[skip:]]
    return [int(line[2]) for line in sorted(filter(None, found), key=lambda line: int(line[1]))]


def short(runs):
    """Return the last digits of each task's first argument, which tell it from the others."""
    return [int(re.match(r"[(\[](\d+)", run.args)[1]) % 10 for run in runs]


def at(lab, kind, args=""):
    """Return when the first event of this kind came, of a task with these arguments."""
    return next(event["timestamp"] for event in lab.events if event["type"] == kind and args in event.get("args", ""))


def due_at(lab, args=""):
    """Return when the first task with a countdown was due, of those with these arguments."""
    found = [event["eta"] for event in lab.events if event.get("eta") and args in event.get("args", "")]
    return datetime.fromisoformat(found[0]).timestamp()


def priorities_held(lab, name):
    """Return the priorities of the messages called `name` that workers have taken from Redis and not acknowledged."""
    taken = [json.loads(raw)[0] for raw in lab.redis.hvals("unacked")]
    return [message["properties"]["priority"] for message in taken if message["headers"]["task"] == name]


def held(runs):
    """Return the runs that a worker has taken from Redis and not ended."""
    return [run for run in runs if run.received is not None and run.ended is None]


def let_them_take(lab, count, name=None):
    """Wait until the workers hold `count` tasks; if they want more, they take them before they answer the last ping."""
    lab.wait(lambda: len(held(lab.runs(name))) >= count, f"the receipt of {count} x {name or 'any task'}")
    for _ in range(3):
        assert len(current_app.control.ping(timeout=5, limit=len(lab.workers))) == len(lab.workers)


def fetched(runs):
    """Return the runs in the order in which the worker took them from Redis and gave them to its threads."""
    return sorted((run for run in runs if run.received is not None), key=lambda run: run.received)


def before(urgent, runs):
    """Return the runs that had not begun when the urgent one was sent, but were in the worker's hands before it."""
    return [run for run in fetched(runs) if run.started > urgent.sent and run.received < urgent.received]


# ---- without a worker: where the messages wait


@pytest.mark.workers
@pytest.mark.broken_by(r"the message holds", file="demo.py", old='kwargs={"with_fittings": True}', new="expires=60")
def test_apply_async_takes_the_arguments_as_a_list_and_a_dictionary(lab):
    """`apply_async` takes the task's arguments as `args`, a list, and `kwargs`, a dictionary, beside `priority`."""
    lab.demo()
    assert lab.waiting() == {LOW + "3": 1}, f"it waits in {lab.waiting()}"
    ((args, kwargs, *_),) = messages(lab)
    assert [args, kwargs] == [[1035466617946], {"with_fittings": True}], f"the message holds {args} and {kwargs}"


@pytest.mark.workers
@pytest.mark.broken_by(r"wait in \{'celery\\x06\\x163': 2\}", conf={"task_default_priority": 3})
def test_a_task_without_a_priority_gets_five(lab):
    """A task that is started without a priority, with `delay` or `apply_async`, gets 5, Alliance Auth's default."""
    tasks.update_structure.delay(1035466617946)
    tasks.update_structure.apply_async(args=[1038457641673])
    assert lab.waiting() == {LOW + "5": 2}, f"they wait in {lab.waiting()}"


@pytest.mark.workers
@pytest.mark.broken_by(r"wait in \{.*'celery\\x06\\x166': 3", conf=steps(0, 3, 6, 9))
def test_each_priority_has_a_redis_list_of_its_own(lab):
    r"""Each priority has a Redis list of its own: `celery` for 0, and `celery\x06\x16` with the number for 1 to 9."""
    lab.demo("demo_ten.py")
    expected = {"celery": 1} | {f"{LOW}{number}": 1 for number in range(1, 10)}
    assert lab.waiting() == expected, f"they wait in {lab.waiting()}"


@pytest.mark.workers
@pytest.mark.broken_by(r"printed ''", file="tasks.py", old="with_fittings=False", new="with_fittings=False, **options")
def test_delay_cannot_take_a_priority(lab, capsys):
    """`delay(…, priority=3)` hands the priority to the function.

    Where that has no argument of the name, the call raises TypeError, and nothing is sent.
    """
    lab.demo("demo_delay.py")
    printed = capsys.readouterr().out
    assert printed == "update_structure() got an unexpected keyword argument 'priority'\n", f"it printed {printed!r}"
    assert lab.waiting() == {}, "something was sent"


@pytest.mark.workers
@pytest.mark.broken_by(r"printed ''", file="demo_bare_argument.py", old="(1035466617946)", new="([1035466617946])")
def test_a_bare_id_instead_of_a_list_raises_at_the_call(lab, capsys):
    """`apply_async` with a bare number where the list of arguments belongs raises TypeError at the call."""
    lab.demo("demo_bare_argument.py")
    printed = capsys.readouterr().out
    assert printed.endswith("argument after * must be an iterable, not int\n"), f"it printed {printed!r}"
    assert lab.waiting() == {}, "something was sent"


@pytest.mark.workers
@pytest.mark.broken_by(r"the lists \[0, 6, 6\]", conf=steps(0, 3, 6))
def test_below_zero_counts_as_zero_and_above_nine_as_nine(lab):
    """A number out of range raises nothing: -1 waits with those of 0, and 10 and 100 with those of 9."""
    lab.demo("demo_out_of_range.py")
    assert named(lab) == [-1, 10, 100], f"the calls named {named(lab)}"
    assert lists(lab) == [0, 9, 9], f"they wait in the lists {lists(lab)}"


@pytest.mark.workers
@pytest.mark.broken_by(r"the lists \[2, 2\]", conf=steps(0, 2, 4, 6, 8))
def test_digits_count_as_their_number_and_a_fraction_is_cut_off(lab):
    """The text `"3"` waits with those of 3, and so does 3.9, whose fraction is cut off."""
    lab.demo("demo_nearly_a_number.py")
    assert named(lab) == ["3", 3.9], f"the calls named {named(lab)}"
    assert lists(lab) == [3, 3], f"they wait in the lists {lists(lab)}"


@pytest.mark.workers
@pytest.mark.broken_by(r"warned of \[\]", file="tasks.py", old="bind=True, priority=3", new="bind=True")
def test_celery_will_drop_the_priority_of_the_decorator(lab):
    """Celery 5.7 warns that a priority in the decorator is deprecated and that version 6.0 removes it."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        again = runpy.run_path(tasks.__file__, run_name="again.tasks")
        for name in ("update_timers", "update_structure"):
            # A task is made when it is first used.
            assert again[name].name == f"again.tasks.{name}"
    text = [" ".join(str(found.message).split()) for found in caught if "task attribute" in str(found.message)]
    expected = "The 'priority' task attribute is deprecated and scheduled for removal in version 6.0."
    assert [line.partition(" Use ")[0] for line in text] == [expected], f"warned of {text}"
    assert celery.__version__.startswith("5.7."), f"this is Celery {celery.__version__}"


@pytest.mark.workers
@pytest.mark.broken_by(
    r"waits in \{'celery\\x06\\x162': 1, 'celery\\x06\\x165': 1\}",
    file="demo_group.py",
    old="group(signatures).apply_async(priority=7)",
    new="[signature.apply_async() for signature in signatures]",
)
def test_a_group_gives_its_priority_to_each_of_its_tasks(lab):
    """A group of tasks gives its priority to each of them, also to one whose signature names another."""
    signatures = lab.demo("demo_group.py")["signatures"]
    given = [(signature.immutable, signature.options.get("priority")) for signature in signatures]
    assert given == [(True, None), (True, 2)], f"the signatures are {given}"
    assert lab.waiting() == {LOW + "7": 2}, f"it waits in {lab.waiting()}"


@pytest.mark.workers
@pytest.mark.broken_by(r"wait in \{'auth.*': 2", conf={"task_routes": {"allianceauth.*": {"queue": "auth"}}})
def test_auths_own_update_waits_in_the_same_list_as_the_tasks_of_apps(lab):
    """Auth's own update of corporations and characters has priority 7 and waits in the same list as tasks of apps."""
    EveCorporationInfo.objects.create(corporation_id=98000001, corporation_name="Corporation", member_count=1)
    EveCharacter.objects.create(character_id=90000001, character_name="Character", corporation_id=98000001)
    run_model_update()
    tasks.update_structure.apply_async(args=[1035466617946], priority=7)
    assert lab.waiting() == {LOW + "7": 3}, f"they wait in {lab.waiting()}"


@pytest.mark.workers
@pytest.mark.broken_by(r"wait in \{'celery': 1, 'celery", conf={"task_routes": {}})
def test_a_task_named_discord_waits_in_a_queue_of_its_own(lab):
    r"""A task whose name begins with `discord.` waits in the queue `services`, also an app's.

    It has a list for each priority too: `services` for 0, and `services\x06\x16` with the number for 1 to 9.
    """
    for priority in range(10):
        tasks.announce_attack.apply_async(args=[1035466617946], priority=priority)
    tasks.announce_attack.delay(1035466617946)
    expected = {"services": 1} | {f"{SERVICES}{number}": 1 for number in range(1, 10)} | {SERVICES + "5": 2}
    assert lab.waiting() == expected, f"they wait in {lab.waiting()}"


@pytest.mark.workers
@pytest.mark.broken_by(r"it left \{\}", conf={"task_routes": {}})
def test_a_purge_leaves_the_tasks_named_discord(lab, monkeypatch, capsys):
    """`celery purge` and `app.control.purge()` leave the queue `services`; `celery purge -Q services` empties it."""
    tasks.announce_attack.delay(1035466617946)
    tasks.update_structure.delay(1035466617946)
    assert current_app.control.purge() == 1, f"not one was purged, it left {lab.waiting()}"
    assert lab.waiting() == {SERVICES + "5": 1}, f"it left {lab.waiting()}"
    tasks.update_structure.delay(1035466617946)
    # The command runs in a process of its own, which has not sent anything and so knows no queue but its own.
    monkeypatch.setattr(current_app.amqp, "queues", current_app.amqp.Queues(current_app.conf.task_queues))
    command.main(["-A", "myauth", "purge", "-f"], standalone_mode=False)
    assert lab.waiting() == {SERVICES + "5": 1}, f"it left {lab.waiting()}"
    command.main(["-A", "myauth", "purge", "-f", "-Q", "services"], standalone_mode=False)
    assert lab.waiting() == {}, f"the second left {lab.waiting()}"
    assert capsys.readouterr().out.count("Purged 1 message from 1 known task queue.") == 2


@pytest.mark.workers
@pytest.mark.broken_by(
    r"waits in \{'celery\\x06\\x165': 1\}",
    file="tasks.py",
    old="follow_fleet.apply_async(args=[fleet_id, rounds - 1], priority=1)",
    new="follow_fleet.delay(fleet_id, rounds - 1)",
)
def test_each_round_of_a_fleet_sends_the_next_with_priority_one(lab):
    """Each round of a fleet sends the next with priority 1, and the last one sends none."""
    tasks.follow_fleet(1108600000001, 2)
    assert lab.waiting() == {LOW + "1": 1}, f"the next one waits in {lab.waiting()}"
    tasks.follow_fleet(1108600000001, 1)
    assert lab.waiting() == {LOW + "1": 1}, f"after the last round {lab.waiting()} wait"


# ---- with Alliance Auth's worker


@pytest.mark.broken_by(r"came with \[5, 7\]", file="tasks.py", old="bind=True, priority=3", new="bind=True")
def test_apply_async_overrides_the_priority_of_the_decorator(lab):
    """`@shared_task(priority=3)` gives each start priority 3, with `delay()` too; `apply_async` overrides it."""
    lab.demo("demo_decorator.py")
    lab.finished("priorities.tasks.update_timers", 2)
    assert arrived(lab) == [3, 7], f"they came with {arrived(lab)}"


@pytest.mark.broken_by(r"came with \[7, 7, 7\]", conf={"task_inherit_parent_priority": True})
def test_a_chain_gives_its_priority_to_its_first_link_only(lab):
    """`chain(…).apply_async(priority=7)` is for the first link only: all others run with the default."""
    lab.demo("demo_chain.py")
    lab.finished(MEMBERS, 3)
    assert arrived(lab) == [7, 5, 5], f"the links came with {arrived(lab)}"


@pytest.mark.broken_by(r"came with \[7, 7, 7, 7\]", conf={"task_inherit_parent_priority": True})
def test_a_group_of_chains_gives_its_priority_to_the_first_link_of_each(lab):
    """A group of chains gives its priority to the first link of each chain only: all others run with the default."""
    lab.demo("demo_group_of_chains.py")
    lab.finished(MEMBERS, 4)
    assert arrived(lab) == [7, 5, 7, 5], f"the links came with {arrived(lab)}"


@pytest.mark.broken_by(
    r"came with \[5, 7, 7\]",
    file="demo_links.py",
    old="chain(links).apply_async()",
    new="chain(links).apply_async(priority=5)",
)
def test_a_link_keeps_the_priority_of_its_signature(lab):
    """A link whose signature has a priority, `.si(…).set(priority=7)`, runs with it."""
    lab.demo("demo_links.py")
    lab.finished(MEMBERS, 3)
    assert arrived(lab) == [7, 7, 7], f"the links came with {arrived(lab)}"


@pytest.mark.broken_by(r"came with \[7, 7, 7\]", conf={"task_inherit_parent_priority": True})
def test_a_priority_on_the_chain_replaces_that_of_the_first_signature(lab):
    """Where chain and signatures name a priority, the chain's counts for the first link, theirs for the others."""
    lab.demo("demo_both.py")
    lab.finished(MEMBERS, 3)
    assert arrived(lab) == [7, 2, 2], f"the links came with {arrived(lab)}"


@pytest.mark.broken_by(
    r"came with \[7, 7\]",
    file="demo_inside.py",
    old="import update_alliance",
    new="import update_alliance_as_called as update_alliance",
)
def test_a_task_started_inside_a_task_gets_the_default(lab):
    """What a task with priority 7 starts does not inherit that: it gets the default."""
    lab.demo("demo_inside.py")
    lab.finished(MEMBERS, 2)
    assert arrived(lab) == [7, 5, 5], f"they came with {arrived(lab)}"


@pytest.mark.broken_by(
    r"came with \[5, 5\]",
    file="tasks.py",
    old='priority = self.request.delivery_info["priority"]\n    for',
    new="priority = self.priority\n    for",
)
def test_a_task_can_hand_its_own_priority_on(lab):
    """A bound task finds its priority in `self.request.delivery_info` and can hand it on."""
    lab.demo("demo_handed_on.py")
    lab.finished(MEMBERS, 2)
    assert arrived(lab) == [7, 7], f"they came with {arrived(lab)}"


@pytest.mark.broken_by(
    r"came with \[7, 5\]",
    file="tasks.py",
    old='raise ConnectionError("ESI is down")',
    new="raise self.retry(priority=5)",
)
def test_a_retry_keeps_the_priority(lab):
    """A task that `autoretry_for` tries again comes back with the priority with which it was started."""
    lab.demo("demo_retry.py")
    lab.settle()
    assert arrived(lab) == [7, 7], f"the attempts came with {arrived(lab)}"
    due, began, retried = due_at(lab), at(lab, "task-started"), at(lab, "task-retried")
    assert due - retried <= 0.2 <= due - began, f"it is due {due - began:.2f} s after its start"


@pytest.mark.broken_by(r"waits in \{\}", conf={"task_routes": {}})
def test_the_ordinary_worker_takes_no_task_named_discord(lab):
    """Auth's ordinary worker takes no task whose name begins with `discord.`, not even when it has nothing to do."""
    tasks.announce_attack.delay(1035466617946)
    tasks.update_structure.delay(1035466617946)
    lab.finished(STRUCTURE)
    let_them_take(lab, 0)
    left = lab.waiting()
    lab.redis.delete(SERVICES + "5")
    assert left == {SERVICES + "5": 1}, f"what waits in {left} was left"


@pytest.mark.broken_by(r"it goes after \[[1-9]", conf={"worker_prefetch_multiplier": 2})
def test_with_acks_late_the_worker_holds_only_what_it_runs(lab):
    """Of tasks with `acks_late=True` a worker of five threads takes only five at a time: an urgent task is next."""
    with lab.hold(ASSETS_ACKS_LATE):
        lab.demo("demo_busy_acks_late.py")
        lab.started(ASSETS_ACKS_LATE, 5)
        let_them_take(lab, 5)
        lab.demo("demo_attack.py")
        attacks = lab.waiting()
    lab.settle()
    (attack,) = lab.runs(ATTACK)
    late = lab.runs(ASSETS_ACKS_LATE)
    first = short(before(attack, late))
    assert not first, f"it goes after {first}, which had not begun"
    done = sorted(line for line in logged(lab) if "assets" in line)
    assert done == [f"INFO Updated the assets of {90000001 + number}" for number in range(8)], f"logged {done}"
    assert attacks == {LOW + "1": 1, LOW + "9": 3}, f"beside those that ran {attacks} waited"


@pytest.mark.broken_by(r"the worker holds 1[0-9]", conf={"worker_prefetch_multiplier": 2})
def test_beside_ordinary_tasks_a_worker_holds_tasks_with_acks_late_too(lab):
    """For each ordinary task that runs beside tasks with `acks_late=True`, a worker of five threads takes one more.

    These go before an urgent one: three where three ordinary tasks run.
    """
    with lab.hold(ASSETS), lab.hold(ASSETS_ACKS_LATE):
        for number in range(3):
            tasks.update_assets.delay(90000001 + number)
        for number in range(2):
            tasks.update_assets_acks_late.delay(90000004 + number)
        lab.wait(lambda: sum(run.started is not None for run in lab.runs()) == 5, "the start of five")
        lab.demo("demo_busy_acks_late.py")
        let_them_take(lab, 8)
        holds = len(held(lab.runs()))
        lab.demo("demo_attack.py")
    lab.settle()
    (attack,) = lab.runs(ATTACK)
    first = before(attack, lab.runs(ASSETS_ACKS_LATE))
    assert (holds, len(first)) == (8, 3), f"the worker holds {holds}, and {len(first)} of these go first"


@pytest.mark.broken_by(r"it goes after ([6-9]|10) tasks", conf={"worker_prefetch_multiplier": 2})
def test_an_urgent_task_waits_behind_ten_that_the_worker_holds(lab):
    """Where more wait, Auth's worker holds ten tasks, five that run and five for later.

    An urgent task that is sent then starts only when one of those five has ended too.
    """
    with lab.hold(ASSETS):
        lab.demo("demo_busy.py")
        lab.started(ASSETS, 5)
        let_them_take(lab, 10)
        lab.demo("demo_attack.py")
        waiting = lab.waiting()
    lab.settle()
    (attack,) = lab.runs(ATTACK)
    first = before(attack, lab.runs(ASSETS))
    assert len(first) == 5, f"it goes after {len(first)} tasks that had not begun"
    early = min(run.ended for run in first) - attack.started
    assert early <= 0, f"it started {early} s before the end of the first of them"
    assert waiting == {LOW + "1": 1, LOW + "9": 2}, f"outside the worker {waiting} waited"
    assert "WARNING Structure 1035466617946 is under attack" in logged(lab), f"logged {logged(lab)}"
    assert "INFO Updated the assets of 90000012" in logged(lab), f"logged {logged(lab)}"
    assert current_app.conf.worker_prefetch_multiplier == 1


@pytest.mark.broken_by(r"the receipt of both did not happen", conf={"worker_disable_prefetch": True})
def test_a_countdown_that_ends_overtakes_what_waits_in_redis(lab):
    """A worker keeps a task with a countdown or an eta itself; when due, it overtakes more urgent tasks in Redis."""
    with lab.hold(ASSETS):
        for number in range(5):
            tasks.update_assets.delay(90000031 + number)
        lab.started(ASSETS, 5)
        began = time.time()
        eta = datetime.fromtimestamp(began + 0.45, UTC)
        tasks.update_structure.apply_async(args=[1038457641673], priority=9, eta=eta)
        lab.demo("demo_countdown.py")
        lab.wait(lambda: len(fetched(lab.runs(STRUCTURE))) == 2, "the receipt of both")
        late = priorities_held(lab, STRUCTURE)
        lab.demo("demo_urgent.py")
        let_them_take(lab, 10)
        # What is due is no longer scheduled: it waits for a thread.
        lab.wait(lambda: not any(current_app.control.inspect(limit=1, timeout=5).scheduled().values()), "both are due")
        waiting = lab.waiting()
    lab.settle()
    structures = lab.runs(STRUCTURE)
    due, sent = due_at(lab, "1035466617946"), at(lab, "task-sent", "1035466617946")
    assert due - sent <= 0.45 <= due - began, f"it is due {due - began:.2f} s after the call"
    overtaken = [run for run in lab.runs(ASSETS) if run.started > max(one.started for one in structures)]
    assert overtaken, f"it overtook {len(overtaken)} tasks"
    assert (late, list(waiting)) == ([9, 9], [LOW + "1"]), f"with {late} they overtook what waited in {waiting}"


@pytest.mark.broken_by(r"taken in the order \[", conf=steps(0, 3, 6, 9))
def test_a_busy_worker_takes_zero_first_and_nine_last(lab):
    """A worker of five threads, too, takes 0 first of the tasks that wait, then 1, and 9 last."""
    with lab.hold(ASSETS):
        for number in range(10):
            tasks.update_assets.delay(90000001 + number)
        let_them_take(lab, 10)
        lab.demo("demo_ten.py")
    lab.settle()
    order = short(fetched(lab.runs(STRUCTURE)))
    assert order == list(range(10)), f"they were taken in the order {order}"


@pytest.mark.broken_by(
    r"the end of 8 x .* did not happen",
    file="tasks.py",
    old="def update_structure(structure_id, with_fittings=False):\n",
    new="def update_structure(structure_id, with_fittings=False):\n    from celery import current_app\n"
    "    while 'update_assets' in str(current_app.control.inspect(limit=1, timeout=5).active()):\n"
    "        time.sleep(0.1)\n",
)
def test_with_five_threads_a_later_task_may_end_first(lab):
    """A worker of five threads takes tasks of the same priority in order, but one that was sent later may end first."""
    with lab.hold(ASSETS):
        tasks.update_assets.apply_async(args=[90000000], priority=8)
        for number in range(1, 9):
            tasks.update_structure.apply_async(args=[1035466617940 + number], priority=8)
        lab.finished(STRUCTURE, 8)
        (first,) = lab.runs(ASSETS)
        assert first.ended is None, "the first one was not held"
    lab.settle()
    order = short(fetched(lab.runs()))
    assert order == list(range(9)), f"they were taken in the order {order}"


# ---- with one thread


@pytest.mark.workers({"concurrency": 1})
@pytest.mark.broken_by(
    r"ran in the order \[0, 2, 4, 6, 1",
    file="tasks.py",
    old="@shared_task\ndef update_structure(structure_id, with_fittings=False):\n",
    new="@shared_task(bind=True)\ndef update_structure(self, structure_id, with_fittings=False):\n"
    "    if structure_id % 2 and not self.request.retries:\n        raise self.retry(countdown=0.2)\n",
)
def test_with_one_thread_first_come_is_first_served(lab):
    """One worker of one thread runs tasks of the same priority in the order in which they were sent."""
    with lab.hold(ASSETS):
        tasks.update_assets.delay(90000001)
        lab.started(ASSETS)
        for number in range(8):
            tasks.update_structure.apply_async(args=[1035466617940 + number], priority=8)
    lab.settle()
    order = short(sorted(lab.runs(STRUCTURE), key=lambda run: run.ended))
    assert order == list(range(8)), f"they ran in the order {order}"


@pytest.mark.workers({"concurrency": 1})
@pytest.mark.broken_by(
    r"started \d+\.\d+ s before the end",
    file="tasks.py",
    old="@shared_task\ndef update_assets(character_id):\n",
    new="@shared_task(bind=True)\ndef update_assets(self, character_id):\n"
    "    if not self.request.retries:\n        raise self.retry(countdown=0.5)\n",
)
def test_a_running_task_is_not_interrupted(lab):
    """A task that runs is not interrupted: a more urgent one starts when it has ended."""
    with lab.hold(ASSETS):
        tasks.update_assets.apply_async(args=[90000001], priority=9)
        lab.started(ASSETS)
        lab.demo("demo_attack.py")
        let_them_take(lab, 2)
    lab.settle()
    (attack,), (running,) = lab.runs(ATTACK), lab.runs(ASSETS)
    early = running.ended - attack.started
    assert early <= 0, f"it started {early:.2f} s before the end of the other"
    assert running.ended - running.started >= 0.3, f"the other ran for {running.ended - running.started:.2f} s only"


@pytest.mark.workers({"concurrency": 1, "paused": True})
@pytest.mark.broken_by(r"ran in the order \[", conf=steps(0, 3, 6, 9))
def test_zero_runs_first_and_nine_last(lab):
    """Whatever the order in which they were sent, of the tasks that wait 0 runs first, then 1, and 9 runs last."""
    lab.demo("demo_ten.py")
    lab.resume()
    order = short(lab.finished(STRUCTURE, 10))
    sent = short(sorted(lab.runs(STRUCTURE), key=lambda run: run.sent))
    assert order == list(range(10)), f"they ran in the order {order}"
    lines = [f"INFO Updated structure {1035466617940 + number}, with fittings: False" for number in range(10)]
    assert logged(lab) == lines, f"logged {logged(lab)}"
    colours = {number: "two" if number < 5 else "one" if number == 5 else "three" for number in sent}
    lab.chart(
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
def test_none_and_words_run_before_everything_else(lab):
    """`priority=None` is not the default: it waits with those of 0 and runs before all others; a word does, too."""
    for priority in (9, 1, 0):
        tasks.update_members.apply_async(args=[98000000 + priority], priority=priority)
    lab.demo("demo_no_number.py")
    waiting = lab.waiting()
    lab.resume()
    order = short(lab.finished(MEMBERS, 5))
    assert order == [0, 1, 2, 1, 9], f"they ran in the order {order}"
    assert waiting == {"celery": 3, LOW + "1": 1, LOW + "9": 1}, f"they waited in {waiting}"


# ---- with more or other workers


@pytest.mark.workers({"concurrency": 1, "paused": True}, {"concurrency": 1, "paused": True})
@pytest.mark.broken_by(
    r"did not happen|in the order \[1, 2, 3, 4, 5, 6, 7, 8\]", conf={"worker_disable_prefetch": True}
)
def test_with_two_workers_a_later_task_may_start_first(lab):
    """With two workers of one thread each, a task may start after others of its priority that were sent later."""
    tasks.update_assets.apply_async(args=[90000000], priority=8)
    for number in range(1, 9):
        tasks.update_structure.apply_async(args=[1035466617940 + number], priority=8)
    with lab.hold(ASSETS):
        lab.resume(0)
        let_them_take(lab, 2)
        lab.resume(1)
        lab.finished(STRUCTURE, 7)
    lab.settle()
    order = short(lab.runs(STRUCTURE))
    assert order == [2, 3, 4, 5, 6, 7, 8, 1], f"they started in the order {order}"


@pytest.mark.workers({"concurrency": 1}, {"concurrency": 3}, {"concurrency": 2, "pool": "prefork"})
@pytest.mark.broken_by(r"the workers hold \[3, 9, 6\]", conf={"worker_prefetch_multiplier": 2})
def test_a_worker_holds_twice_as_many_tasks_as_it_runs_at_once(lab):
    """With Auth's prefetch multiplier of 1 a worker holds twice as many ordinary tasks as it runs at once.

    That is so with the pool `threads` as with `prefork`: one thread holds two, three hold six, two processes four.
    """
    with lab.hold(ASSETS):
        for number in range(20):
            tasks.update_assets.delay(90000001 + number)
        let_them_take(lab, 12)
        taken = held(lab.runs(ASSETS))
    lab.settle()
    nodes = [worker.argv[worker.argv.index("-n") + 1] for worker in lab.workers]
    counts = [sum(run.worker == node for run in taken) for node in nodes]
    assert counts == [2, 6, 4], f"the workers hold {counts}"


@pytest.mark.workers({"program": "worker_services"})
@pytest.mark.broken_by(r"the end of 8 x discord.announce_attack did not happen", conf={"task_routes": {}})
def test_the_services_worker_takes_the_tasks_named_discord_and_no_others(lab):
    """Auth's second worker, `worker_services`, has one thread; it takes the tasks named `discord.…`, and no others."""
    tasks.update_structure.apply_async(args=[1035466617946], priority=1)
    for number in range(8):
        tasks.announce_attack.delay(1035466617940 + number)
    lab.finished(ANNOUNCE, 8)
    let_them_take(lab, 0)
    left = lab.waiting()
    (stats,) = current_app.control.inspect(limit=1, timeout=5).stats().values()
    lines = [f"INFO Announced the attack on structure {1035466617940 + number}" for number in range(8)]
    assert logged(lab) == lines, f"logged {logged(lab)}"
    assert left == {LOW + "1": 1}, f"it left {left}"
    assert stats["pool"]["max-concurrency"] == 1, f"its pool is {stats['pool']}"


# ---- overuse


@pytest.mark.workers({"paused": True})
@pytest.mark.broken_by(
    r"[1-5] structures came before", file="tasks.py", old="rounds - 1], priority=1)", new="rounds - 1], priority=9)"
)
def test_a_steady_flow_of_priority_one_starves_nine(lab):
    """While tasks of priority 1 keep coming to a worker of five threads, no task of priority 9 runs.

    Twelve fleets are followed, and the tasks of priority 9 were sent first.
    """
    lab.demo("demo_starvation.py")
    waiting = lab.waiting()
    lab.resume()
    lab.settle()
    order = fetched(lab.runs())
    names = [run.name for run in order]
    first = {run.name for run in sorted(order, key=lambda run: run.sent)[:5]}
    # From here on one fleet has no next round: the flow is no longer what it was.
    last = next(place for place, run in enumerate(order) if run.name == FLEET and run.args.endswith(" 1]"))
    came = names[:last].count(STRUCTURE)
    assert came == 0, f"{came} structures came before the end of the flow"
    assert (names.count(FLEET), names.count(STRUCTURE)) == (36, 5), f"{names} ran"
    assert first == {STRUCTURE}, f"the first five were {first}"
    assert waiting == {LOW + "1": 12, LOW + "9": 5}, f"at first {waiting} waited"
    rounds = [f"INFO Fleet {1108600000001 + fleet}, {left} rounds to go" for fleet in range(12) for left in range(3)]
    assert sorted(line for line in logged(lab) if "Fleet" in line) == rounds, f"logged {logged(lab)}"
    shortest = min(run.ended - run.started for run in order if run.name == FLEET)
    assert shortest >= 0.05, f"a round took {shortest:.3f} s"
    urgent, late = lab.runs(FLEET), lab.runs(STRUCTURE)
    began = urgent[0].started
    spans = {run.id: (run.started - began, run.ended - began) for run in [*urgent, *late]}
    rows = [("priority 1", "", *spans[run.id], "one") for run in urgent]
    for run in late:
        rows.append(("priority 9", "", 0, spans[run.id][0], "wait"))
        rows.append(("priority 9", "", *spans[run.id], "two"))
    lab.chart(
        "starvation",
        "timeline",
        rows,
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
def test_task_inherit_parent_priority_reaches_links_but_no_started_tasks(lab, monkeypatch):
    """With `task_inherit_parent_priority`, which Auth leaves off, links inherit; what a task starts does not."""
    assert current_app.conf.task_inherit_parent_priority is False
    # The worker takes over what this process has set.
    monkeypatch.setitem(current_app.conf, "task_inherit_parent_priority", True)
    lab.start_worker()
    lab.demo("demo_chain.py")
    lab.settle()
    links = arrived(lab)
    assert links == [7, 7, 7], f"the links came with {links}"
    lab.demo("demo_inside.py")
    lab.settle()
    started = arrived(lab, skip=3)
    assert started == [7, 5, 5], f"the started tasks came with {started}"


@pytest.mark.workers
@pytest.mark.broken_by(
    r"it goes after [1-9]\d* tasks", file="demo_busy.py", old="priority=9)", new="priority=9, countdown=0.1)"
)
def test_without_prefetch_an_urgent_task_is_next(lab, monkeypatch):
    """With `worker_disable_prefetch`, which Auth leaves off, a worker of five threads takes no more than it runs.

    That is so for tasks without a countdown; an urgent one is next, then.
    """
    assert current_app.conf.worker_disable_prefetch is False
    monkeypatch.setitem(current_app.conf, "worker_disable_prefetch", True)
    lab.start_worker()
    with lab.hold(ASSETS):
        lab.demo("demo_busy.py")
        lab.started(ASSETS, 5)
        let_them_take(lab, 5)
        lab.demo("demo_attack.py")
        waiting = lab.waiting()
    lab.settle()
    (attack,) = lab.runs(ATTACK)
    first = before(attack, lab.runs(ASSETS))
    assert not first, f"it goes after {len(first)} tasks that had not begun"
    assert waiting == {LOW + "1": 1, LOW + "9": 7}, f"outside the worker {waiting} waited"


@pytest.mark.workers
@pytest.mark.broken_by(r"the second start of .* did not happen", conf=steps(*range(10), visibility_timeout=3600))
def test_with_acks_late_a_task_longer_than_the_visibility_timeout_starts_again(lab, monkeypatch):
    """A task with `acks_late=True` that outlasts the visibility timeout starts again while it runs.

    One without does not. Measured on a single worker of five threads, with a timeout of one second instead of one hour.
    """
    impatient = {"visibility_timeout": 1, "unacked_restore_interval": 0.5, "unacked_restore_throttle": 1}
    by_auth = current_app.conf.broker_transport_options
    monkeypatch.setitem(current_app.conf, "broker_transport_options", {**impatient, **by_auth})
    lab.start_worker()

    def starts():
        begun = [event["uuid"] for event in lab.events if event["type"] == "task-started"]
        return {run.name: begun.count(run.id) for run in lab.runs()}

    with lab.hold(ASSETS), lab.hold(ASSETS_ACKS_LATE):
        tasks.update_assets.delay(90000001)
        tasks.update_assets_acks_late.delay(90000002)
        lab.wait(lambda: starts().get(ASSETS_ACKS_LATE, 0) > 1, f"the second start of {ASSETS_ACKS_LATE}")
    lab.settle()
    assert starts()[ASSETS] == 1, f"the one without started {starts()[ASSETS]} times"
    assert (Channel.visibility_timeout, "visibility_timeout" in by_auth) == (3600, False), "it is not an hour"
