import datetime as dt
import json
import signal
import time
from base64 import b64decode
from itertools import pairwise
from statistics import median

import pytest
from allianceauth.authentication.task_statistics.counters import dashboard_results
from celery import chain, chord, current_app, group
from esi.tasks import cleanup_callbackredirect

from chains.tasks import (
    fetch_structures,
    note_failure,
    report_end,
    show_options,
    update_contracts,
    update_corporation,
    update_in_a_chain,
    update_wallet,
)

CHAIN = "chains.tasks.update_in_a_chain"
CONTRACTS = "chains.tasks.update_contracts"
CORPORATION = "chains.tasks.update_corporation"
END = "chains.tasks.report_end"
LOOP = "chains.tasks.update_in_a_loop"
FAILURE = "chains.tasks.note_failure"
OPTIONS = "chains.tasks.show_options"
STARMAP = "celery.starmap"
WALLET = "chains.tasks.update_wallet"
PRIORITY_5 = "celery\x06\x165"
SIX = [98000001, 98000002, 98000003, 98000004, 98000005, 98000006]
# The chart that two claims are drawn in.
AGAINST = "chain_against_loop"
NO_CHORDS = "Starting chords requires a result backend to be configured."
AS_A_LOOP = {
    "file": "tasks.py",
    "old": "    chain(links).delay()",
    "new": "    for link in links:\n        link.delay()",
}
AS_ONE_TASK = {"file": "tasks.py", "old": "    chain(links).delay()", "new": "    chain(links).apply()"}
NEVER_FAILS = {"file": "tasks.py", "old": "raise ValueError(", "new": "logger.error("}
CHORDS_WORK = {"conf": {"result_backend": "cache+memory://"}}
INHERITED = {"conf": {"task_inherit_parent_priority": True}}


def ran(rig, name=None):
    """The tasks that started, each as its short name and its end."""
    return [f"{run.name.rpartition('.')[2]} {run.state}" for run in rig.runs(name) if run.started is not None]


def number(run):
    """The corporation that a run is for; events show the arguments of a later link as a list."""
    return int(run.args.strip("()[],"))


def due(rig):
    """When the one task that was told to wait was due to run, in seconds since the epoch."""
    (when,) = {event["eta"] for event in rig.events if event.get("eta")}
    return dt.datetime.fromisoformat(when).timestamp()


def gaps(runs):
    """Seconds between the starts of one task and the next."""
    starts = sorted(run.started for run in runs)
    return [round(later - earlier, 2) for earlier, later in pairwise(starts)]


def held(rig, demo, name, count):
    """Run `demo` with its tasks called `name` held: how many of them run, once `count` do, and how many wait."""
    before = len(rig.runs(name))
    with rig.hold(name):
        rig.demo(demo)
        rig.started(name, before + count, timeout=5)
        # Those that send the others have sent all of them.
        rig.wait(lambda: all(run.ended for run in rig.runs() if run.name != name), "the end of the other tasks")
        runs = rig.runs(name)[before:]
        running = sum(run.started is not None for run in runs)
    rig.settle()
    return f"{running} run, {len(runs) - running} wait"


def body(message):
    """What a message carries: the task's arguments, its keyword arguments, and what comes after it."""
    return json.loads(b64decode(json.loads(message)["body"]))


def assert_nothing_was_sent(rig):
    """A task that is sent now is the only one."""
    sentinel = update_wallet.delay(98000001)
    rig.finished(WALLET)
    assert [run.id for run in rig.settle()] == [sentinel.id], "the call sent a message"


def fail_with_the_wrong_link_error(rig):
    """Run a chain whose second link fails; return that link's run. The worker has one thread."""
    before = len(rig.runs(WALLET))
    rig.demo("demo_wrong_link_error.py")
    *_, link = rig.started(WALLET, before + 2)
    # The only thread runs it when it is done with the link.
    after = update_wallet.delay(98000001)
    rig.wait(lambda: after.id in [run.id for run in rig.runs() if run.ended], "the end of the task after it")
    assert number(link) == 1000035
    return link


def failures():
    """How many failed tasks Auth's dashboard counts."""
    return dashboard_results(hours=1).failed


