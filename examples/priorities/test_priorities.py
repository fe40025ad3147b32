import base64
import json
import re
import runpy
import warnings

import pytest
from allianceauth.eveonline.models import EveCharacter, EveCorporationInfo
from allianceauth.eveonline.tasks import run_model_update
from celery import current_app

from priorities import tasks

ASSETS = "priorities.tasks.update_assets"
ASSETS_ACKS_LATE = "priorities.tasks.update_assets_acks_late"
ATTACK = "priorities.tasks.report_attack"
CONTRACTS = "priorities.tasks.update_contracts"
FLEET = "priorities.tasks.follow_fleet"
STRUCTURE = "priorities.tasks.update_structure"
# The steps of kombu, which Alliance Auth replaces by ten.
FOUR_STEPS = {"broker_transport_options": {"priority_steps": [0, 3, 6, 9], "queue_order_strategy": "priority"}}
LOW = "celery\x06\x16"


def lists(lab):
    """Return the number of the list in which each message waits, 0 for `celery`, in the order of the corporations."""
    found = []
    for key in lab.waiting():
        for raw in lab.redis.lrange(key, 0, -1):
            args = json.loads(base64.b64decode(json.loads(raw)["body"]))[0]
            found.append((args, int(key.removeprefix(LOW)) if key.startswith(LOW) else 0))
    return [number for _, number in sorted(found)]


def arrived(lab):
    """Return the priorities with which the tasks say that they came, in the order of their log lines."""
    return [int(found) for found in re.findall(r"with priority (-?\d+)\n", lab.log_file("extensions.log"))]


def short(runs):
    """Return the last digits of each task's first argument, which tell it from the others."""
    return [int(re.match(r"[(\[](\d+)", run.args)[1]) % 10 for run in runs]


def held(runs):
    """Return how many of the runs the worker has taken from Redis and not ended."""
    return sum(run.received is not None and run.ended is None for run in runs)


def let_it_take_more():
    """Give the worker its chance: if it wanted more tasks, it would take them before it answered the last ping."""
    for _ in range(3):
        assert current_app.control.ping(timeout=5, limit=1)


def waited_for(urgent, runs):
    """Return how many of the runs did not run yet when the urgent one was sent, but ran before it."""
    return sum(run.started is not None and urgent.sent < run.started < urgent.started for run in runs)


def fetched(runs):
    """Return the runs in the order in which the worker took them from Redis and gave them to its threads."""
    return sorted((run for run in runs if run.received is not None), key=lambda run: run.received)


# ---- without a worker: where the messages wait


@pytest.mark.workers
@pytest.mark.broken_by(r"waits in \{'celery\\x06\\x165': 1\}", file="demo.py", old="priority=3,", new="")
@pytest.mark.broken_by(r"the message holds", file="demo.py", old='"with_fittings": True', new="")
def test_apply_async_takes_the_arguments_as_a_list_and_a_dictionary(lab):
    """`apply_async` takes the task's arguments as `args`, a list, and `kwargs`, a dictionary, beside `priority`."""
    lab.demo()
    assert lab.waiting() == {LOW + "3": 1}, f"it waits in {lab.waiting()}"
    args, kwargs, _ = json.loads(base64.b64decode(json.loads(lab.redis.lindex(LOW + "3", 0))["body"]))
    assert [args, kwargs] == [[1035466617946], {"with_fittings": True}], f"the message holds {args} and {kwargs}"


@pytest.mark.workers
@pytest.mark.broken_by(r"waits in \{'celery\\x06\\x163': 1\}", conf={"task_default_priority": 3})
def test_a_task_without_a_priority_gets_five(lab):
    """A task that is started without a priority gets 5, Alliance Auth's default."""
    lab.demo("demo_default.py")
    assert lab.waiting() == {LOW + "5": 1}, f"it waits in {lab.waiting()}"


