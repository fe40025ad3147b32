import inspect
import socket
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import partial
from itertools import cycle
from operator import attrgetter

import pytest
import requests
from celery import chain, current_app
from celery.exceptions import MaxRetriesExceededError
from django.core.cache import cache

from retries import tasks
from retries.stand_in import Server

CORPORATION = "retries.tasks.update_corporation"
LOCKS = "qo_retries.tasks.update_killmails_*"
IDS = range(98000001, 98000021)
RETRIED = (420, 429, 502, 503, 504)


def broken(old, new):
    """Break the chapter's tasks."""
    return {"file": "tasks.py", "old": old, "new": new}


def options(task, before, after):
    """Break the options of a task."""
    end = f")\ndef {task}("
    return broken(before + end, after + end)


def paths(kind):
    """Return the paths that twenty corporations' tasks ask for."""
    return [f"/{kind}/{number}" for number in IDS]


def ask(task, esi, numbers=IDS, **given):
    """Start `task` for each of `numbers` against the server `esi`; return their ids."""
    return [task.apply_async([number, esi.url], **given).id for number in numbers]


def starts(rig, one):
    """Return when each attempt of a task began, in order."""
    return [event["timestamp"] for event in rig.events if (event["type"], event.get("uuid")) == ("task-started", one)]


def tries(rig):
    """Return by task how long its first retry waits: at least, and at most, by the worker's own clock.

    It begins after its receipt. Of its start a worker of prefork tells late.
    """
    began, sent = {}, {}
    for event in rig.events:
        if event["type"] == "task-received":
            began.setdefault(event["uuid"], event["timestamp"])
        elif event["type"] == "task-sent":
            sent.setdefault(event["uuid"], {})[event["retries"]] = event
    found = {}
    for one in began:
        if len(sent.get(one, ())) > 1:
            retry = sent[one][sorted(sent[one])[1]]
            # A retry that waits for nothing has no time.
            due = datetime.fromisoformat(retry["eta"]).timestamp() if retry["eta"] else retry["timestamp"]
            found[one] = (due - retry["timestamp"], due - began[one])
    return found


def waits(rig, ids, seconds, words):
    """See that the first retry of each of `ids` waits so many `seconds`, one number for each."""
    rig.wait(lambda: set(ids) <= set(tries(rig)), "a retry of each")
    spans = [tries(rig)[one] for one in ids]
    fits = [least <= wanted <= most for (least, most), wanted in zip(spans, seconds, strict=True)]
    assert all(fits), f"{words} {[round(least, 1) for least, _ in spans]}"


def retried(rig, name, count):
    """Wait for the retries of the one task called `name`: an attempt may tell of its own when the last has ended."""
    return rig.wait(lambda: len(times := rig.runs(name)[0].retries) == count and times, f"{count} retries")


def updated(rig):
    """Return what was updated, in the order of the log."""
    return [line.split()[2] for line in rig.logged() if line.startswith("INFO Updated /")]


class Limited(Server):
    """Tells all to come back at a time `until`, some `seconds` away; `refused` counts those who were told so."""

    def __init__(self, status, seconds):
        self.status, self.refused = status, 0
        self.until = (datetime.now(UTC) + timedelta(seconds=seconds + 1)).replace(microsecond=0)
        super().__init__(200)

    def answer(self, path):
        found = super().answer(path)
        if datetime.now(UTC) >= self.until:
            return found
        self.refused += 1
        return self.status, {"Retry-After": format_datetime(self.until, usegmt=True)}


class Stumbling(Server):
    """Answers the first request for one path with 503 and a second to wait, and all others with 200."""

    def __init__(self, path):
        self.path = path
        super().__init__(200)

    def answer(self, path):
        found = super().answer(path)
        first = path == self.path and self.asked.count(path) == 1
        return (503, {"Retry-After": "1"}) if first else found


# ---- what is tried again