def bars(group, runs, colour):
    """The bars of one chart of two claims: what ran when, from the first start on."""
    began = runs[0].started
    spans = [(run.started - began, run.ended - began) for run in runs]
    return [(group, str(number), *span, colour) for number, span in enumerate(spans, 1)]


@pytest.mark.broken_by(
    r"the start of 11 x",
    file="tasks.py",
    old="    for corporation_id in corporation_ids:\n        update_corporation.delay(corporation_id)",
    new="    update_in_a_chain(corporation_ids)",
)
def test_a_loop_of_delay_runs_five_at_once(rig):
    """A loop of `.delay()` fills all five threads of the worker: five of the tasks run at once, the sixth waits."""
    six = rig.finished(CORPORATION, 6, after="demo_loop.py")
    rig.same(sorted(rig.logged()), [f"INFO Updated corporation {pk}" for pk in SIX], "done {}")
    assert ran(rig, LOOP) == ["update_in_a_loop succeeded"]
    rig.same(held(rig, "demo_loop.py", CORPORATION, 5), "5 run, 1 wait", "{}")
    tasks = rig.runs(CORPORATION)[6:]
    assert "--concurrency=5" in rig.workers[0].argv
    assert tasks[5].started >= min(task.ended for task in tasks[:5]), "the sixth did not wait"
    first_end = min(task.ended for task in six)
    together = sum(task.started < first_end for task in six)
    rig.chart(AGAINST, "timeline", bars("a loop of .delay()", six, "two"), values={"together": together})


@pytest.mark.broken_by(r"starts \[.*0\.0|done \[", **AS_A_LOOP)
def test_a_chain_runs_its_links_in_order_one_at_a_time(rig):
    """A chain runs its links in order and one at a time, although the worker has five threads."""
    links = rig.finished(CORPORATION, 6, after="demo.py")
    assert "--concurrency=5" in rig.workers[0].argv
    assert ran(rig, CHAIN) == ["update_in_a_chain succeeded"]
    rig.same(rig.logged(), [f"INFO Updated corporation {pk}" for pk in SIX], "done {}")
    between = gaps(links)
    assert min(between) >= 0.24, f"seconds between starts {between}"
    assert [link.parent for link in links[1:]] == [link.id for link in links[:-1]], "a link was not sent by the last"
    took = [link.ended - link.started for link in links]
    rig.chart(
        AGAINST,
        "timeline",
        bars("a chain", links, "one"),
        values={"count": len(links), "seconds": f"{median(took):.2f}"},
    )


@pytest.mark.broken_by(
    r"Auth's task did not wait|the start of 5 x",
    file="tasks.py",
    old="    for corporation_id in corporation_ids:\n        update_corporation.delay(corporation_id)",
    new="    update_in_a_chain(corporation_ids)",
)
def test_all_apps_wait_while_a_loop_fills_the_threads(rig):
    """While a loop's tasks fill the worker's five threads, the tasks of other apps wait, Auth's own too."""
    with rig.hold(CORPORATION):
        rig.demo("demo_loop.py")
        loop = rig.started(CORPORATION, 5, timeout=5)
        cleanup_callbackredirect.delay()
    rig.settle()
    (other,) = rig.runs("esi.tasks.cleanup_callbackredirect")
    five = [run for run in rig.runs(CORPORATION) if run.id in {run.id for run in loop}]
    assert other.started >= min(run.ended for run in five), "Auth's task did not wait"


@pytest.mark.broken_by(
    r"the end of 2 x chains.tasks.update_in_a_chain", **{**AS_A_LOOP, "new": "    chain(links).apply()"}
)
def test_a_task_that_starts_a_chain_does_not_wait_for_it(rig):
    """A task that builds a chain and starts it ends while the chain's first link still runs."""
    with rig.hold(CORPORATION):
        rig.finished(CHAIN, 2, timeout=5, after="demo_twice.py")
        assert not any(link.ended for link in rig.started(CORPORATION, 2)), "the links had ended before"
    rig.settle()