@pytest.mark.workers
@pytest.mark.broken_by(r"wait in \{.*'celery\\x06\\x166': 3", conf=FOUR_STEPS)
def test_each_priority_has_a_redis_list_of_its_own(lab):
    r"""Each priority has a Redis list of its own: `celery` for 0, and `celery\x06\x16` with the number for 1 to 9."""
    lab.demo("demo_ten.py")
    expected = {"celery": 1} | {f"{LOW}{number}": 1 for number in range(1, 10)}
    assert lab.waiting() == expected, f"they wait in {lab.waiting()}"


@pytest.mark.workers
@pytest.mark.broken_by(
    r"printed ''", file="demo_delay.py", old="delay(1035466617946, ", new="apply_async([1035466617946], "
)
@pytest.mark.broken_by(r"printed ''", file="tasks.py", old="with_fittings=False", new="with_fittings=False, **options")
def test_delay_cannot_take_a_priority(lab, capsys):
    """`delay(…, priority=3)` hands the priority to the function: TypeError at the call, and nothing is sent."""
    lab.demo("demo_delay.py")
    printed = capsys.readouterr().out
    assert printed == "update_structure() got an unexpected keyword argument 'priority'\n", f"it printed {printed!r}"
    assert lab.waiting() == {}, "something was sent"


@pytest.mark.workers
@pytest.mark.broken_by(r"printed ''", file="demo_bare_argument.py", old="(1035466617946,", new="([1035466617946],")
def test_a_bare_id_instead_of_a_list_raises_at_the_call(lab, capsys):
    """`apply_async` with a bare id where the list of arguments belongs raises TypeError at the call."""
    lab.demo("demo_bare_argument.py")
    printed = capsys.readouterr().out
    assert printed.endswith("argument after * must be an iterable, not int\n"), f"it printed {printed!r}"
    assert lab.waiting() == {}, "something was sent"


@pytest.mark.workers
@pytest.mark.broken_by(r"the lists \[0, 6, 6\]", conf={"broker_transport_options": {"priority_steps": [0, 3, 6]}})
@pytest.mark.broken_by(r"the lists \[1, 9, 9\]", file="demo_out_of_range.py", old="-1,", new="1,")
def test_below_zero_counts_as_zero_and_above_nine_as_nine(lab):
    """A number out of range raises nothing: -1 waits with those of 0, and 10 and 100 with those of 9."""
    lab.demo("demo_out_of_range.py")
    assert lists(lab) == [0, 9, 9], f"they wait in the lists {lists(lab)}"


@pytest.mark.workers
@pytest.mark.broken_by(r"the lists \[5, 0\]", file="demo_no_number.py", old="(None,", new="(5,")
@pytest.mark.broken_by(
    r"the lists \[5, 5\]",
    file="demo_no_number.py",
    old=", priority=priority",
    new=", **({'priority': priority} if isinstance(priority, int) else {})",
)
def test_none_and_words_run_before_everything_else(lab):
    """`priority=None` is not the default: it waits with those of 0, before all others, and so does a word."""
    lab.demo("demo_no_number.py")
    assert lists(lab) == [0, 0], f"they wait in the lists {lists(lab)}"


@pytest.mark.workers
@pytest.mark.broken_by(r"the lists \[4, 3\]", file="demo_nearly_a_number.py", old='"3"', new='"4"')
@pytest.mark.broken_by(r"the lists \[3, 4\]", file="demo_nearly_a_number.py", old="3.9", new="round(3.9)")
def test_digits_count_as_their_number_and_a_fraction_is_cut_off(lab):
    """The text `"3"` counts as 3, and so does 3.9, whose fraction is cut off."""
    lab.demo("demo_nearly_a_number.py")
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


@pytest.mark.workers
@pytest.mark.broken_by(
    r"waits in \{'celery\\x06\\x162': 1, 'celery\\x06\\x165': 1\}",
    file="demo_group.py",
    old="apply_async(priority=7)",
    new="delay()",
)
def test_a_group_gives_its_priority_to_each_of_its_tasks(lab):
    """A group gives its priority to each of its tasks, also to one whose signature names another."""
    lab.demo("demo_group.py")
    assert lab.waiting() == {LOW + "7": 2}, f"it waits in {lab.waiting()}"