@pytest.mark.broken_by(
    r"logged \['INFO Corporation 98000001: attempt 1'\]",
    **options("update_corporation", "autoretry_for=(TryLater,), max_retries=5, retry_backoff=True", "max_retries=5"),
)
def test_a_task_with_autoretry_for_is_tried_again_until_it_succeeds(rig):
    """A task that raises what `autoretry_for` names is tried again until it succeeds, under the same id."""
    (run,) = rig.settle(after="demo.py")
    attempts = [f"INFO Corporation 98000001: attempt {number}" for number in (1, 2, 3)]
    rig.same(rig.logged(), [*attempts, "INFO Updated /corporations/98000001"], "logged {}")
    assert (run.state, len(starts(rig, run.id))) == ("succeeded", 3)
    retried(rig, run.name, 2)


@pytest.mark.broken_by(
    r"updated \[\]", **broken("    if response.status_code in (", "    if response.status_code not in (")
)
@pytest.mark.broken_by(r"updated ", **broken("502, 503, 504)", "502, 504)"))
def test_of_twenty_tasks_that_meet_what_may_pass_each_is_done_once(rig):
    """Twenty tasks that meet a 420, 429, 502, 503 or 504 are each tried again, and each is done once.

    `autoretry_for` does not look at the `Retry-After` that comes with it.
    """
    servers = {status: Server((status, {"Retry-After": "600"}), 200) for status in RETRIED}
    for number, esi in zip(IDS, cycle(servers.values())):
        tasks.update_corporation.delay(number, esi.url)
    rig.settle()
    rig.same(sorted(updated(rig)), paths("corporations"), "updated {}")
    rig.same([len(esi.asked) for esi in servers.values()], [8] * 5, "each four were asked for {} times")


@pytest.mark.broken_by(r"asked 2 times", **broken("502, 503, 504)", "502, 503, 504, 403, 404)"))
def test_what_will_not_pass_fails_at_once(rig):
    """403 and 404 raise `HTTPError`, which `autoretry_for` does not name: the task fails at its first attempt."""
    for status in (403, 404):
        esi = Server(status, 200)
        one = tasks.update_corporation.delay(status, esi.url).id
        (run,) = [run for run in rig.settle() if run.id == one]
        assert len(esi.asked) == 1, f"asked {len(esi.asked)} times"
        assert (run.state, run.exception[:14]) == ("failed", f"HTTPError('{status}")


@pytest.mark.broken_by(
    r"asked 1 times", **broken("autoretry_for=(Exception,)", "autoretry_for=(TryLater,), retry_backoff=False")
)
def test_autoretry_for_exception_asks_four_times_for_what_is_not_there(rig):
    """With `autoretry_for=(Exception,)` a 404 is asked for four times: `max_retries` is 3 if you set none."""
    esi = Server(404)
    tasks.update_members.delay(98000001, esi.url)
    (run,) = rig.settle()
    assert len(esi.asked) == 4, f"asked {len(esi.asked)} times"
    assert run.state == "failed"
    retried(rig, run.name, 3)
    waits(rig, [run.id], [0.1], "it waits")


@pytest.mark.broken_by(r"4 attempts", **options("update_standings", "max_retries=5", "max_retries=3"))
@pytest.mark.broken_by(r"1 attempts", **broken("requests.ConnectionError, requests.Timeout", "requests.Timeout"))
@pytest.mark.broken_by(
    r"the log has 0 tracebacks", **options("update_standings", "max_retries=5", "max_retries=5, throws=(TryLater,)")
)
def test_max_retries_of_five_makes_six_attempts_and_one_traceback(rig):
    """With `max_retries=5` a refused connection is tried six times; the log has the traceback of the last attempt."""
    (worker,) = rig.workers
    with socket.socket() as nobody:
        # Taken, but not listened at.
        nobody.bind(("127.0.0.1", 0))
        tasks.update_standings.delay(98000001, f"http://127.0.0.1:{nobody.getsockname()[1]}")
        (run,) = rig.settle()
    assert len(starts(rig, run.id)) == 6, f"{len(starts(rig, run.id))} attempts"
    assert (run.state, run.exception) == ("failed", "TryLater('no answer')")
    waits(rig, [run.id], [0.1], "it waits")
    told = rig.printed(worker).count("raised unexpected: TryLater")
    assert told == 1, f"the log has {told} tracebacks"