@pytest.mark.broken_by(
    r"the start of 2 x",
    file="tasks.py",
    old="    chain(links).delay()",
    new="    from django.core.cache import cache\n    if cache.add('running', True):\n        chain(links).delay()",
)
def test_a_chain_started_again_runs_beside_the_first(rig):
    """A chain that is started again while it runs does not wait: both run side by side."""
    rig.same(held(rig, "demo_twice.py", CORPORATION, 2), "2 run, 0 wait", "{}")
    started = sorted(number(run) for run in rig.runs(CORPORATION))
    rig.same(started, [98000001, 98000001, 98000002, 98000002], "started {}")


@pytest.mark.broken_by(
    r"structures None", file="demo_result.py", old="update_structures.s(98", new="update_structures.si(None, 98"
)
def test_s_hands_the_result_of_the_link_before_on(rig):
    """A link made with `s()` gets what the link before it returned, as its first argument."""
    rig.settle(after="demo_result.py")
    rig.same(rig.logged(), ["INFO Updated the structures [1035466617946, 1038457641673] of 98000001"], "given {}")


@pytest.mark.broken_by(r"update_corporation failed", file="tasks.py", old="corporation.si(", new="corporation.s(")
def test_si_drops_the_result_of_the_link_before(rig):
    """A link made with `si()` gets its own arguments only; what the link before it returned is dropped."""
    update_in_a_chain(SIX[:2])
    chain(fetch_structures.si(98000001), update_wallet.si(98000001)).delay()
    rig.settle()
    done = sorted(ran(rig))
    rig.same(
        done, ["fetch_structures succeeded", *["update_corporation succeeded"] * 2, "update_wallet succeeded"], "ran {}"
    )
    assert "INFO Updated the wallet of 98000001" in rig.logged()


@pytest.mark.broken_by(
    r"update_wallet succeeded",
    file="demo_wrong_link.py",
    old="update_wallet.s(",
    new="update_wallet.si(",
)
def test_a_link_that_can_not_take_the_result_fails_the_link_before_it(rig):
    """When a link made with `s()` can't take the result, the link before it fails, with its work done; no more runs."""
    rig.settle(after="demo_wrong_link.py")
    rig.same(ran(rig), ["update_wallet failed"], "ran {}")
    assert rig.logged() == ["INFO Updated the wallet of 98000001"], "the work of the first link was not done"
    assert "TypeError('update_wallet() takes 1 positional argument but 2 were given')" in rig.printed(rig.workers[0])


@pytest.mark.broken_by(r"'update_wallet succeeded', 'update_wallet succeeded'", **NEVER_FAILS)
def test_a_failed_link_stops_the_rest_of_the_chain(rig):
    """A link that raises ends the chain: the links after it never run, those before it stay done."""
    rig.settle(after="demo_failing.py")
    rig.same(ran(rig, WALLET), ["update_wallet succeeded", "update_wallet failed"], "ran {}")
    assert rig.logged()[0] == "INFO Updated the wallet of 98000001"
    assert "INFO Updated the wallet of 98000003" not in rig.logged()


@pytest.mark.broken_by(r"runs 2 times", file="demo_failing.py", old="note_failure.s()", new="None")
def test_link_error_of_the_chain_runs_once_with_the_id_of_the_failed_link(rig):
    """`link_error` given to the chain is for every link: one task, once, with the id of the link that failed."""
    rig.demo("demo_failing.py")
    for bad in (0, 2):
        links = [update_wallet.si(1000035 if place == bad else 98000001) for place in range(3)]
        chain(links).apply_async(link_error=note_failure.s())
    rig.settle()
    callbacks = rig.runs(FAILURE)
    assert len(callbacks) == 3, f"for three chains link_error runs {len(callbacks)} times"
    failed = [run.id for run in rig.runs(WALLET) if run.state == "failed"]
    assert sorted(run.args for run in callbacks) == sorted(f"('{link}',)" for link in failed)
    assert {run.state for run in callbacks} == {"succeeded"}
    assert rig.logged().count("WARNING A link failed") == 3


@pytest.mark.broken_by(
    r"runs [23] times",
    file="demo_link_error.py",
    old="watched).delay()",
    new="watched).apply_async(link_error=note_failure.s())",
)
def test_link_error_of_a_link_runs_for_that_link_only(rig):
    """`link_error` given to one link (`on_error`) runs when that link fails, not when one before it fails."""
    rig.settle(after="demo_link_error.py")
    rig.same(
        {number(run): run.state for run in rig.runs(WALLET)},
        {98000001: "succeeded", 1000035: "failed", 1000044: "failed"},
        "ran {}",
    )
    callbacks = rig.runs(FAILURE)
    assert len(callbacks) == 1, f"it runs {len(callbacks)} times"
    (watched,) = [run for run in rig.runs(WALLET) if "1000035" in run.args]
    assert watched.id in callbacks[0].args