@pytest.mark.workers
@pytest.mark.broken_by(r"wait in \{'auth.*': 2", conf={"task_routes": {"allianceauth.*": {"queue": "auth"}}})
@pytest.mark.broken_by(
    r"wait in \{'celery\\x06\\x165': 1, 'celery\\x06\\x167': 2\}", file="demo_seven.py", old=", priority=7", new=""
)
def test_auths_own_update_waits_in_the_same_list_as_the_tasks_of_apps(lab):
    """Auth's own update of corporations and characters has priority 7 and waits in the same list as tasks of apps."""
    EveCorporationInfo.objects.create(corporation_id=98000001, corporation_name="Corporation", member_count=1)
    EveCharacter.objects.create(character_id=90000001, character_name="Character", corporation_id=98000001)
    run_model_update()
    lab.demo("demo_seven.py")
    assert lab.waiting() == {LOW + "7": 3}, f"they wait in {lab.waiting()}"


# ---- with Alliance Auth's worker


@pytest.mark.broken_by(r"came with \[5, 7\]", file="tasks.py", old="bind=True, priority=3", new="bind=True")
@pytest.mark.broken_by(r"came with \[3, 3\]", file="demo_decorator.py", old=", priority=7", new="")
def test_apply_async_overrides_the_priority_of_the_decorator(lab):
    """`@shared_task(priority=3)` gives each start priority 3, with `delay()` too; `apply_async` overrides it."""
    lab.demo("demo_decorator.py")
    lab.finished("priorities.tasks.update_timers", 2)
    came = sorted(arrived(lab))
    assert came == [3, 7], f"they came with {came}"


@pytest.mark.broken_by(
    r"came with \[7, 7, 7\]", file="demo_chain.py", old="(number) for", new="(number).set(priority=7) for"
)
@pytest.mark.broken_by(r"came with \[7, 3, 3\]", conf={"task_default_priority": 3})
def test_a_chain_gives_its_priority_to_its_first_link_only(lab):
    """`chain(…).apply_async(priority=7)` is for the first link only: all others run with the default."""
    lab.demo("demo_chain.py")
    lab.finished("priorities.tasks.update_members", 3)
    assert arrived(lab) == [7, 5, 5], f"the links came with {arrived(lab)}"


@pytest.mark.broken_by(r"came with \[5, 5, 5\]", file="demo_links.py", old=".set(priority=7)", new="")
def test_a_link_keeps_the_priority_of_its_signature(lab):
    """A link whose signature has a priority, `.si(…).set(priority=7)`, runs with it."""
    lab.demo("demo_links.py")
    lab.finished("priorities.tasks.update_members", 3)
    assert arrived(lab) == [7, 7, 7], f"the links came with {arrived(lab)}"


@pytest.mark.broken_by(r"came with \[2, 2, 2\]", file="demo_both.py", old="apply_async(priority=7)", new="delay()")
@pytest.mark.broken_by(r"came with \[7, 5, 5\]", file="demo_both.py", old=".set(priority=2)", new="")
def test_a_priority_on_the_chain_replaces_that_of_the_first_signature(lab):
    """Where chain and signatures name a priority, the chain's counts for the first link, theirs for the others."""
    lab.demo("demo_both.py")
    lab.finished("priorities.tasks.update_members", 3)
    assert arrived(lab) == [7, 2, 2], f"the links came with {arrived(lab)}"


@pytest.mark.broken_by(
    r"came with \[7, 7\]",
    file="demo_inside.py",
    old="import update_alliance",
    new="import update_alliance_as_called as update_alliance",
)
def test_a_task_started_inside_a_task_gets_the_default(lab):
    """What a task starts does not inherit its priority: it gets the default."""
    lab.demo("demo_inside.py")
    lab.finished("priorities.tasks.update_members", 2)
    assert arrived(lab) == [5, 5], f"they came with {arrived(lab)}"