@pytest.mark.broken_by(
    r"the log has",
    **options("update_standings", "max_retries=5", "max_retries=5, on_retry=lambda *_: logger.error('r')"),
)
def test_a_retry_leaves_no_line_in_the_workers_log(rig):
    """With Auth's command line a retry leaves no line in the worker's log."""
    (worker,) = rig.workers
    tasks.update_standings.delay(98000001, Server(502, 200).url)
    (run,) = rig.settle()
    retried(rig, run.name, 1)
    rig.wait(lambda: "Updated" in rig.printed(worker), "the last line")
    lines = [line for line in rig.printed(worker).splitlines() if "Updated /standings" not in line]
    assert not lines, f"the log has {lines}"


@pytest.mark.broken_by(r"failed with TryLater", **broken("raise self.retry()", "raise self.retry(exc=error)"))
def test_without_exc_the_last_failure_does_not_name_the_reason(rig):
    """After the last attempt the task fails with its own error; after `self.retry()` without `exc`, with another."""
    esi = Server((502, {"Retry-After": "1"}))
    tasks.update_roles.apply_async([98000001, esi.url], retries=3)
    for task in (tasks.update_corporation, tasks.update_character, tasks.update_wallet):
        task.apply_async([98000001, esi.url], retries=5)
    for task in (tasks.update_each, tasks.update_rest, tasks.update_all):
        task.apply_async([[98000001], esi.url], retries=5)
    for task in (tasks.update_assets, tasks.update_killmails):
        task.apply_async([98000001, esi.url], retries=10)
    found = {run.name.rpartition(".")[2]: run.exception for run in rig.settle()}
    assert len(esi.asked) == 9, f"asked {len(esi.asked)} times"
    reason = found.pop("update_roles")
    assert reason.startswith(MaxRetriesExceededError.__name__), f"update_roles failed with {reason}"
    assert set(found.values()) == {"TryLater('status 502')"}, found


@pytest.mark.broken_by(r"updated \[\]", **broken("max_retries=None", "max_retries=500"))
def test_max_retries_of_none_never_ends(rig):
    """With `max_retries=None` a task is tried again even after a thousand attempts."""
    run = tasks.update_loyalty.apply_async([98000001, Server(502, 200).url], retries=1000).id
    rig.settle()
    rig.same(updated(rig), ["/loyalty/98000001"], "updated {}")
    waits(rig, [run], [0.2], "it waits")


@pytest.mark.workers
@pytest.mark.broken_by(
    r"raised nothing", **broken("priority=9) from error", "priority=9) if self.request.id else None")
)
def test_called_like_a_function_a_task_is_not_tried_again(rig):
    """Called like a function, a task raises the error at once, with `autoretry_for` as with `self.retry()`."""
    for task in (tasks.update_corporation, tasks.update_standings):
        esi, raised = Server(502), "nothing"
        try:
            task(98000001, esi.url)
        except tasks.TryLater as error:
            raised = str(error)
        except TypeError:
            pass
        assert (raised, len(esi.asked)) == ("status 502", 1), f"raised {raised}"
    assert rig.waiting() == {}


# ---- what a retry keeps


@pytest.mark.broken_by(r"with priority 2", **broken("countdown=0.1, priority=9)", "countdown=0.1)"))
def test_a_retry_can_be_given_another_priority(rig):
    """`self.retry(priority=9)` gives the retry that priority, whatever the task was started with."""
    tasks.update_standings.apply_async([98000001, Server(502, 200).url], priority=2)
    rig.settle()
    (line,) = rig.logged()
    assert line == "INFO Updated /standings/98000001 with priority 9", f"logged {line}"