@pytest.mark.broken_by(
    r"ran \['update_wallet succeeded', 'update_wallet failed', 'note_reason",
    file="tasks.py",
    old="def note_reason(request, exc, traceback):\n",
    new="def note_reason(request):\n    return\n",
)
def test_a_link_error_of_three_arguments_runs_inside_the_failed_link(rig):
    """A `link_error` that takes request, exception and traceback runs inside the failed link, not as a task."""
    rig.settle(after="demo_reason.py")
    rig.same(ran(rig), ["update_wallet succeeded", "update_wallet failed"], "ran {}")
    assert rig.logged() == [
        "INFO Updated the wallet of 98000001",
        "WARNING chains.tasks.update_wallet failed: 1000035 is no corporation of players",
    ]
    told = rig.printed(rig.workers[0])
    assert 0 <= told.find("update_wallet failed:") < told.find("raised unexpected"), "the link had ended before it ran"


@pytest.mark.broken_by(
    r"raised unexpected", file="demo_wrong_link_error.py", old="report_end.s()", new="report_end.si()"
)
@pytest.mark.fresh
@pytest.mark.workers({"concurrency": 1})
def test_a_link_error_that_can_not_take_the_id_makes_the_failure_a_warning(rig):
    """If `link_error` can't take the id, a worker with threads logs the failure as a warning, and only once."""
    seen = []
    for _ in range(2):
        fail_with_the_wrong_link_error(rig)
        seen.append(rig.printed(rig.workers[0]))
    first, both = seen
    assert "raised unexpected" not in both, "the link failed as an error: raised unexpected"
    assert ": ERROR/" not in both
    warning = "RuntimeWarning: Exception raised outside body: TypeError('report_end() takes 0 positional arguments"
    head = [line for line in first.splitlines() if warning in line]
    assert [": WARNING/" in line for line in head] == [True], f"logged {first}"
    for error in ("ValueError: 1000035 is no corporation of players", "TypeError: report_end() takes 0 positional"):
        assert f"\n{error}" in first, f"logged {first}"
    assert both.count("1000035") == first.count("1000035"), "the second failure was logged"


@pytest.mark.broken_by(r"the link failed", file="demo_wrong_link_error.py", old="report_end.s()", new="report_end.si()")
@pytest.mark.fresh
@pytest.mark.workers({"concurrency": 1})
def test_a_link_error_that_can_not_take_the_id_leaves_the_link_listed_as_running(rig):
    """If `link_error` can't take the id, a worker with threads lists the link as running; Auth counts a failure."""
    link = fail_with_the_wrong_link_error(rig)
    # Any answer of the one worker there is ends the call; a second is not waited for.
    (active,) = current_app.control.inspect(limit=1, timeout=5).active().values()
    (link,) = [run for run in rig.runs() if run.id == link.id]
    assert failures() == 1
    assert link.state == "started", f"the link {link.state}"
    assert link.id in [request["id"] for request in active], f"active {active}"


@pytest.mark.broken_by(
    r"update_wallet\(1000035,\) started", file="tasks.py", old="def report_end():", new="def report_end(wallet):"
)
@pytest.mark.fresh
def test_a_link_error_made_with_si_needs_no_argument(rig):
    """A `link_error` made with `si()` gets no id: a function without an argument runs, and the error is logged."""
    chain(update_wallet.si(1000035), update_wallet.si(98000002)).apply_async(link_error=report_end.si())
    rig.wait(lambda: failures(), "the failure on Auth's dashboard")
    rig.wait(lambda: "1000035 is no corporation of players" in rig.printed(rig.workers[0]), "the error in the log")
    rig.wait(lambda: "update_wallet failed" in ran(rig), "the end of the link", timeout=5)
    rig.settle()
    assert ran(rig) == ["update_wallet failed", "report_end succeeded"]
    assert rig.logged() == ["INFO All are updated"]


