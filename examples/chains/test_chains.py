from itertools import pairwise

import pytest
from allianceauth.authentication.task_statistics.counters import dashboard_results
from celery import current_app

from chains.tasks import update_wallet

CHAIN = "chains.tasks.update_in_a_chain"
CONTRACTS = "chains.tasks.update_contracts"
CORPORATION = "chains.tasks.update_corporation"
END = "chains.tasks.report_end"
FAILURE = "chains.tasks.note_failure"
WALLET = "chains.tasks.update_wallet"
SIX = [98000001, 98000002, 98000003, 98000004, 98000005, 98000006]
NO_CHORDS = "Starting chords requires a result backend to be configured."
# Six links of a quarter of a second, all at once.
AS_A_LOOP = {
    "file": "tasks.py",
    "old": "    chain(links).delay()",
    "new": "    for link in links:\n        link.delay()",
}
NEVER_FAILS = {"file": "tasks.py", "old": "raise ValueError(", "new": "logger.error("}
CHORDS_WORK = {"conf": {"result_backend": "cache+memory://"}}


def lines(lab):
    """What the tasks logged, line by line."""
    return [line.partition("] ")[2].partition("] ")[2] for line in lab.log_file("extensions.log").splitlines()]


def gaps(runs):
    """Seconds between the starts of one task and the next."""
    starts = sorted(run.started for run in runs)
    return [round(later - earlier, 2) for earlier, later in pairwise(starts)]


def most_at_once(runs):
    """How many of `runs`, each of which works for 0.25 s, ran at the same time at most.

    Counted by their starts: a link sends the next one a moment before its own end is told.
    """
    return max(sum(0 <= at.started - run.started < 0.24 for run in runs) for at in runs)


def ran(lab, name=None):
    """The tasks that started, each as its short name and its end."""
    return [f"{run.name.rpartition('.')[2]} {run.state}" for run in lab.runs(name) if run.started is not None]


@pytest.mark.broken_by(r"starts \[.*0\.0", **AS_A_LOOP)
@pytest.mark.broken_by(r"in the order", file="tasks.py", old="chain(links)", new="chain(links[::-1])")
def test_a_chain_runs_its_links_in_order_one_at_a_time(lab):
    """A chain runs its links in order and one at a time, although the worker has five threads."""
    lab.demo()
    links = lab.finished(CORPORATION, 6)
    done = lines(lab)
    assert done == [f"Updated corporation {pk}" for pk in SIX], f"in the order {done}"
    between = gaps(links)
    assert min(between) >= 0.24, f"seconds between starts {between}"


@pytest.mark.broken_by(
    r"1 at once",
    file="tasks.py",
    old="    for corporation_id in corporation_ids:\n        update_corporation.delay(corporation_id)",
    new="    update_in_a_chain(corporation_ids)",
)
def test_a_loop_of_delay_runs_five_at_once(lab):
    """A loop of `.delay()` fills all five threads of the worker: five of the tasks run at once."""
    lab.demo("demo_loop.py")
    tasks = lab.finished(CORPORATION, 6)
    at_once = most_at_once(tasks)
    assert at_once == 5, f"{at_once} at once"


@pytest.mark.broken_by(
    r"it took 0\.[5-9]", file="tasks.py", old="    chain(links).delay()", new="    [link() for link in links]"
)
def test_a_task_that_starts_a_chain_does_not_wait_for_it(lab):
    """A task that builds a chain and starts it ends at once, before the chain does."""
    lab.demo("demo_twice.py")
    for starter in lab.finished(CHAIN, 2):
        took = starter.ended - starter.started
        assert took < 0.49, f"it took {took:.2f} s"
    lab.finished(CORPORATION, 4)


@pytest.mark.broken_by(
    r"1 at once",
    file="demo_twice.py",
    old="update_in_a_chain.delay([98000001, 98000002])\nupdate_in_a_chain.delay([98000001, 98000002])",
    new="update_in_a_chain.delay([98000001, 98000002] * 2)",
)
def test_a_chain_started_again_runs_beside_the_first(lab):
    """A chain that is started again while it runs does not wait: both run side by side."""
    lab.demo("demo_twice.py")
    links = lab.finished(CORPORATION, 4)
    first_links = [run for run in links if "98000001" in run.args]
    at_once = most_at_once(first_links)
    assert at_once == 2, f"{at_once} at once"