@pytest.mark.broken_by(
    r"the second report", **broken("            titles =", "            self.max_retries = 0\n            titles =")
)
def test_a_retry_that_is_caught_runs_the_next_link_twice(rig):
    """In a chain, `except Exception` around `self.retry()` lets the next link run before the retry, and again after."""
    done = "INFO Corporation 98000001 is done"
    with rig.hold("retries.tasks.update_titles"):
        esi = rig.demo("demo_caught.py")["esi"]
        # The second attempt gets its answer when the first report is there.
        esi.answers = (502, None)
    rig.wait(lambda: done in rig.logged(), "the first report")
    esi.speak.set()
    rig.wait(lambda: rig.logged().count(done) == 2, "the second report")
    titles = rig.settle()[0]
    assert rig.logged() == [
        "ERROR The titles of 98000001 are not updated",
        "INFO Corporation 98000001 is done",
        "INFO Updated /titles/98000001",
        "INFO Corporation 98000001 is done",
    ], rig.logged()
    waits(rig, [titles.id], [0.2], "it waits")


@pytest.mark.broken_by(r"logged \['ERROR .*done", **broken("    except Retry:\n        raise\n", ""))
def test_a_retry_that_is_passed_on_runs_the_next_link_once(rig):
    """With `except Retry: raise` before it the next link runs once, after the retry that succeeds."""
    medals = rig.settle(after="demo_passed_on.py")[0]
    waits(rig, [medals.id], [0.2], "it waits")
    rig.same(rig.logged(), ["INFO Updated /medals/98000001", "INFO Corporation 98000001 is done"], "logged {}")
    tasks.update_medals.delay(98000002, Server(404).url)
    rig.settle()
    assert rig.logged()[2:] == ["ERROR The medals of 98000002 are not updated"], rig.logged()


@pytest.mark.broken_by(r"asked for", **broken("rest = corporation_ids[number:]", "rest = corporation_ids"))
def test_a_retry_begins_at_the_first_line_unless_it_is_handed_the_rest(rig):
    """A retry repeats what was done before the error; one that is handed the rest as its arguments does not.

    With twenty corporations, of which the eighteenth is refused at first.
    """
    servers = {task: Stumbling("/corporations/98000018") for task in (tasks.update_each, tasks.update_rest)}
    for task, esi in servers.items():
        task.delay(list(IDS), esi.url)
    rig.settle()
    found = [[int(path[-2:]) for path in esi.asked] for esi in servers.values()]
    wanted = [[*range(1, 19), *range(1, 21)], [*range(1, 19), *range(18, 21)]]
    rig.same(found, wanted, "asked for {}")
    rig.same(sorted(updated(rig)), sorted([*paths("corporations")[:17], *paths("corporations") * 2]), "updated {}")


@pytest.mark.timed(0.5)
@pytest.mark.broken_by(
    r"ended \['succeeded'\]",
    **options("update_killmails", "retry_backoff=True, retry_jitter=False", "default_retry_delay=0"),
)
def test_a_retry_that_is_due_after_the_expiry_is_thrown_away(rig):
    """A retry keeps the time of expiry: one that is due later is thrown away, and a `QueueOnce` lock stays."""
    tasks.update_killmails.apply_async([98000001, Server(502, 200).url], expires=1)
    states = [run.state for run in rig.settle()]
    assert states == ["revoked"], f"ended {states}"
    assert len(cache.keys(LOCKS)) == 1
    assert updated(rig) == []


# ---- when the server says how long


@pytest.mark.broken_by(
    r"waits", **broken("countdown=error.wait) from error\n        raise", "countdown=3) from error\n        raise")
)
def test_a_task_waits_as_long_as_the_server_asks(rig):
    """A task that is told to wait a second, in `Retry-After`, is tried again after a second, and done once."""
    (run,) = rig.settle(after="demo_wait.py")
    waits(rig, [run.id], [1], "it waits")
    assert updated(rig) == ["/wallets/98000001"]