@pytest.mark.broken_by(
    r"the start of 5 x", file="demo_group.py", old="from celery import group", new="from celery import chain as group"
)
def test_a_group_runs_its_tasks_side_by_side(rig):
    """A group works without a result backend: its tasks run side by side, like those of the loop."""
    rig.same(held(rig, "demo_group.py", CORPORATION, 5), "5 run, 1 wait", "{}")
    assert sorted(number(run) for run in rig.runs(CORPORATION)) == SIX


@pytest.mark.broken_by(
    r"run, [1-4] wait", file="demo_lanes.py", old="chain(links[lane::2])", new="group(links[lane::2])"
)
def test_a_group_of_chains_runs_the_chains_side_by_side(rig):
    """A group of two chains works without a result backend: two links run at once, each chain in its own order."""
    rig.same(held(rig, "demo_lanes.py", CORPORATION, 2), "2 run, 0 wait", "{}")
    runs = rig.runs(CORPORATION)
    ids = {run.id: number(run) for run in runs}
    rig.same(
        {number(run): ids.get(run.parent) for run in runs},
        dict(zip(SIX, [None, None, *SIX[:4]], strict=True)),
        "sent by {}",
    )


@pytest.mark.broken_by(
    r"the start of 2 x", file="demo_group_at_the_end.py", old="together = group(", new="together = chain("
)
def test_a_chain_may_end_in_a_group(rig):
    """A chain whose last link is a group works without a result backend: the group starts after the link before it."""
    with rig.hold(CORPORATION):
        with rig.hold(WALLET):
            rig.demo("demo_group_at_the_end.py")
            (first,) = rig.started(WALLET)
            assert rig.runs() == [first], "the group did not wait for the link before it"
        assert sorted(map(number, rig.started(CORPORATION, 2, timeout=5))) == [98000001, 98000002]
    rig.settle()


@pytest.mark.broken_by(r"DID NOT RAISE", **CHORDS_WORK)
def test_a_chord_raises_at_the_call_and_nothing_is_sent(rig):
    """A chord raises `NotImplementedError` where it is started, and none of its tasks is sent."""
    with pytest.raises(NotImplementedError, match=NO_CHORDS):
        chord([update_wallet.si(98000001), update_wallet.si(98000002)], report_end.si()).delay()
    assert_nothing_was_sent(rig)


@pytest.mark.broken_by(r"printed ''", **CHORDS_WORK)
def test_a_group_followed_by_a_task_is_a_chord_and_raises_too(rig):
    """A group followed by a task raises the same error at the call, also in the middle of a chain; nothing is sent."""
    rig.prints("demo_group_then_task.py", f"{NO_CHORDS}\n" * 2)
    assert_nothing_was_sent(rig)


@pytest.mark.broken_by(
    r"Starting chords requires",
    file="demo_group_of_one.py",
    old="group([update_wallet.si(98000001)])",
    new="group([update_wallet.si(98000001), update_wallet.si(98000002)])",
)
def test_a_group_of_one_followed_by_a_task_works(rig):
    """A group of a single task followed by a task works: Celery takes the group away, and a plain chain is left."""
    with rig.hold(WALLET):
        rig.demo("demo_group_of_one.py")
        rig.started(WALLET)
        assert not rig.runs(END), "the task that follows did not wait"
    rig.settle()
    rig.same(ran(rig), ["update_wallet succeeded", "report_end succeeded"], "ran {}")


@pytest.mark.broken_by(r"printed 'task.get: None", conf={"result_backend": "rpc://"})
def test_get_ready_and_state_raise(rig):
    """`.get()`, `.ready()` and `.state` raise `AttributeError` or (`.get()` of a single task) `NotImplementedError`."""
    missing = "AttributeError: 'DisabledBackend' object has no attribute '_get_task_meta_for'"
    lines = [f"{asked}: {missing}" for asked in ("task.ready", "task.state", "chain.get", "chain.ready", "chain.state")]
    rig.prints(
        "demo_asking.py",
        "\n".join(["task.get: NotImplementedError: No result backend is configured.", *lines, ""]),
    )
    rig.finished(WALLET, 3)