@pytest.mark.broken_by(
    r"structures None", file="demo_result.py", old="update_structures.s()", new="update_structures.si(None)"
)
def test_s_hands_the_result_of_the_link_before_on(lab):
    """A link made with `s()` gets what the link before it returned, as its first argument."""
    lab.demo("demo_result.py")
    lab.settle()
    given = lines(lab)
    assert given == ["Updated the structures [1035466617946, 1038457641673]"], f"given {given}"


@pytest.mark.broken_by(
    r"fetch_structures failed", file="demo_no_result.py", old="update_wallet.si(", new="update_wallet.s("
)
def test_si_drops_the_result_of_the_link_before(lab):
    """A link made with `si()` gets its own arguments only; what the link before it returned is dropped."""
    lab.demo("demo_no_result.py")
    lab.settle()
    done = ran(lab)
    assert done == ["fetch_structures succeeded", "update_wallet succeeded"], f"ran {done}"
    assert lines(lab) == ["Updated the wallet of 98000001"]


@pytest.mark.broken_by(
    r"update_wallet succeeded",
    file="demo_wrong_link.py",
    old="update_wallet.s(98000002)",
    new="update_wallet.si(98000002)",
)
def test_a_link_that_can_not_take_the_result_fails_the_link_before_it(lab):
    """When a link made with `s()` can't take the result, the link before it fails, with its work done; no more runs."""
    lab.demo("demo_wrong_link.py")
    lab.settle()
    done = ran(lab)
    assert done == ["update_wallet failed"], f"ran {done}"
    assert lines(lab) == ["Updated the wallet of 98000001"], "the work of the first link was not done"
    told = lab.printed(lab.workers[0])
    assert "TypeError('update_wallet() takes 1 positional argument but 2 were given')" in told


@pytest.mark.broken_by(r"'update_wallet succeeded', 'update_wallet succeeded'", **NEVER_FAILS)
def test_a_failed_link_stops_the_rest_of_the_chain(lab):
    """A link that raises ends the chain: the links after it never run, those before it stay done."""
    lab.demo("demo_failing.py")
    lab.settle()
    done = ran(lab, WALLET)
    assert done == ["update_wallet succeeded", "update_wallet failed"], f"ran {done}"
    assert "Updated the wallet of 98000003" not in lines(lab)


@pytest.mark.broken_by(r"runs 0 times", file="demo_failing.py", old="note_failure.s()", new="None")
@pytest.mark.broken_by(r"runs 0 times", **NEVER_FAILS)
def test_link_error_of_the_chain_runs_once_with_the_id_of_the_failed_link(lab):
    """`link_error` given to the chain is for every link: one task, once, with the id of the link that failed."""
    lab.demo("demo_failing.py")
    lab.settle()
    callbacks = lab.runs(FAILURE)
    assert len(callbacks) == 1, f"link_error runs {len(callbacks)} times"
    (failed,) = [run for run in lab.runs(WALLET) if run.state == "failed"]
    assert callbacks[0].args == f"('{failed.id}',)"
    assert callbacks[0].state == "succeeded"


@pytest.mark.broken_by(
    r"runs 2 times",
    file="demo_link_error.py",
    old="chain(update_wallet.si(1000044), watched).delay()",
    new="chain(update_wallet.si(1000044).on_error(note_failure.s()), watched).delay()",
)
def test_link_error_of_a_link_runs_for_that_link_only(lab):
    """`link_error` given to one link (`on_error`) runs when that link fails, not when one before it fails."""
    lab.demo("demo_link_error.py")
    lab.settle()
    failed = [run.args for run in lab.runs(WALLET) if run.state == "failed"]
    assert len(failed) == 2, f"failed {failed}"
    callbacks = lab.runs(FAILURE)
    assert len(callbacks) == 1, f"it runs {len(callbacks)} times"
    (watched,) = [run for run in lab.runs(WALLET) if "1000035" in run.args]
    assert watched.id in callbacks[0].args