@pytest.mark.broken_by(r"came with \[5, 5\]", file="tasks.py", old=", priority=priority)", new=")")
def test_a_task_can_hand_its_own_priority_on(lab):
    """A bound task finds its priority in `self.request.delivery_info` and can hand it on."""
    lab.demo("demo_handed_on.py")
    lab.finished("priorities.tasks.update_members", 2)
    assert arrived(lab) == [7, 7], f"they came with {arrived(lab)}"


@pytest.mark.broken_by(
    r"came with \[7, 5\]",
    file="tasks.py",
    old='raise ConnectionError("ESI is down")',
    new="raise self.retry(priority=5)",
)
def test_a_retry_keeps_the_priority(lab):
    """A retry keeps the priority with which the task was started."""
    lab.demo("demo_retry.py")
    lab.settle()
    assert arrived(lab) == [7, 7], f"the attempts came with {arrived(lab)}"


@pytest.mark.broken_by(r"waited for [123] tasks", file="tasks.py", old="acks_late=True", new="acks_late=False")
def test_with_acks_late_the_worker_holds_only_what_it_runs(lab):
    """Of tasks with `acks_late=True` the worker takes no more than it can run: an urgent one is next."""
    lab.demo("demo_busy_acks_late.py")
    lab.started(ASSETS_ACKS_LATE, 5)
    let_it_take_more()
    lab.demo("demo_attack.py")
    (attack,) = lab.finished(ATTACK)
    waited = waited_for(attack, lab.runs(ASSETS_ACKS_LATE))
    assert waited == 0, f"it waited for {waited} tasks that did not run yet when it was sent"
    lab.finished(ASSETS_ACKS_LATE, 8)


@pytest.mark.broken_by(r"waited for [67] tasks", conf={"worker_prefetch_multiplier": 2})
def test_an_urgent_task_waits_behind_ten_that_the_worker_holds(lab):
    """Auth's worker holds ten tasks, five that run and five for later: an urgent one waits for those five too."""
    lab.demo("demo_busy.py")
    lab.wait(lambda: held(lab.runs(ASSETS)) >= 10, "the receipt of ten tasks")
    let_it_take_more()
    lab.demo("demo_attack.py")
    (attack,) = lab.finished(ATTACK)
    waited = waited_for(attack, lab.runs(ASSETS))
    assert waited == 5, f"it waited for {waited} tasks that did not run yet when it was sent"


# ---- with one thread


@pytest.mark.workers({"concurrency": 1, "paused": True})
@pytest.mark.broken_by(r"ran in the order \[", conf=FOUR_STEPS)
@pytest.mark.broken_by(r"ran in the order \[5, 9, 0", file="demo_ten.py", old="priority=priority", new="priority=5")
def test_zero_runs_first_and_nine_last(lab):
    """Whatever the order in which they were sent, of the tasks that wait 0 runs first, then 1, and 9 runs last."""
    lab.demo("demo_ten.py")
    lab.resume()
    order = short(lab.finished(STRUCTURE, 10))
    sent = short(sorted(lab.runs(STRUCTURE), key=lambda run: run.sent))
    lab.record(sent=sent, ran=order)
    assert order == list(range(10)), f"they ran in the order {order}"


@pytest.mark.workers({"concurrency": 1})
@pytest.mark.broken_by(r"ran in the order \[0, 7, 6", file="demo_same.py", old="priority=8", new="priority=8 - number")
def test_within_a_priority_first_come_is_first_served(lab):
    """Tasks of the same priority run in the order in which they were sent."""
    # It keeps the only thread busy until all are sent.
    tasks.update_assets.apply_async(args=[90000001], priority=9)
    lab.started(ASSETS)
    lab.demo("demo_same.py")
    order = short(lab.finished(STRUCTURE, 8))
    assert order == list(range(8)), f"they ran in the order {order}"