@pytest.mark.broken_by(r"98000002: priority 7", **INHERITED)
def test_priority_and_countdown_of_a_chain_are_for_its_first_link(rig):
    """`priority` and `countdown` given to a chain are for its first link only; the others have priority 5, no delay."""
    before = time.time()
    rig.demo("demo_options.py")
    after = time.time()
    rig.finished(OPTIONS, 3)
    rig.same(
        rig.logged(),
        [
            "INFO Corporation 98000001: priority 7, later",
            "INFO Corporation 98000002: priority 5, at once",
            "INFO Corporation 98000003: priority 5, at once",
        ],
        "told {}",
    )
    assert before + 0.5 <= due(rig) <= after + 0.5, f"due at {due(rig)}, sent after {before}"


@pytest.mark.broken_by(r"98000002: priority 7", **INHERITED)
def test_priority_and_countdown_of_a_group_of_chains_are_for_their_first_links(rig):
    """`priority` and `countdown` given to a group of chains are for the first link of each; the others get neither."""
    chains = [chain(show_options.si(number), show_options.si(number + 1)) for number in (98000001, 98000003)]
    group(chains).apply_async(priority=7, countdown=0.1)
    rig.finished(OPTIONS, 4)
    rig.same(
        sorted(rig.logged()),
        [
            "INFO Corporation 98000001: priority 7, later",
            "INFO Corporation 98000002: priority 5, at once",
            "INFO Corporation 98000003: priority 7, later",
            "INFO Corporation 98000004: priority 5, at once",
        ],
        "told {}",
    )


@pytest.mark.broken_by(r"98000001: priority 5", file="demo_options_of_links.py", old=".set(priority=7)", new="")
def test_a_priority_set_on_each_link_is_kept(rig):
    """A priority that is set on each link with `.set(priority=7)` is what each link runs with."""
    rig.finished(OPTIONS, 3, after="demo_options_of_links.py")
    rig.same(rig.logged(), [f"INFO Corporation {pk}: priority 7, at once" for pk in SIX[:3]], "told {}")


@pytest.mark.broken_by(
    r"the call sent a message",
    file="tasks.py",
    old="for corporation_id in corporation_ids]",
    new="for corporation_id in corporation_ids] or [report_end.si()]",
)
def test_an_empty_chain_sends_nothing_and_returns_none(rig):
    """An empty chain is no error: starting it sends nothing and returns None instead of a result."""
    assert chain([]).delay() is None
    update_in_a_chain([])
    assert_nothing_was_sent(rig)


@pytest.mark.broken_by(
    r"'update_contracts failed'",
    file="tasks.py",
    old="default_retry_delay=0.5",
    new="default_retry_delay=0.5, max_retries=0",
)
def test_a_retrying_link_holds_the_chain_until_it_succeeds(rig):
    """A link that retries holds the chain: the next runs once, after the retry succeeded, and no `link_error` runs."""
    links = [update_wallet.si(98000001), update_contracts.si(98000002), report_end.si()]
    chain(links).apply_async(link_error=note_failure.s())
    rig.settle()
    rig.wait(lambda: rig.runs(CONTRACTS)[0].retries or rig.runs(CONTRACTS)[0].state == "failed", "word of the retry")
    (contracts,) = rig.runs(CONTRACTS)
    rig.same(ran(rig), ["update_wallet succeeded", "update_contracts succeeded", "report_end succeeded"], "ran {}")
    assert rig.logged() == [
        "INFO Updated the wallet of 98000001",
        "INFO Updated the contracts of 98000002",
        "INFO All are updated",
    ]
    assert len(contracts.retries) == 1
    (end,) = rig.runs(END)
    # What tells of the retry may come late: its receipt is the last.
    assert end.sent >= contracts.received, "the next link did not wait for the retry"
    first = {event["type"]: event["timestamp"] for event in reversed(rig.events) if event.get("uuid") == contracts.id}
    # Its parent tells a start on prefork: of the times that can be had, its receipt is the one before it for certain.
    assert first["task-received"] + 0.5 <= due(rig) <= first["task-retried"] + 0.5, f"due at {due(rig)}, after {first}"