@pytest.mark.broken_by(
    r"ran \['update_wallet failed', 'note_reason",
    file="tasks.py",
    old="def note_reason(request, exc, traceback):\n",
    new="def note_reason(request):\n    return\n",
)
def test_a_link_error_of_three_arguments_runs_inside_the_failed_link(lab):
    """A `link_error` that takes request, exception and traceback runs inside the failed link, not as a task."""
    lab.demo("demo_reason.py")
    lab.settle()
    done = ran(lab)
    assert done == ["update_wallet failed"], f"ran {done}"
    assert lines(lab) == ["chains.tasks.update_wallet failed: 1000035 is no corporation of players"]


@pytest.mark.broken_by(r"the link failed", file="demo_wrong_link_error.py", old="report_end.s()", new="report_end.si()")
@pytest.mark.fresh
def test_a_link_error_that_can_not_take_the_id_hides_the_failure(lab):
    """With a `link_error` that can't take the id, the worker never logs the error and lists the link as running."""
    before = dashboard_results(hours=1).failed
    lab.demo("demo_wrong_link_error.py")
    lab.wait(lambda: dashboard_results(hours=1).failed > before, "the failure on Auth's dashboard")
    update_wallet.delay(98000001)
    # A later task has ended by then, so that the link had the time to.
    lab.finished(WALLET)
    (link,) = [run for run in lab.runs() if "1000035" in run.args]
    assert link.state == "started", f"the link {link.state}"
    assert "raised unexpected" not in lab.printed(lab.workers[0])
    # Any answer of the one worker there is ends the call; a second is not waited for.
    (active,) = current_app.control.inspect(limit=1, timeout=5).active().values()
    assert [request["id"] for request in active] == [link.id]


@pytest.mark.broken_by(
    r"1 at once", file="demo_group.py", old="from celery import group", new="from celery import chain as group"
)
def test_a_group_runs_its_tasks_side_by_side(lab):
    """A group works without a result backend: its tasks run side by side, like those of the loop."""
    lab.demo("demo_group.py")
    at_once = most_at_once(lab.finished(CORPORATION, 6))
    assert at_once == 5, f"{at_once} at once"


@pytest.mark.broken_by(r"[345] at once", file="demo_lanes.py", old="chain(links[lane::2])", new="group(links[lane::2])")
def test_a_group_of_chains_runs_the_chains_side_by_side(lab):
    """A group of two chains works without a result backend: two links run at once, each chain in its own order."""
    lab.demo("demo_lanes.py")
    at_once = most_at_once(lab.finished(CORPORATION, 6))
    assert at_once == 2, f"{at_once} at once"


@pytest.mark.broken_by(r"1 at once", file="demo_group_at_the_end.py", old="together = group(", new="together = chain(")
def test_a_chain_may_end_in_a_group(lab):
    """A chain whose last link is a group works without a result backend: the group starts after the link before it."""
    lab.demo("demo_group_at_the_end.py")
    members = lab.finished(CORPORATION, 2)
    (first,) = lab.runs(WALLET)
    assert first.started < min(run.started for run in members)
    at_once = most_at_once(members)
    assert at_once == 2, f"{at_once} at once"


@pytest.mark.broken_by(r"printed ''", **CHORDS_WORK)
def test_a_chord_raises_at_the_call_and_nothing_is_sent(lab, capsys):
    """A chord raises `NotImplementedError` where it is started, and none of its tasks is sent."""
    lab.demo("demo_chord.py")
    printed = capsys.readouterr().out
    assert printed.startswith(NO_CHORDS), f"printed {printed!r}"
    lab.demo("demo_one.py")
    (sentinel,) = lab.finished(WALLET)
    assert [run.id for run in lab.settle()] == [sentinel.id], "the call sent a message"


@pytest.mark.broken_by(r"printed ''", **CHORDS_WORK)
def test_a_group_followed_by_a_task_is_a_chord_and_raises_too(lab, capsys):
    """A group followed by a task raises the same error at the call, also in the middle of a chain; nothing is sent."""
    lab.demo("demo_group_then_task.py")
    printed = capsys.readouterr().out
    assert printed == f"{NO_CHORDS}\n" * 2, f"printed {printed!r}"
    lab.demo("demo_one.py")
    (sentinel,) = lab.finished(WALLET)
    assert [run.id for run in lab.settle()] == [sentinel.id], "the call sent a message"