@pytest.mark.workers({"concurrency": 1})
@pytest.mark.broken_by(
    r"started 0\.\d+ s before the end",
    file="tasks.py",
    old="@shared_task\ndef update_assets(character_id, pages=3):\n",
    new="@shared_task(bind=True)\ndef update_assets(self, character_id, pages=3):\n"
    "    if not self.request.retries:\n        raise self.retry(countdown=0.2)\n",
)
def test_a_running_task_is_not_interrupted(lab):
    """A task that runs is not interrupted: a more urgent one starts when it has ended."""
    tasks.update_assets.apply_async(args=[90000001], priority=9)
    lab.started(ASSETS)
    lab.demo("demo_attack.py")
    (attack,) = lab.finished(ATTACK)
    (running,) = lab.finished(ASSETS)
    early = running.ended - attack.started
    assert early <= 0, f"it started {early:.2f} s before the end of the other"


@pytest.mark.workers({"concurrency": 1})
@pytest.mark.broken_by(
    r"it overtook 0 tasks",
    file="demo_countdown.py",
    old="import update_assets, update_structure\n",
    new="import update_assets, update_structure\n\n"
    "for number in range(3):\n    update_assets.apply_async(args=[number], priority=1)\n",
)
def test_a_countdown_that_ends_overtakes_what_waits_in_redis(lab):
    """A worker keeps a task with a countdown itself; when due, it overtakes more urgent tasks that wait in Redis."""
    lab.demo("demo_countdown.py")
    (structure,) = lab.finished(STRUCTURE)
    # Counted from before the call: the event that tells of the sending comes a little later than the countdown's start.
    assert structure.started >= 0.45, "it did not wait for its countdown"
    assets = lab.runs(ASSETS)
    overtaken = sum(run.started is None or run.started > structure.started for run in assets)
    assert overtaken >= 1, f"it overtook {overtaken} tasks"


# ---- overuse


@pytest.mark.workers({"paused": True})
@pytest.mark.broken_by(
    r"\d+ fleets' rounds were left", file="tasks.py", old="rounds - 1], priority=1)", new="rounds - 1], priority=9)"
)
def test_a_steady_flow_of_priority_one_starves_nine(lab):
    """While tasks of priority 1 keep coming, none of the tasks of priority 9 that were sent before them runs."""
    lab.demo("demo_starvation.py")
    lab.resume()
    lab.finished(STRUCTURE, 5)
    lab.finished(FLEET, 36)
    order = [run.name for run in fetched(lab.runs())]
    left = order[order.index(STRUCTURE) :].count(FLEET)
    lab.record(priorities={FLEET: 1, STRUCTURE: 9})
    assert left == 0, f"{left} fleets' rounds were left when the first structure's turn came"


# ---- another setting


@pytest.mark.workers
@pytest.mark.broken_by(r"the links came with \[5, 5, 5\]", file="demo_chain.py", old="priority=7", new="")
@pytest.mark.broken_by(
    r"the started tasks came with \[7, 7\]",
    file="demo_inside.py",
    old="import update_alliance",
    new="import update_alliance_as_called as update_alliance",
)
def test_task_inherit_parent_priority_reaches_links_but_no_started_tasks(lab):
    """With `task_inherit_parent_priority`, which Auth leaves off, links inherit; what a task starts does not."""
    assert current_app.conf.task_inherit_parent_priority is False
    # The worker takes over what this process has set.
    current_app.conf.update(task_inherit_parent_priority=True)
    try:
        lab.start_worker()
    finally:
        current_app.conf.update(task_inherit_parent_priority=False)
    lab.demo("demo_chain.py")
    lab.settle()
    links = arrived(lab)
    assert links == [7, 7, 7], f"the links came with {links}"
    lab.demo("demo_inside.py")
    lab.settle()
    started = arrived(lab)[3:]
    assert started == [5, 5], f"the started tasks came with {started}"