@pytest.mark.broken_by(r"it waits", **broken("reset=0.5)", "reset=2)"))
def test_django_esis_decorator_tries_again_after_the_reset(rig):
    """`rate_limit_retry_task` of django-esi makes of an `ESIErrorLimitException` a retry after the reset it names."""
    run = tasks.update_blueprints.delay(98000001).id
    rig.settle()
    waits(rig, [run], [0.5], "it waits")
    assert rig.logged() == ["INFO Updated the blueprints of 98000001"]


@pytest.mark.broken_by(r"refused ([6-9]|1\d|20)", **broken("    if left:\n", "    if left is None:\n"))
def test_a_gate_in_the_cache_keeps_the_others_from_asking(rig):
    """With a gate in the cache at most five of twenty tasks, one for each thread, ask while the server says to wait.

    All twenty are done once.
    """
    esi = Limited(420, 2)
    ask(tasks.update_assets, esi)
    rig.settle()
    assert esi.refused <= 5, f"refused {esi.refused}"
    assert len(esi.asked) == 20 + esi.refused
    rig.same(sorted(updated(rig)), paths("assets"), "updated {}")


@pytest.mark.broken_by(
    r"20 of the twenty were sent before",
    **broken(
        'fetch(f"{esi}/status")\n    except TryLater as error:\n',
        'fetch(f"{esi}/status")\n    except TryLater as error:\n        for number in corporation_ids:\n'
        "            update_corporation.delay(number, esi)\n",
    ),
)
def test_a_task_that_asks_first_starts_the_others_when_the_server_is_back(rig):
    """A task that asks first and is told to wait retries alone; it sends its twenty tasks when the server is back.

    All twenty are done once.
    """
    esi = Stumbling("/status")
    tasks.update_all.delay(list(IDS), esi.url)
    rig.settle()
    (again,) = rig.runs("retries.tasks.update_all")
    assert len(rig.runs(CORPORATION)) in (20, 40)
    # What tells of a retry may come late: its receipt by the worker comes before all that it sends.
    early = [run for run in rig.runs(CORPORATION) if run.sent < again.received]
    assert not early, f"{len(early)} of the twenty were sent before"
    rig.same(sorted(updated(rig)), paths("corporations"), "updated {}")
    rig.same(sorted(esi.asked), [*paths("corporations"), "/status", "/status"], "asked for {}")


# ---- what holds a thread


@pytest.mark.broken_by(
    r"before one of them has ended",
    **broken("time.sleep(error.wait)", "raise update_fleet.retry(countdown=error.wait)"),
)
def test_a_task_that_sleeps_instead_of_retrying_holds_its_thread(rig):
    """Five tasks that sleep for as long as the server asks fill a worker of five threads: an urgent task waits."""
    esi = Server((429, {"Retry-After": "1"}), 200)
    ask(tasks.update_fleet, esi, range(5))
    rig.wait(lambda: len(esi.asked) >= 5, "the five requests")
    urgent = tasks.update_wallet.apply_async([98000001, Server(200).url], priority=0).id
    runs = {run.id: run for run in rig.settle()}
    first = min(run.ended for run in rig.runs("retries.tasks.update_fleet"))
    assert runs[urgent].started >= first, "it started before one of them has ended"
    assert all(run.ended - run.started >= 1 for run in rig.runs("retries.tasks.update_fleet"))
    assert ({run.state for run in runs.values()}, len(esi.asked)) == ({"succeeded"}, 10)