@pytest.mark.broken_by(
    r"Starting chords requires",
    file="demo_group_of_one.py",
    old="group([update_wallet.si(98000001)])",
    new="group([update_wallet.si(98000001), update_wallet.si(98000002)])",
)
def test_a_group_of_one_followed_by_a_task_works(lab):
    """A group of a single task followed by a task works: Celery takes the group away, and a plain chain is left."""
    lab.demo("demo_group_of_one.py")
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


@pytest.mark.broken_by(
    r"98000003: priority 7",
    file="demo_options.py",
    old="links = [show_options.si(number) for",
    new="links = [show_options.si(number).set(priority=7) for",
)
def test_priority_and_countdown_of_a_chain_are_for_its_first_link(lab):
    """`priority` and `countdown` given to a chain are for its first link only; the others have priority 5, no delay."""
    lab.demo("demo_options.py")
    links = lab.finished("chains.tasks.show_options", 3)
    # Counted from before the call: the event that tells of the sending comes a little later than the countdown's start.
    assert links[0].started >= 0.5, "the first link did not wait"
    told = lines(lab)
    assert told == [
        "Corporation 98000001: priority 7, later",
        "Corporation 98000002: priority 5, at once",
        "Corporation 98000003: priority 5, at once",
    ], f"told {told}"


@pytest.mark.broken_by(r"98000001: priority 5", file="demo_options_of_links.py", old=".set(priority=7)", new="")
def test_a_priority_set_on_each_link_is_kept(lab):
    """A priority that is set on each link with `.set(priority=7)` is what each link runs with."""
    lab.demo("demo_options_of_links.py")
    lab.finished("chains.tasks.show_options", 3)
    told = lines(lab)
    assert told == [f"Corporation {pk}: priority 7, at once" for pk in SIX[:3]], f"told {told}"


@pytest.mark.broken_by(
    r"printed '[0-9a-f]{8}-",
    file="demo_empty.py",
    old="chain([])",
    new="chain([__import__('chains.tasks').tasks.report_end.si()])",
)
def test_an_empty_chain_sends_nothing_and_returns_none(lab, capsys):
    """An empty chain is no error: starting it sends nothing and returns None instead of a result."""
    lab.demo("demo_empty.py")
    printed = capsys.readouterr().out
    assert printed == "None\n", f"printed {printed!r}"
    lab.demo("demo_one.py")
    (sentinel,) = lab.finished(WALLET)
    assert [run.id for run in lab.settle()] == [sentinel.id], "the call sent a message"


@pytest.mark.broken_by(
    r"ran \['update_wallet succeeded', 'update_wallet",
    file="demo_one.py",
    old="[update_wallet.si(98000001)]",
    new="[update_wallet.si(98000001)] * 2",
)
def test_a_chain_of_one_runs_its_link(lab):
    """A chain of one link is that task, no more."""
    lab.demo("demo_one.py")
    lab.settle()
    done = ran(lab)
    assert done == ["update_wallet succeeded"], f"ran {done}"


@pytest.mark.broken_by(
    r"'update_contracts failed'",
    file="tasks.py",
    old="default_retry_delay=0.5",
    new="default_retry_delay=0.5, max_retries=0",
)
def test_a_retrying_link_holds_the_chain_until_it_succeeds(lab):
    """A link that retries holds the chain: the next runs once, after the retry succeeded, and no `link_error` runs."""
    lab.demo("demo_retry.py")
    lab.settle()
    (contracts,) = lab.runs(CONTRACTS)
    done = ran(lab)
    assert done == ["update_wallet succeeded", "update_contracts succeeded", "report_end succeeded"], f"ran {done}"
    assert len(contracts.retries) == 1
    (end,) = lab.runs(END)
    assert end.started - contracts.started >= 0.45, "the next link did not wait for the retry"