@pytest.mark.broken_by(r"starmap succeeded", **NEVER_FAILS)
def test_starmap_is_one_task_that_stops_at_the_first_error(rig):
    """`starmap()` works without a result backend, as one task that calls one after the other and ends at an error."""
    update_wallet.starmap([(98000001,), (1000035,), (98000003,)]).delay()
    rig.settle()
    rig.same(ran(rig), ["starmap failed"], "ran {}")
    assert rig.logged() == ["INFO Updated the wallet of 98000001"]


@pytest.mark.broken_by(r"the start of 2 x", file="demo_chunks.py", old="], 2)", new="], 4)")
def test_chunks_are_a_group_of_tasks_that_take_several_objects_each(rig):
    """`chunks()` works without a result backend: one task for every so many objects, side by side."""
    rig.same(held(rig, "demo_chunks.py", STARMAP, 2), "2 run, 0 wait", "{}")
    rig.same(ran(rig), ["starmap succeeded"] * 2, "ran {}")
    rig.same([run.kwargs.count("98000") for run in rig.runs(STARMAP)], [2, 2], "objects for each task: {}")
    assert sorted(rig.logged()) == [f"INFO Updated corporation {pk}" for pk in SIX[:4]]


@pytest.mark.workers
@pytest.mark.broken_by(
    r"sent \d+ messages",
    file="tasks.py",
    old="update_corporation.si(corporation_id) for",
    new="update_corporation.delay(corporation_id) and update_corporation.si(corporation_id) for",
)
def test_si_sends_nothing_until_the_chain_is_started(rig):
    """A signature made by `si()` sends nothing; starting a chain of six sends one message, that of its first link."""
    update_in_a_chain(SIX)
    messages = rig.redis.lrange(PRIORITY_5, 0, -1)
    assert len(messages) == 1, f"sent {len(messages)} messages"
    assert body(messages[0])[0] == [98000001]


@pytest.mark.workers
@pytest.mark.broken_by(
    r"the message carries", file="tasks.py", old="(links).delay()", new="(links).apply_async(link=report_end.si())"
)
def test_a_chain_of_one_runs_its_link(rig):
    """A chain of one link sends that task's message, with nothing to come after it."""
    update_in_a_chain([98000001])
    update_corporation.delay(98000001)
    # The newest comes first.
    task, link = (body(message) for message in rig.redis.lrange(PRIORITY_5, 0, -1))
    assert task[2].pop("chain") is None
    assert link[2].pop("chain") == []
    assert link == task, f"the message carries {link}"


@pytest.mark.workers
@pytest.mark.broken_by(
    r"waits in \{'celery.*': 1000\}", file="demo_long.py", old="chain(", new="__import__('celery').group("
)
@pytest.mark.broken_by(r"bytes for 1000 links", conf={"task_compression": "gzip"})
def test_the_message_of_a_chain_carries_all_links_to_come(rig):
    """A chain is one message that carries all links to come: 1,000 of them weigh about 310 KB in Redis."""
    rig.demo("demo_long.py")
    rig.same(rig.waiting(), {PRIORITY_5: 1}, "waits in {}")
    message = rig.redis.rpop(PRIORITY_5)
    assert 300_000 < len(message) < 320_000, f"{len(message)} bytes for 1000 links"
    (first,), _, after = body(message)
    assert [first, *(link["args"][0] for link in after["chain"][::-1])] == list(range(98000000, 98001000))
    assert all(link["immutable"] for link in after["chain"])


@pytest.mark.workers
@pytest.mark.broken_by(r"bytes for 1000 links", conf={"task_compression": "gzip"})
def test_a_link_error_makes_a_chain_more_than_half_as_heavy_again(rig):
    """With a `link_error` a chain of 1,000 links weighs about 490 KB, as every link carries the `link_error`."""
    links = [update_wallet.si(number) for number in range(98000000, 98001000)]
    chain(links).apply_async(link_error=note_failure.s())
    message = rig.redis.rpop(PRIORITY_5)
    assert 480_000 < len(message) < 500_000, f"{len(message)} bytes for 1000 links"
    assert all(link["options"]["link_error"][0]["task"] == FAILURE for link in body(message)[2]["chain"])