@pytest.mark.broken_by(r"they have \['failed|the five requests", **broken("timeout = None", "timeout = 0.01"))
def test_without_a_timeout_a_silent_server_holds_the_threads(rig):
    """Without a timeout five requests fill a worker of five threads for as long as the server is silent."""
    assert inspect.signature(requests.Session.request).parameters["timeout"].default is None
    esi = Server(None)
    ask(tasks.update_orders, esi, range(5), retries=3)
    rig.wait(lambda: len(esi.asked) >= 5, "the five requests")
    urgent = tasks.update_wallet.apply_async([98000001, Server(200).url], priority=0).id
    rig.wait(lambda: any(run.received for run in rig.runs() if run.id == urgent), "the urgent one's receipt")
    begun, ended = ([run.id for run in rig.runs() if at(run)] for at in (attrgetter("started"), attrgetter("ended")))
    esi.speak.set()
    rig.settle()
    states = sorted(run.state for run in rig.runs("retries.tasks.update_orders"))
    assert states == ["succeeded"] * 5, f"they have {states}"
    assert urgent not in begun, "the urgent one has begun"
    assert not ended, "they have not waited"


@pytest.mark.broken_by(
    r"updated \[\]", **broken("requests.ConnectionError, requests.Timeout", "requests.ConnectionError")
)
def test_with_a_timeout_a_silent_server_makes_retries(rig):
    """With a timeout a request to a silent server is tried again: five of them are done once each."""
    esi = Server(None, 200)
    for number in IDS[:5]:
        tasks.update_jobs.delay(number, esi.url, timeout=0.3)
    rig.settle()
    rig.same(sorted(updated(rig)), paths("jobs")[:5], "updated {}")
    rig.wait(lambda: all(run.retries for run in rig.runs()), "a retry of each")


# ---- what a worker holds; retries that are left there are never due


def held_or_late(rig, ids, esi):
    """Return whether a worker holds ten retries of `ids`, or the time to come back has come."""
    taken = {event["uuid"] for event in rig.events if event["type"] == "task-received" and event["eta"]}
    return len(taken & set(ids)) >= 10 or datetime.now(UTC) > esi.until


