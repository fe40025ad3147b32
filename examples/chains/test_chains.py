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


def lines(lab):
    """What the tasks logged: level and text, line by line."""
    found = [line.partition("] ")[2].partition(" [") for line in lab.log_file("extensions.log").splitlines()]
    return [f"{level} {rest.partition('] ')[2]}" for level, _, rest in found]


def ran(lab, name=None):
    """The tasks that started, each as its short name and its end."""
    return [f"{run.name.rpartition('.')[2]} {run.state}" for run in lab.runs(name) if run.started is not None]


def number(run):
    """The corporation that a run is for; events show the arguments of a later link as a list."""
    return int(run.args.strip("()[],"))


def due(lab):
    """When the one task that was told to wait was due to run, in seconds since the epoch."""
    (when,) = {event["eta"] for event in lab.events if event.get("eta")}
    return dt.datetime.fromisoformat(when).timestamp()


def gaps(runs):
    """Seconds between the starts of one task and the next."""
    starts = sorted(run.started for run in runs)
    return [round(later - earlier, 2) for earlier, later in pairwise(starts)]


def held(lab, demo, name, count):
    """Run `demo` with its tasks called `name` held: how many of them run, once `count` do, and how many wait."""
    before = len(lab.runs(name))
    with lab.hold(name):
        lab.demo(demo)
        lab.started(name, before + count, timeout=5)
        # Those that send the others have sent all of them.
        lab.wait(lambda: all(run.ended for run in lab.runs() if run.name != name), "the end of the other tasks")
        runs = lab.runs(name)[before:]
        running = sum(run.started is not None for run in runs)
    lab.settle()
    return f"{running} run, {len(runs) - running} wait"


def body(message):
    """What a message carries: the task's arguments, its keyword arguments, and what comes after it."""
    return json.loads(b64decode(json.loads(message)["body"]))


def assert_nothing_was_sent(lab):
    """A task that is sent now is the only one."""
    sentinel = update_wallet.delay(98000001)
    lab.finished(WALLET)
    assert [run.id for run in lab.settle()] == [sentinel.id], "the call sent a message"


def fail_with_the_wrong_link_error(lab):
    """Run a chain whose second link fails; return that link's run. The worker has one thread."""
    before = len(lab.runs(WALLET))
    lab.demo("demo_wrong_link_error.py")
    *_, link = lab.started(WALLET, before + 2)
    # The only thread runs it when it is done with the link.
    after = update_wallet.delay(98000001)
    lab.wait(lambda: after.id in [run.id for run in lab.runs() if run.ended], "the end of the task after it")
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
def test_a_loop_of_delay_runs_five_at_once(lab):
    """A loop of `.delay()` fills all five threads of the worker: five of the tasks run at once, the sixth waits."""
    lab.demo("demo_loop.py")
    six = lab.finished(CORPORATION, 6)
    done = lines(lab)
    assert sorted(done) == [f"INFO Updated corporation {pk}" for pk in SIX], f"done {done}"
    assert ran(lab, LOOP) == ["update_in_a_loop succeeded"]
    at_once = held(lab, "demo_loop.py", CORPORATION, 5)
    assert at_once == "5 run, 1 wait", at_once
    tasks = lab.runs(CORPORATION)[6:]
    assert "--concurrency=5" in lab.workers[0].argv
    assert tasks[5].started >= min(task.ended for task in tasks[:5]), "the sixth did not wait"
    first_end = min(task.ended for task in six)
    together = sum(task.started < first_end for task in six)
    lab.chart(AGAINST, "timeline", bars("a loop of .delay()", six, "two"), values={"together": together})