def messages(rig, count):
    """The messages of a chain of `count` links, as the broker gets them, in their order."""
    with rig.redis.monitor() as monitor:
        chain(update_wallet.si(number) for number in range(98000000, 98000000 + count)).delay()
        rig.settle(timeout=30)
        rig.redis.echo("all are sent")
        found = []
        while True:
            told = monitor.next_command()
            # The server tells of other runs' databases, too.
            if told["db"] != rig.redis.get_connection_kwargs()["db"]:
                continue
            if "all are sent" in told["command"]:
                return found
            if told["command"].startswith("LPUSH celery"):
                found.append("{" + told["command"].partition("{")[2])


@pytest.mark.broken_by(r"times the bytes", conf={"task_compression": "gzip"})
def test_twice_the_links_make_nearly_four_times_the_traffic(rig):
    """All messages of a chain of 100 links weigh nearly four times those of 50: each carries all links to come."""
    half, whole = messages(rig, 50), messages(rig, 100)
    times = sum(map(len, whole)) / sum(map(len, half))
    assert 3.7 < times < 4, f"{times:.2f} times the bytes for twice the links"
    rig.same([len(body(message)[2]["chain"]) for message in whole], list(range(99, -1, -1)), "links carried: {}")


@pytest.mark.workers({"concurrency": 1, "paused": True})
@pytest.mark.broken_by(
    r"98000001', 'INFO Updated the wallet of 98000002'",
    file="demo_backlog.py",
    old="chain(update_wallet.si(number) for number in (98000001, 98000002, 98000003)).delay()",
    new="update_wallet.starmap([(98000001,), (98000002,), (98000003,)]).delay()",
)
def test_each_link_queues_behind_what_waits_already(rig):
    """Each link goes to the end of the queue: two chains on one thread take turns, link by link."""
    rig.demo("demo_backlog.py")
    rig.resume()
    rig.settle()
    turns = [98000001, 98000011, 98000002, 98000012, 98000003, 98000013]
    rig.same(rig.logged(), [f"INFO Updated the wallet of {pk}" for pk in turns], "ran {}")


@pytest.mark.fresh
@pytest.mark.workers({}, {"paused": True})
@pytest.mark.broken_by(r"the start of 1 x", **AS_ONE_TASK)
def test_a_chain_outlives_a_worker_that_is_stopped(rig):
    """A worker that is stopped by SIGTERM ends the link it has; the next waits in Redis, and another worker goes on."""
    worker = rig.workers[0]
    with rig.hold(CORPORATION):
        rig.demo()
        rig.started(CORPORATION, timeout=5)
        worker.signal(signal.SIGTERM)
        rig.wait(lambda: "Warm shutdown" in rig.printed(worker), "the beginning of the worker's stop")
    rig.wait(lambda: not worker.alive, "the end of the worker")
    rig.same(rig.waiting(), {PRIORITY_5: 1}, "waits in {}")
    # It may take one link more before it sees that it shall stop.
    ended = len(rig.logged())
    assert 1 <= ended <= 2, f"it ended {rig.logged()}"
    *done, following = [run.state for run in rig.runs(CORPORATION)]
    # One that it took too and had not begun it has given back.
    assert (done, following in ("sent", "received")) == (["succeeded"] * ended, True), f"the next is {following}"
    rig.resume(1)
    workers = [run.worker for run in rig.finished(CORPORATION, 6)]
    assert workers == ["worker_00"] * ended + ["worker_01"] * (6 - ended)
    assert rig.logged() == [f"INFO Updated corporation {pk}" for pk in SIX]


@pytest.mark.workers({}, {"paused": True})
@pytest.mark.broken_by(r"the acknowledgement of the link did not happen", conf={"task_acks_late": True})
def test_a_worker_that_is_killed_takes_the_chain_with_it(rig):
    """A worker that is killed takes its link and the rest of the chain with it: nothing of them is left in Redis."""
    with rig.hold(CORPORATION):
        rig.finished(CHAIN, after="demo.py")
        rig.started(CORPORATION)
        # It comes from the worker's loop, a moment after the start.
        rig.wait(lambda: not rig.redis.hlen("unacked"), "the acknowledgement of the link", timeout=5)
        rig.kill(rig.workers[0])
    assert rig.waiting() == {}
    rig.resume(1)
    update_wallet.delay(98000001)
    rig.finished(WALLET)
    rig.same(ran(rig)[1:], ["update_corporation started", "update_wallet succeeded"], "ran {}")