@pytest.mark.workers
@pytest.mark.broken_by(r"it was fetched .* s before", conf={"worker_eta_task_limit": 1000})
def test_when_a_worker_holds_as_many_retries_as_it_may_an_urgent_task_waits_for_them(rig, monkeypatch):
    """When a worker holds as many retries as Auth lets it, an urgent task is fetched only when they are due.

    Measured with a tenth of Auth's limit, 10 in place of 100, and 15 tasks whose server tells all to come back later.
    """
    limit = current_app.conf.worker_eta_task_limit
    monkeypatch.setitem(current_app.conf, "worker_eta_task_limit", limit // 10)
    rig.start_worker()

    for ahead in (1, 4, 16):
        esi = Limited(503, ahead)
        ids = ask(tasks.update_wallet, esi, range(98000001, 98000016), priority=7)
        rig.wait(partial(held_or_late, rig, ids, esi), "what it can hold", timeout=30)
        urgent = tasks.update_corporation.apply_async([98000001, Server(200).url], priority=0).id
        in_time = datetime.now(UTC) < esi.until
        runs = {run.id: run for run in rig.settle(timeout=30)}
        if in_time:
            break
    (sent,) = [event["timestamp"] for event in rig.events if event["type"] == "task-sent" and event["uuid"] == urgent]
    began = sent - runs[urgent].sent
    due, fetched = esi.until.timestamp() - began, runs[urgent].received
    assert fetched >= due, f"it was fetched {due - fetched:.1f} s before they were due"
    first = runs[ids[0]].sent
    # Who has its first attempt when the server is back needs no second.
    again = [times[1] - began for one in ids if len(times := starts(rig, one)) > 1]
    rig.chart(
        "held_retries",
        "staircase",
        [
            ("failed", [starts(rig, one)[0] - began - first for one in ids]),
            ("tried again", [at - first for at in again]),
        ],
        counted="tasks",
        marks=[(runs[urgent].sent - first, "urgent task sent"), (runs[urgent].started - first, "urgent task starts")],
        values={
            "tasks": len(ids),
            "held": limit // 10,
            "limit": limit,
            "seconds": f"{runs[urgent].started - runs[urgent].sent:.1f}",
        },
    )


@pytest.mark.fresh
@pytest.mark.broken_by(
    r"it holds [345]",
    **broken('        fetch(f"{esi}/status")\n', "        [update_wallet.delay(1, esi), fetch(esi)]\n"),
)
def test_one_message_for_many_objects_is_one_retry_that_is_held(rig):
    """While the server is down a task with a list, a chain, and a task that asks first each hold one retry.

    Each stands for twenty objects. An urgent task runs meanwhile.
    """
    down = Server((503, {"Retry-After": "600"}))
    for task in (tasks.update_rest, tasks.update_all):
        task.delay(list(IDS), down.url)
    chain(tasks.update_wallet.si(number, down.url) for number in IDS).delay()
    rig.wait(lambda: len(tries(rig)) >= 3, "three retries")
    tasks.update_corporation.apply_async([98000001, Server(200).url], priority=0)
    rig.finished(CORPORATION)
    # What a worker takes is for a moment in neither.
    rig.wait(lambda: not rig.waiting() and rig.redis.hlen("unacked") >= 3, "the receipt of all")
    assert rig.redis.hlen("unacked") == len(down.asked) == 3, f"it holds {rig.redis.hlen('unacked')}"


@pytest.mark.fresh
@pytest.mark.broken_by(
    r"an hour's backoff waits",
    **options("update_contracts", "retry_jitter=False", "retry_backoff_max=7200, retry_jitter=False"),
)
@pytest.mark.broken_by(
    r"a minute's backoff waits", **broken("retry_backoff=60, retry_jitter=False", "default_retry_delay=60")
)
@pytest.mark.broken_by(r"it waits", **broken("max_retries=10, retry_backoff=True", "max_retries=10, retry_backoff=2"))
def test_the_wait_doubles_up_to_ten_minutes(rig):
    """Without jitter `retry_backoff=True` waits 1, 2, 4, … s, and 60 waits 60, 120, 240, … s; none waits over 600 s."""
    down = Server(502)
    begun = [
        [task.apply_async([number, down.url], retries=number).id for number in range(count)]
        for task, count in ((tasks.update_killmails, 10), (tasks.update_character, 5), (tasks.update_contracts, 3))
    ]
    waits(rig, begun[0], [1, 2, 4, 8, 16, 32, 64, 128, 256, 512], "it waits")
    waits(rig, begun[1], [60, 120, 240, 480, 600], "a minute's backoff waits")
    waits(rig, begun[2], [600, 600, 600], "an hour's backoff waits")


@pytest.mark.fresh
@pytest.mark.broken_by(
    r"they wait", **options("update_corporation", "retry_backoff=True", "retry_backoff=True, retry_jitter=False")
)
def test_jitter_takes_any_number_of_seconds_up_to_the_wait(rig):
    """By default the wait is random, from none to all of the backoff: of twenty tasks few come back together.

    Without jitter all twenty come back after the same time.
    """
    down = Server(502)
    found = []
    for task in (tasks.update_corporation, tasks.update_killmails):
        ids = ask(task, down, retries=4)
        rig.wait(lambda ids=ids: set(ids) <= set(tries(rig)), "a retry of each")
        found.append(sorted(tries(rig)[one] for one in ids))
    spread = [round(most) for _, most in found[0]]
    assert all(least <= 16 for least, _ in found[0]), found
    assert spread[0] < 8 < spread[-1], f"they wait {spread}"
    assert len(set(spread)) > 5, f"they wait {spread}"
    assert all(least <= 16 <= most for least, most in found[1]), found
    rows = [
        (name, [max(0, least) for least, _ in those])
        for name, those in zip(("with jitter", "without"), found, strict=True)
    ]
    rig.chart("jitter", "staircase", rows, counted="due", values={"count": len(ids), "most": 16})


@pytest.mark.fresh
@pytest.mark.broken_by(
    r"it waits",
    **broken(
        "@shared_task(autoretry_for=(TryLater,))", "@shared_task(autoretry_for=(TryLater,), default_retry_delay=60)"
    ),
)
@pytest.mark.broken_by(r"it waits", **broken("raise self.retry()", "raise self.retry(countdown=5)"))
def test_without_a_backoff_a_retry_waits_three_minutes(rig):
    """A retry waits 180 s where `autoretry_for` stands alone, and after `self.retry()`, whatever `retry_backoff` is."""
    down = Server(502)
    ids = [task.delay(98000001, down.url).id for task in (tasks.update_orders, tasks.update_roles)]
    waits(rig, ids, [180, 180], "it waits")


@pytest.mark.fresh
@pytest.mark.broken_by(r"they wait", **broken("retry_after_max=600", "retry_after_max=6000"))
@pytest.mark.broken_by(
    r"left to itself",
    **broken(
        '        raise\n    logger.info("Updated %s", wallet',
        '        raise self.retry(countdown=180)\n    logger.info("Updated %s", wallet',
    ),
)
def test_the_wait_that_the_server_asks_for_is_kept(rig):
    """Seconds or a date in `Retry-After`, or seconds in `X-ESI-Error-Limit-Reset`, are waited for, up to 600 s.

    Where the server says nothing, the backoff counts, or a minute in the tasks that say so.
    """
    now = datetime.now(UTC)
    date = format_datetime((now + timedelta(seconds=300)).replace(microsecond=0), usegmt=True)
    told = [{"X-Pages": "1", "Retry-After": "7"}, {"X-ESI-Error-Limit-Reset": "9"}, {"Retry-After": "7200"}]
    servers = [Server((420, headers)) for headers in told]
    # Each task is in the last attempt but one that it may make.
    ids = [tasks.update_wallet.apply_async([98000001, esi.url], retries=4).id for esi in servers]
    dated = tasks.update_wallet.delay(98000002, Server((429, {"Retry-After": date})).url).id
    silent = tasks.update_wallet.delay(98000003, Server(429).url).id
    down = Server(429)
    one = [98000001]
    minutes = [task.apply_async([one, down.url], retries=4).id for task in (tasks.update_each, tasks.update_all)]
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        refused = tasks.update_rest.apply_async([one, nowhere], retries=4).id
        rig.wait(lambda: refused in tries(rig), "the retry of what was refused")
    minutes += [refused, tasks.update_assets.apply_async([98000001, down.url], retries=9).id]
    waits(rig, minutes, [60] * 4, "they wait")
    assert 50 < cache.pttl(tasks.GATE) / 1000 <= 60
    waits(rig, ids, [7, 9, 600], "they wait")
    rig.wait(lambda: {dated, silent} <= set(tries(rig)), "the other retries")
    least, _ = tries(rig)[dated]
    # Its date was made a little before it was sent, without what is less than a second.
    assert 250 < least <= 300, f"told a date, it waits {least} s"
    assert tries(rig)[silent][0] <= 1, f"left to itself, it waits {tries(rig)[silent][0]} s"


@pytest.mark.fresh
@pytest.mark.broken_by(r"before it ends: accepted", **broken("@shared_task(base=QueueOnce, ", "@shared_task("))
def test_the_lock_may_end_before_the_last_attempt(rig):
    """A retry does not lengthen the lock of `QueueOnce`: when its time is over, another start is accepted and runs.

    Measured with a lock that was made to end at once, in place of an hour.
    """
    down = Server(502)
    one = tasks.update_killmails.delay(98000001, down.url).id
    rig.wait(lambda: one in tries(rig), "the retry")
    (lock,) = cache.keys(LOCKS) or [""]
    rejected = tasks.update_killmails.delay(98000001, down.url).id is None
    assert rejected, "before it ends: accepted"
    cache.expire(lock, 0)
    down.answers = (200,)
    assert tasks.update_killmails.delay(98000001, down.url).id, "after its end: rejected"
    rig.wait(lambda: "/killmails/98000001" in updated(rig), "the end of the other")