@pytest.mark.broken_by(r"starts \[.*0\.0", **AS_A_LOOP)
def test_a_chain_runs_its_links_in_order_one_at_a_time(lab):
    """A chain runs its links in order and one at a time, although the worker has five threads."""
    lab.demo()
    links = lab.finished(CORPORATION, 6)
    assert "--concurrency=5" in lab.workers[0].argv
    assert ran(lab, CHAIN) == ["update_in_a_chain succeeded"]
    done = lines(lab)
    assert done == [f"INFO Updated corporation {pk}" for pk in SIX], f"done {done}"
    between = gaps(links)
    assert min(between) >= 0.24, f"seconds between starts {between}"
    assert [link.parent for link in links[1:]] == [link.id for link in links[:-1]], "a link was not sent by the last"
    took = [link.ended - link.started for link in links]
    lab.chart(
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
def test_all_apps_wait_while_a_loop_fills_the_threads(lab):
    """While a loop's tasks fill the worker's five threads, the tasks of other apps wait, Auth's own too."""
    with lab.hold(CORPORATION):
        lab.demo("demo_loop.py")
        loop = lab.started(CORPORATION, 5, timeout=5)
        cleanup_callbackredirect.delay()
    lab.settle()
    (other,) = lab.runs("esi.tasks.cleanup_callbackredirect")
    five = [run for run in lab.runs(CORPORATION) if run.id in {run.id for run in loop}]
    assert other.started >= min(run.ended for run in five), "Auth's task did not wait"


@pytest.mark.broken_by(
    r"the end of 2 x chains.tasks.update_in_a_chain", **{**AS_A_LOOP, "new": "    chain(links).apply()"}
)
def test_a_task_that_starts_a_chain_does_not_wait_for_it(lab):
    """A task that builds a chain and starts it ends while the chain's first link still runs."""
    with lab.hold(CORPORATION):
        lab.demo("demo_twice.py")
        lab.finished(CHAIN, 2, timeout=5)
        links = lab.started(CORPORATION, 2)
        assert not any(link.ended for link in links), "the links had ended before"
    lab.settle()


@pytest.mark.broken_by(
    r"the start of 2 x",
    file="tasks.py",
    old="    chain(links).delay()",
    new="    from django.core.cache import cache\n    if cache.add('running', True):\n        chain(links).delay()",
)
def test_a_chain_started_again_runs_beside_the_first(lab):
    """A chain that is started again while it runs does not wait: both run side by side."""
    at_once = held(lab, "demo_twice.py", CORPORATION, 2)
    assert at_once == "2 run, 0 wait", at_once
    started = [number(run) for run in lab.runs(CORPORATION)]
    assert sorted(started) == [98000001, 98000001, 98000002, 98000002], f"started {started}"


@pytest.mark.broken_by(
    r"structures None", file="demo_result.py", old="update_structures.s(98", new="update_structures.si(None, 98"
)
def test_s_hands_the_result_of_the_link_before_on(lab):
    """A link made with `s()` gets what the link before it returned, as its first argument."""
    lab.demo("demo_result.py")
    lab.settle()
    given = lines(lab)
    assert given == ["INFO Updated the structures [1035466617946, 1038457641673] of 98000001"], f"given {given}"


@pytest.mark.broken_by(r"update_corporation failed", file="tasks.py", old="corporation.si(", new="corporation.s(")
def test_si_drops_the_result_of_the_link_before(lab):
    """A link made with `si()` gets its own arguments only; what the link before it returned is dropped."""
    update_in_a_chain(SIX[:2])
    chain(fetch_structures.si(98000001), update_wallet.si(98000001)).delay()
    lab.settle()
    done = sorted(ran(lab))
    expected = ["fetch_structures succeeded", *["update_corporation succeeded"] * 2, "update_wallet succeeded"]
    assert done == expected, f"ran {done}"
    assert "INFO Updated the wallet of 98000001" in lines(lab)


@pytest.mark.broken_by(
    r"update_wallet succeeded",
    file="demo_wrong_link.py",
    old="update_wallet.s(",
    new="update_wallet.si(",
)
def test_a_link_that_can_not_take_the_result_fails_the_link_before_it(lab):
    """When a link made with `s()` can't take the result, the link before it fails, with its work done; no more runs."""
    lab.demo("demo_wrong_link.py")
    lab.settle()
    done = ran(lab)
    assert done == ["update_wallet failed"], f"ran {done}"
    assert lines(lab) == ["INFO Updated the wallet of 98000001"], "the work of the first link was not done"
    told = lab.printed(lab.workers[0])
    assert "TypeError('update_wallet() takes 1 positional argument but 2 were given')" in told


@pytest.mark.broken_by(r"'update_wallet succeeded', 'update_wallet succeeded'", **NEVER_FAILS)
def test_a_failed_link_stops_the_rest_of_the_chain(lab):
    """A link that raises ends the chain: the links after it never run, those before it stay done."""
    lab.demo("demo_failing.py")
    lab.settle()
    done = ran(lab, WALLET)
    assert done == ["update_wallet succeeded", "update_wallet failed"], f"ran {done}"
    assert lines(lab)[0] == "INFO Updated the wallet of 98000001"
    assert "INFO Updated the wallet of 98000003" not in lines(lab)


@pytest.mark.broken_by(r"runs 2 times", file="demo_failing.py", old="note_failure.s()", new="None")
def test_link_error_of_the_chain_runs_once_with_the_id_of_the_failed_link(lab):
    """`link_error` given to the chain is for every link: one task, once, with the id of the link that failed."""
    lab.demo("demo_failing.py")
    for bad in (0, 2):
        links = [update_wallet.si(1000035 if place == bad else 98000001) for place in range(3)]
        chain(links).apply_async(link_error=note_failure.s())
    lab.settle()
    callbacks = lab.runs(FAILURE)
    assert len(callbacks) == 3, f"for three chains link_error runs {len(callbacks)} times"
    failed = [run.id for run in lab.runs(WALLET) if run.state == "failed"]
    assert sorted(run.args for run in callbacks) == sorted(f"('{link}',)" for link in failed)
    assert {run.state for run in callbacks} == {"succeeded"}
    assert lines(lab).count("WARNING A link failed") == 3


@pytest.mark.broken_by(
    r"runs [23] times",
    file="demo_link_error.py",
    old="watched).delay()",
    new="watched).apply_async(link_error=note_failure.s())",
)
def test_link_error_of_a_link_runs_for_that_link_only(lab):
    """`link_error` given to one link (`on_error`) runs when that link fails, not when one before it fails."""
    lab.demo("demo_link_error.py")
    lab.settle()
    done = {number(run): run.state for run in lab.runs(WALLET)}
    assert done == {98000001: "succeeded", 1000035: "failed", 1000044: "failed"}, f"ran {done}"
    callbacks = lab.runs(FAILURE)
    assert len(callbacks) == 1, f"it runs {len(callbacks)} times"
    (watched,) = [run for run in lab.runs(WALLET) if "1000035" in run.args]
    assert watched.id in callbacks[0].args


@pytest.mark.broken_by(
    r"ran \['update_wallet succeeded', 'update_wallet failed', 'note_reason",
    file="tasks.py",
    old="def note_reason(request, exc, traceback):\n",
    new="def note_reason(request):\n    return\n",
)
def test_a_link_error_of_three_arguments_runs_inside_the_failed_link(lab):
    """A `link_error` that takes request, exception and traceback runs inside the failed link, not as a task."""
    lab.demo("demo_reason.py")
    lab.settle()
    done = ran(lab)
    assert done == ["update_wallet succeeded", "update_wallet failed"], f"ran {done}"
    assert lines(lab) == [
        "INFO Updated the wallet of 98000001",
        "WARNING chains.tasks.update_wallet failed: 1000035 is no corporation of players",
    ]
    told = lab.printed(lab.workers[0])
    assert 0 <= told.find("update_wallet failed:") < told.find("raised unexpected"), "the link had ended before it ran"


@pytest.mark.broken_by(
    r"raised unexpected", file="demo_wrong_link_error.py", old="report_end.s()", new="report_end.si()"
)
@pytest.mark.fresh
@pytest.mark.workers({"concurrency": 1})
def test_a_link_error_that_can_not_take_the_id_makes_the_failure_a_warning(lab):
    """If `link_error` can't take the id, a worker with threads logs the failure as a warning, and only once."""
    seen = []
    for _ in range(2):
        fail_with_the_wrong_link_error(lab)
        seen.append(lab.printed(lab.workers[0]))
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
def test_a_link_error_that_can_not_take_the_id_leaves_the_link_listed_as_running(lab):
    """If `link_error` can't take the id, a worker with threads lists the link as running; Auth counts a failure."""
    link = fail_with_the_wrong_link_error(lab)
    # Any answer of the one worker there is ends the call; a second is not waited for.
    (active,) = current_app.control.inspect(limit=1, timeout=5).active().values()
    (link,) = [run for run in lab.runs() if run.id == link.id]
    assert failures() == 1
    assert link.state == "started", f"the link {link.state}"
    assert link.id in [request["id"] for request in active], f"active {active}"


@pytest.mark.broken_by(
    r"update_wallet\(1000035,\) started", file="tasks.py", old="def report_end():", new="def report_end(wallet):"
)
@pytest.mark.fresh
def test_a_link_error_made_with_si_needs_no_argument(lab):
    """A `link_error` made with `si()` gets no id: a function without an argument runs, and the error is logged."""
    chain(update_wallet.si(1000035), update_wallet.si(98000002)).apply_async(link_error=report_end.si())
    lab.wait(lambda: failures(), "the failure on Auth's dashboard")
    lab.wait(lambda: "1000035 is no corporation of players" in lab.printed(lab.workers[0]), "the error in the log")
    lab.wait(lambda: "update_wallet failed" in ran(lab), "the end of the link", timeout=5)
    lab.settle()
    assert ran(lab) == ["update_wallet failed", "report_end succeeded"]
    assert lines(lab) == ["INFO All are updated"]


@pytest.mark.broken_by(
    r"the start of 5 x", file="demo_group.py", old="from celery import group", new="from celery import chain as group"
)
def test_a_group_runs_its_tasks_side_by_side(lab):
    """A group works without a result backend: its tasks run side by side, like those of the loop."""
    at_once = held(lab, "demo_group.py", CORPORATION, 5)
    assert at_once == "5 run, 1 wait", at_once
    assert sorted(number(run) for run in lab.runs(CORPORATION)) == SIX


@pytest.mark.broken_by(
    r"run, [1-4] wait", file="demo_lanes.py", old="chain(links[lane::2])", new="group(links[lane::2])"
)
def test_a_group_of_chains_runs_the_chains_side_by_side(lab):
    """A group of two chains works without a result backend: two links run at once, each chain in its own order."""
    at_once = held(lab, "demo_lanes.py", CORPORATION, 2)
    assert at_once == "2 run, 0 wait", at_once
    runs = lab.runs(CORPORATION)
    ids = {run.id: number(run) for run in runs}
    before = {number(run): ids.get(run.parent) for run in runs}
    assert before == dict(zip(SIX, [None, None, *SIX[:4]], strict=True)), f"sent by {before}"


@pytest.mark.broken_by(
    r"the start of 2 x", file="demo_group_at_the_end.py", old="together = group(", new="together = chain("
)
def test_a_chain_may_end_in_a_group(lab):
    """A chain whose last link is a group works without a result backend: the group starts after the link before it."""
    with lab.hold(CORPORATION):
        with lab.hold(WALLET):
            lab.demo("demo_group_at_the_end.py")
            (first,) = lab.started(WALLET)
            assert lab.runs() == [first], "the group did not wait for the link before it"
        members = lab.started(CORPORATION, 2, timeout=5)
        assert sorted(number(run) for run in members) == [98000001, 98000002]
    lab.settle()


@pytest.mark.broken_by(r"DID NOT RAISE", **CHORDS_WORK)
def test_a_chord_raises_at_the_call_and_nothing_is_sent(lab):
    """A chord raises `NotImplementedError` where it is started, and none of its tasks is sent."""
    with pytest.raises(NotImplementedError, match=NO_CHORDS):
        chord([update_wallet.si(98000001), update_wallet.si(98000002)], report_end.si()).delay()
    assert_nothing_was_sent(lab)


@pytest.mark.broken_by(r"printed ''", **CHORDS_WORK)
def test_a_group_followed_by_a_task_is_a_chord_and_raises_too(lab, capsys):
    """A group followed by a task raises the same error at the call, also in the middle of a chain; nothing is sent."""
    lab.demo("demo_group_then_task.py")
    printed = capsys.readouterr().out
    assert printed == f"{NO_CHORDS}\n" * 2, f"printed {printed!r}"
    assert_nothing_was_sent(lab)


@pytest.mark.broken_by(
    r"Starting chords requires",
    file="demo_group_of_one.py",
    old="group([update_wallet.si(98000001)])",
    new="group([update_wallet.si(98000001), update_wallet.si(98000002)])",
)
def test_a_group_of_one_followed_by_a_task_works(lab):
    """A group of a single task followed by a task works: Celery takes the group away, and a plain chain is left."""
    with lab.hold(WALLET):
        lab.demo("demo_group_of_one.py")
        lab.started(WALLET)
        assert not lab.runs(END), "the task that follows did not wait"
    lab.settle()
    done = ran(lab)
    assert done == ["update_wallet succeeded", "report_end succeeded"], f"ran {done}"


@pytest.mark.broken_by(r"printed 'task.get: None", conf={"result_backend": "rpc://"})
def test_get_ready_and_state_raise(lab, capsys):
    """`.get()`, `.ready()` and `.state` raise `AttributeError` or (`.get()` of a single task) `NotImplementedError`."""
    lab.demo("demo_asking.py")
    printed = capsys.readouterr().out
    missing = "AttributeError: 'DisabledBackend' object has no attribute '_get_task_meta_for'"
    assert printed.splitlines() == [
        "task.get: NotImplementedError: No result backend is configured.",
        f"task.ready: {missing}",
        f"task.state: {missing}",
        f"chain.get: {missing}",
        f"chain.ready: {missing}",
        f"chain.state: {missing}",
    ], f"printed {printed!r}"
    lab.finished(WALLET, 3)


@pytest.mark.broken_by(r"98000002: priority 7", **INHERITED)
def test_priority_and_countdown_of_a_chain_are_for_its_first_link(lab):
    """`priority` and `countdown` given to a chain are for its first link only; the others have priority 5, no delay."""
    before = time.time()
    lab.demo("demo_options.py")
    after = time.time()
    lab.finished(OPTIONS, 3)
    told = lines(lab)
    assert told == [
        "INFO Corporation 98000001: priority 7, later",
        "INFO Corporation 98000002: priority 5, at once",
        "INFO Corporation 98000003: priority 5, at once",
    ], f"told {told}"
    assert before + 0.5 <= due(lab) <= after + 0.5, f"due at {due(lab)}, sent after {before}"


@pytest.mark.broken_by(r"98000002: priority 7", **INHERITED)
def test_priority_and_countdown_of_a_group_of_chains_are_for_their_first_links(lab):
    """`priority` and `countdown` given to a group of chains are for the first link of each; the others get neither."""
    chains = [chain(show_options.si(number), show_options.si(number + 1)) for number in (98000001, 98000003)]
    group(chains).apply_async(priority=7, countdown=0.1)
    lab.finished(OPTIONS, 4)
    told = sorted(lines(lab))
    assert told == [
        "INFO Corporation 98000001: priority 7, later",
        "INFO Corporation 98000002: priority 5, at once",
        "INFO Corporation 98000003: priority 7, later",
        "INFO Corporation 98000004: priority 5, at once",
    ], f"told {told}"


@pytest.mark.broken_by(r"98000001: priority 5", file="demo_options_of_links.py", old=".set(priority=7)", new="")
def test_a_priority_set_on_each_link_is_kept(lab):
    """A priority that is set on each link with `.set(priority=7)` is what each link runs with."""
    lab.demo("demo_options_of_links.py")
    lab.finished(OPTIONS, 3)
    told = lines(lab)
    assert told == [f"INFO Corporation {pk}: priority 7, at once" for pk in SIX[:3]], f"told {told}"


@pytest.mark.broken_by(
    r"the call sent a message",
    file="tasks.py",
    old="for corporation_id in corporation_ids]",
    new="for corporation_id in corporation_ids] or [report_end.si()]",
)
def test_an_empty_chain_sends_nothing_and_returns_none(lab):
    """An empty chain is no error: starting it sends nothing and returns None instead of a result."""
    assert chain([]).delay() is None
    update_in_a_chain([])
    assert_nothing_was_sent(lab)


@pytest.mark.broken_by(
    r"'update_contracts failed'",
    file="tasks.py",
    old="default_retry_delay=0.5",
    new="default_retry_delay=0.5, max_retries=0",
)
def test_a_retrying_link_holds_the_chain_until_it_succeeds(lab):
    """A link that retries holds the chain: the next runs once, after the retry succeeded, and no `link_error` runs."""
    links = [update_wallet.si(98000001), update_contracts.si(98000002), report_end.si()]
    chain(links).apply_async(link_error=note_failure.s())
    lab.settle()
    (contracts,) = lab.runs(CONTRACTS)
    done = ran(lab)
    assert done == ["update_wallet succeeded", "update_contracts succeeded", "report_end succeeded"], f"ran {done}"
    assert lines(lab) == [
        "INFO Updated the wallet of 98000001",
        "INFO Updated the contracts of 98000002",
        "INFO All are updated",
    ]
    assert len(contracts.retries) == 1
    (end,) = lab.runs(END)
    assert end.sent >= contracts.retries[0], "the next link did not wait for the retry"
    first = {event["type"]: event["timestamp"] for event in reversed(lab.events) if event.get("uuid") == contracts.id}
    assert first["task-started"] + 0.5 <= due(lab) <= first["task-retried"] + 0.5, f"due at {due(lab)}, after {first}"


@pytest.mark.broken_by(r"starmap succeeded", **NEVER_FAILS)
def test_starmap_is_one_task_that_stops_at_the_first_error(lab):
    """`starmap()` works without a result backend, as one task that calls one after the other and ends at an error."""
    update_wallet.starmap([(98000001,), (1000035,), (98000003,)]).delay()
    lab.settle()
    done = ran(lab)
    assert done == ["starmap failed"], f"ran {done}"
    assert lines(lab) == ["INFO Updated the wallet of 98000001"]


@pytest.mark.broken_by(r"the start of 2 x", file="demo_chunks.py", old="], 2)", new="], 4)")
def test_chunks_are_a_group_of_tasks_that_take_several_objects_each(lab):
    """`chunks()` works without a result backend: one task for every so many objects, side by side."""
    at_once = held(lab, "demo_chunks.py", STARMAP, 2)
    assert at_once == "2 run, 0 wait", at_once
    done = ran(lab)
    assert done == ["starmap succeeded"] * 2, f"ran {done}"
    objects = [run.kwargs.count("98000") for run in lab.runs(STARMAP)]
    assert objects == [2, 2], f"objects for each task: {objects}"
    assert sorted(lines(lab)) == [f"INFO Updated corporation {pk}" for pk in SIX[:4]]


@pytest.mark.workers
@pytest.mark.broken_by(
    r"sent \d+ messages",
    file="tasks.py",
    old="update_corporation.si(corporation_id) for",
    new="update_corporation.delay(corporation_id) and update_corporation.si(corporation_id) for",
)
def test_si_sends_nothing_until_the_chain_is_started(lab):
    """A signature made by `si()` sends nothing; starting a chain of six sends one message, that of its first link."""
    update_in_a_chain(SIX)
    messages = lab.redis.lrange(PRIORITY_5, 0, -1)
    assert len(messages) == 1, f"sent {len(messages)} messages"
    assert body(messages[0])[0] == [98000001]


@pytest.mark.workers
@pytest.mark.broken_by(
    r"the message carries", file="tasks.py", old="(links).delay()", new="(links).apply_async(link=report_end.si())"
)
def test_a_chain_of_one_runs_its_link(lab):
    """A chain of one link sends that task's message, with nothing to come after it."""
    update_in_a_chain([98000001])
    update_corporation.delay(98000001)
    # The newest comes first.
    task, link = (body(message) for message in lab.redis.lrange(PRIORITY_5, 0, -1))
    assert task[2].pop("chain") is None
    assert link[2].pop("chain") == []
    assert link == task, f"the message carries {link}"


@pytest.mark.workers
@pytest.mark.broken_by(
    r"waits in \{'celery.*': 1000\}", file="demo_long.py", old="chain(", new="__import__('celery').group("
)
@pytest.mark.broken_by(r"bytes for 1000 links", conf={"task_compression": "gzip"})
def test_the_message_of_a_chain_carries_all_links_to_come(lab):
    """A chain is one message that carries all links to come: 1,000 of them weigh about 310 KB in Redis."""
    lab.demo("demo_long.py")
    waiting = lab.waiting()
    assert waiting == {PRIORITY_5: 1}, f"waits in {waiting}"
    message = lab.redis.rpop(PRIORITY_5)
    assert 300_000 < len(message) < 320_000, f"{len(message)} bytes for 1000 links"
    (first,), _, after = body(message)
    assert [first, *(link["args"][0] for link in after["chain"][::-1])] == list(range(98000000, 98001000))
    assert all(link["immutable"] for link in after["chain"])


@pytest.mark.workers
@pytest.mark.broken_by(r"bytes for 1000 links", conf={"task_compression": "gzip"})
def test_a_link_error_makes_a_chain_more_than_half_as_heavy_again(lab):
    """With a `link_error` a chain of 1,000 links weighs about 490 KB, as every link carries the `link_error`."""
    links = [update_wallet.si(number) for number in range(98000000, 98001000)]
    chain(links).apply_async(link_error=note_failure.s())
    message = lab.redis.rpop(PRIORITY_5)
    assert 480_000 < len(message) < 500_000, f"{len(message)} bytes for 1000 links"
    after = body(message)[2]["chain"]
    assert all(link["options"]["link_error"][0]["task"] == FAILURE for link in after)


def messages(lab, count):
    """The messages of a chain of `count` links, as the broker gets them, in their order."""
    with lab.redis.monitor() as monitor:
        chain(update_wallet.si(number) for number in range(98000000, 98000000 + count)).delay()
        lab.settle(timeout=30)
        lab.redis.echo("all are sent")
        found = []
        while True:
            told = monitor.next_command()
            if "all are sent" in told["command"]:
                return found
            if told["command"].startswith("LPUSH celery") and told["db"] == lab.redis.get_connection_kwargs()["db"]:
                found.append("{" + told["command"].partition("{")[2])


@pytest.mark.broken_by(r"times the bytes", conf={"task_compression": "gzip"})
def test_twice_the_links_make_nearly_four_times_the_traffic(lab):
    """All messages of a chain of 100 links weigh nearly four times those of 50: each carries all links to come."""
    half, whole = messages(lab, 50), messages(lab, 100)
    times = sum(map(len, whole)) / sum(map(len, half))
    assert 3.7 < times < 4, f"{times:.2f} times the bytes for twice the links"
    carried = [len(body(message)[2]["chain"]) for message in whole]
    assert carried == list(range(99, -1, -1)), f"links carried: {carried}"


@pytest.mark.workers({"concurrency": 1, "paused": True})
@pytest.mark.broken_by(
    r"98000001', 'INFO Updated the wallet of 98000002'",
    file="demo_backlog.py",
    old="chain(update_wallet.si(number) for number in (98000001, 98000002, 98000003)).delay()",
    new="update_wallet.starmap([(98000001,), (98000002,), (98000003,)]).delay()",
)
def test_each_link_queues_behind_what_waits_already(lab):
    """Each link goes to the end of the queue: two chains on one thread take turns, link by link."""
    lab.demo("demo_backlog.py")
    lab.resume()
    lab.settle()
    told = lines(lab)
    turns = [98000001, 98000011, 98000002, 98000012, 98000003, 98000013]
    assert told == [f"INFO Updated the wallet of {pk}" for pk in turns], f"ran {told}"


@pytest.mark.fresh
@pytest.mark.workers({}, {"paused": True})
@pytest.mark.broken_by(r"the start of 1 x", **AS_ONE_TASK)
def test_a_chain_outlives_a_worker_that_is_stopped(lab):
    """A worker that is stopped by SIGTERM ends the link it has; the next waits in Redis, and another worker goes on."""
    worker = lab.workers[0]
    with lab.hold(CORPORATION):
        lab.demo()
        lab.started(CORPORATION, timeout=5)
        worker.signal(signal.SIGTERM)
        lab.wait(lambda: "Warm shutdown" in lab.printed(worker), "the beginning of the worker's stop")
    lab.wait(lambda: not worker.alive, "the end of the worker")
    waiting = lab.waiting()
    assert waiting == {PRIORITY_5: 1}, f"waits in {waiting}"
    # It may take one link more before it sees that it shall stop.
    ended = len(lines(lab))
    assert 1 <= ended <= 2, f"it ended {lines(lab)}"
    assert [run.state for run in lab.runs(CORPORATION)] == ["succeeded"] * ended + ["sent"]
    lab.resume(1)
    links = lab.finished(CORPORATION, 6)
    assert [run.worker for run in links] == ["worker_00"] * ended + ["worker_01"] * (6 - ended)
    assert lines(lab) == [f"INFO Updated corporation {pk}" for pk in SIX]


@pytest.mark.workers({}, {"paused": True})
@pytest.mark.broken_by(r"the acknowledgement of the link did not happen", conf={"task_acks_late": True})
def test_a_worker_that_is_killed_takes_the_chain_with_it(lab):
    """A worker that is killed takes its link and the rest of the chain with it: nothing of them is left in Redis."""
    with lab.hold(CORPORATION):
        lab.demo()
        lab.finished(CHAIN)
        lab.started(CORPORATION)
        # It comes from the worker's loop, a moment after the start.
        lab.wait(lambda: not lab.redis.hlen("unacked"), "the acknowledgement of the link", timeout=5)
        lab.kill(lab.workers[0])
    assert lab.waiting() == {}
    lab.resume(1)
    update_wallet.delay(98000001)
    lab.finished(WALLET)
    done = ran(lab)[1:]
    assert done == ["update_corporation started", "update_wallet succeeded"], f"ran {done}"