@pytest.mark.broken_by(r"celery.starmap succeeded|starmap succeeded", **NEVER_FAILS)
def test_starmap_is_one_task_that_stops_at_the_first_error(lab):
    """`starmap()` works without a result backend, as one task that calls one after the other and ends at an error."""
    lab.demo("demo_starmap.py")
    lab.settle()
    done = ran(lab)
    assert done == ["starmap failed"], f"ran {done}"
    assert lines(lab) == ["Updated the wallet of 98000001"]


@pytest.mark.broken_by(r"ran \['starmap succeeded'\]", file="demo_chunks.py", old="], 2)", new="], 4)")
def test_chunks_are_a_group_of_tasks_that_take_several_objects_each(lab):
    """`chunks()` works without a result backend: one task for every so many objects, side by side."""
    lab.demo("demo_chunks.py")
    lab.settle()
    done = ran(lab)
    assert done == ["starmap succeeded"] * 2, f"ran {done}"
    assert len(lines(lab)) == 4
    at_once = most_at_once(lab.runs("celery.starmap"))
    assert at_once == 2, f"{at_once} at once"


@pytest.mark.workers
@pytest.mark.broken_by(
    r"waits in \{'celery.*': 1000\}", file="demo_long.py", old="chain(", new="__import__('celery').group("
)
@pytest.mark.broken_by(r"bytes for 1000 links", conf={"task_compression": "gzip"})
def test_the_message_of_a_chain_carries_all_links_to_come(lab):
    """A chain is one message that carries all links to come: 1,000 of them weigh about 300 KB in Redis."""
    lab.demo("demo_long.py")
    waiting = lab.waiting()
    assert waiting == {"celery\x06\x165": 1}, f"waits in {waiting}"
    size = len(lab.redis.lindex("celery\x06\x165", 0))
    assert 250_000 < size < 350_000, f"{size} bytes for 1000 links"
    lab.record(bytes=size)


@pytest.mark.workers({"concurrency": 1, "paused": True})
@pytest.mark.broken_by(
    r"'All are updated', 'Updated the wallet of",
    file="demo_backlog.py",
    old="report_end.si()",
    new="report_end.si().set(priority=4)",
)
def test_each_link_queues_behind_what_waits_already(lab):
    """Each link goes to the end of the queue: what was sent before the link before it ended runs first."""
    lab.demo("demo_backlog.py")
    lab.resume()
    lab.settle()
    told = lines(lab)
    assert told == [f"Updated the wallet of {pk}" for pk in SIX[:4]] + ["All are updated"], f"ran {told}"


@pytest.mark.fresh
@pytest.mark.workers({}, {"paused": True})
@pytest.mark.broken_by(r"waits in \{\}|waits in \{'celery.*': [2-6]\}", **AS_A_LOOP)
def test_a_chain_outlives_a_worker_that_is_stopped(lab):
    """A worker that is stopped by SIGTERM ends its link first; the next waits in Redis, and another worker goes on."""
    lab.demo()
    lab.started(CORPORATION)
    lab.stop(lab.workers[0])
    waiting = lab.waiting()
    assert waiting == {"celery\x06\x165": 1}, f"waits in {waiting}"
    lab.resume(1)
    links = lab.finished(CORPORATION, 6)
    assert {run.worker for run in links} == {"worker_00", "worker_01"}
    assert lines(lab) == [f"Updated corporation {pk}" for pk in SIX]


@pytest.mark.workers({}, {"paused": True})
@pytest.mark.broken_by(r"the acknowledgement of the link did not happen", conf={"task_acks_late": True})
def test_a_worker_that_is_killed_takes_the_chain_with_it(lab):
    """A worker that is killed takes its link and the rest of the chain with it: nothing of them is left in Redis."""
    lab.demo("demo_killed.py")
    lab.started(CORPORATION)
    # It comes from the worker's loop, a moment after the start.
    lab.wait(lambda: not lab.redis.hlen("unacked"), "the acknowledgement of the link", timeout=3)
    lab.kill(lab.workers[0])
    assert lab.waiting() == {}
    lab.resume(1)
    update_wallet.delay(98000001)
    lab.finished(WALLET)
    done = ran(lab)
    assert done == ["update_corporation started", "update_wallet succeeded"], f"ran {done}"
