import contextlib
import gzip
import json
import signal
import socket
import textwrap
import threading
import time
from datetime import datetime

import psutil
import pytest
from celery import chain, current_app
from django.core.cache import cache
from esi import app_settings
from esi.openapi_clients import esi_client_factory_sync
from httpx2 import ReadTimeout

from time_limits import tasks

ASSETS = "time_limits.tasks.update_assets"
CONTRACTS = "time_limits.tasks.update_contracts"
CORPORATIONS = "time_limits.tasks.update_corporations"
MEMBER = "time_limits.tasks.update_member"
STATUS = "time_limits.tasks.update_status"
ANNOUNCE = "discord.time_limits_announce"
LOW = "celery\x06\x16"
SERVICES = "services\x06\x16"
BEGINS, ENDS = "INFO Assets: update begins", "INFO Assets: update ends"
# A deadline for what ends at once.
SOON = 30
PREFORK = {"pool": "prefork", "concurrency": 2}


def limits(before, function, after=""):
    """Break the limits in the decorator of a function."""
    after = f"({after})" if after else ""
    return {
        "file": "tasks.py",
        "old": f"@shared_task({before})\ndef {function}",
        "new": f"@shared_task{after}\ndef {function}",
    }


def in_worker(code):
    """Break what the chapter's workers do: `code` runs in them before any task."""
    there = "logger = get_extension_logger(__name__)\n"
    return {"file": "tasks.py", "old": there, "new": there + textwrap.dedent(code)}


def in_pool(code):
    """Break the pool `threads`: `code` stands where a thread has a task in hand, with all that the pool was told."""
    return in_worker(
        """
        import ctypes
        import threading

        from billiard.exceptions import SoftTimeLimitExceeded
        from celery import current_app
        from celery.concurrency.thread import TaskPool
        from celery.worker import state

        on_apply = TaskPool.on_apply


        def apply(self, target, args=None, kwargs=None, callback=None, accept_callback=None, **told):
            def run(*args, **kwargs):
                def end_after(limit):
                    ident, error = ctypes.c_ulong(threading.get_ident()), ctypes.py_object(SoftTimeLimitExceeded)
                    threading.Timer(limit, ctypes.pythonapi.PyThreadState_SetAsyncExc, (ident, error)).start()

                CODE
                return target(*args, **kwargs)

            return on_apply(self, run, args, kwargs, callback, accept_callback)


        TaskPool.on_apply = apply
        """.replace("CODE", textwrap.indent(textwrap.dedent(code), " " * 16).strip())
    )


# What a pool of threads would do if it minded limits, and revoked tasks that it holds.
LIMITED = in_pool("""
    limits = [*(told.get(name) for name in ("soft_timeout", "timeout")), self.options.get("soft_timeout")]
    if any(limits):
        end_after(min(filter(None, limits)))
""")
MINDFUL = in_pool("""
    if args[1] in state.revoked:
        return 0, None, 0
""")
TERMINATING = in_worker("""
    from celery.concurrency.thread import TaskPool

    TaskPool.terminate_job = lambda self, pid, signal=None: None
""")
DEAF = in_worker("""
    from celery.worker.control import Panel

    Panel.data["revoke"] = lambda state, **_: {"ok": "revoked"}
""")


@contextlib.contextmanager
def server(*answer):
    """Listen at an address and give it; whoever connects is sent the pieces of `answer`, one after the other.

    Without an answer it keeps silent, and ends all its connections when the context does.
    """
    over, those = threading.Event(), []

    def serve(connection):
        with contextlib.suppress(OSError):
            connection.recv(65536)
            for piece in answer:
                connection.sendall(piece)
                over.wait(0.04)
            if not answer:
                over.wait()
        connection.close()

    def accept():
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listening.accept()
                those.append(threading.Thread(target=serve, args=(connection,)))
                those[-1].start()

    with socket.create_server(("127.0.0.1", 0), backlog=64) as listening:
        those.append(threading.Thread(target=accept))
        those[0].start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
        finally:
            over.set()
            listening.shutdown(socket.SHUT_RDWR)
            for thread in those:
                thread.join()


def dripping(count):
    """Return the pieces of an answer whose body comes in `count` bytes, one by one."""
    return [f"HTTP/1.1 200 OK\r\nContent-Length: {count}\r\n\r\n".encode(), *[b"x"] * count]


def packed(count):
    """Return an answer of `count` bytes in one piece, packed as servers do."""
    body = gzip.compress(b"x" * count)
    return f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def let_them_take(rig, count, name=None):
    """Wait until the workers hold `count` tasks; if they want more, they take them before they answer the last ping."""
    rig.wait(
        lambda: sum(run.received is not None and run.ended is None for run in rig.runs(name)) >= count,
        f"the receipt of {count} x {name or 'any task'}",
    )
    for _ in range(3):
        assert len(current_app.control.ping(timeout=SOON, limit=len(rig.workers))) == len(rig.workers)


def replies(reply):
    """Return what each worker answers to a command of remote control, whatever its name."""
    return [answer for entry in reply for answer in entry.values()]


def revoke(rig, *ids, **options):
    """Revoke tasks on every worker, and return what each answers."""
    workers = len(rig.workers)
    return replies(current_app.control.revoke([*ids], reply=True, timeout=SOON, limit=workers, **options))


def numbers(rig):
    """Return the last two digits of what the tasks say that they have updated."""
    lines = [line.split() for line in rig.logged()]
    return sorted(int(line[2][-2:]) for line in lines if (line[0], line[-1]) == ("INFO", "updated"))


def announced(rig):
    """Return the last two digits of the structures that were announced."""
    return sorted(int(line[-2:]) for line in rig.logged() if line.startswith("INFO Announced"))


def bar(rig, pool, run, note):
    """Add a run to the chart of the limits."""
    colour = "one" if pool == "threads" else "two"
    rig.chart(
        "limits",
        "timeline",
        [(pool, "", 0, run.ended - run.started, colour, note)],
        values={"soft": str(tasks.update_assets.soft_time_limit), "hard": str(tasks.update_assets.time_limit)},
    )


def stack(rig, worker, line):
    """Have a worker write down where its threads stand until one stands at `line`, and return what it wrote."""
    asked = 0

    def stands():
        nonlocal asked
        said = rig.printed(worker)
        # One after the other: the next would come while it writes, and find it at that.
        if line not in said and said.count("\nMainThread\n") == asked:
            worker.signal(signal.SIGUSR1)
            asked += 1
        return line in said

    rig.wait(stands, f"{line!r} in what {worker.name} writes")
    return rig.printed(worker)


# ---- time limits on threads


@pytest.mark.broken_by(r"it failed", **LIMITED)
def test_a_worker_with_threads_ignores_the_limits_of_the_decorator(rig):
    """A worker of Auth, which has threads, ignores `soft_time_limit` and `time_limit` and logs nothing about them."""
    rig.demo()
    (run,) = rig.finished(ASSETS)
    assert run.state == "succeeded", f"it {run.state}"
    assert run.ended - run.started > 1 == tasks.update_assets.time_limit, f"it took {run.ended - run.started:.2f} s"
    rig.same(rig.logged(), [BEGINS, ENDS], "logged {}")
    assert "limit" not in rig.printed(rig.workers[0]).replace("time_limits", ""), "the worker has a word on it"
    bar(rig, "threads", run, "succeeded")


@pytest.mark.broken_by(r"it failed", **LIMITED)
def test_a_worker_with_threads_ignores_the_limits_of_a_call(rig):
    """A worker with threads ignores the limits that `apply_async` names for a single start."""
    rig.demo("demo_call.py")
    tasks.update_corporations.apply_async([[*range(98000007, 98000013)]], soft_time_limit=0.1)
    for run in rig.finished(CORPORATIONS, 2):
        assert run.state == "succeeded", f"it {run.state}"
        assert run.ended - run.started > 0.2, f"it took {run.ended - run.started:.2f} s"
    assert numbers(rig) == [*range(1, 13)]


@pytest.mark.workers({"pool": "threads"}, {"pool": "prefork", "concurrency": 1, "queues": "prefork"})
@pytest.mark.fresh
@pytest.mark.broken_by(
    r"with limits set at runtime: \['failed', 'succeeded'\]",
    **in_pool("""
        limit = current_app.tasks[args[0]].time_limit
        if limit:
            end_after(limit)
    """),
)
def test_limits_set_at_runtime_are_confirmed_and_ignored_by_both_pools(rig):
    """`app.control.time_limit` is answered with `time limits set successfully`; both pools ignore what it sets."""
    reply = current_app.control.time_limit(CORPORATIONS, soft=0.1, hard=0.2, reply=True, timeout=SOON, limit=2)
    assert replies(reply) == [{"ok": "time limits set successfully"}] * 2
    for queue in ("celery", "prefork"):
        tasks.update_corporations.apply_async([[*range(98000001, 98000013)]], queue=queue)
    runs = sorted(rig.finished(CORPORATIONS, 2), key=lambda run: run.worker)
    rig.same([run.state for run in runs], ["succeeded"] * 2, "with limits set at runtime: {}")
    # They take 0.6 s: of a start prefork may tell late.
    assert min(run.ended - run.started for run in runs) > 0.2
    assert numbers(rig) == sorted([*range(1, 13)] * 2)


@pytest.mark.workers
@pytest.mark.broken_by(r"with limits in the settings it failed", **LIMITED)
def test_a_worker_with_threads_ignores_the_limits_of_the_settings(rig, monkeypatch):
    """A worker with threads ignores the settings `task_soft_time_limit` and `task_time_limit`; Auth sets neither."""
    for name, limit in (("task_soft_time_limit", 0.1), ("task_time_limit", 0.2)):
        assert current_app.conf[name] is None, "Auth sets it"
        monkeypatch.setitem(current_app.conf, name, limit)
    # The worker takes over what this process has set.
    rig.start_worker()
    tasks.update_corporations.delay([*range(98000001, 98000007)])
    (run,) = rig.finished(CORPORATIONS)
    assert run.state == "succeeded", f"with limits in the settings it {run.state}"
    assert run.ended - run.started > 0.2


# ---- time limits on prefork


def exceeded(rig, line):
    """Wait until the worker has logged `line`: it may tell of the task's end before."""
    rig.wait(lambda: line in rig.printed(rig.workers[0]), repr(line))


@pytest.mark.workers(PREFORK)
@pytest.mark.timed(0.3)
@pytest.mark.broken_by(r"did not happen|it succeeded", **limits("soft_time_limit=0.5, time_limit=1", "update_assets"))
def test_on_prefork_the_soft_limit_raises_in_the_task(rig):
    """On the pool `prefork` the soft limit raises `SoftTimeLimitExceeded` in the task, which fails."""
    # So that on a busy machine the hard limit does not come in between.
    tasks.update_assets.apply_async([100], time_limit=60)
    (run,) = rig.finished(ASSETS)
    assert (run.state, run.exception) == ("failed", "SoftTimeLimitExceeded()"), f"it {run.state}: {run.exception}"
    exceeded(rig, f"Soft time limit (0.5s) exceeded for {ASSETS}")
    rig.same(rig.logged(), [BEGINS], "logged {}")
    bar(rig, "prefork", run, "soft limit")


@pytest.mark.timed(0.5)
@pytest.mark.workers(PREFORK)
@pytest.mark.broken_by(
    r"did not happen", **limits("soft_time_limit=0.2, time_limit=1", "update_contracts", "soft_time_limit=0.2")
)
def test_on_prefork_a_task_that_catches_the_soft_limit_is_killed_by_the_hard_one(rig):
    """On `prefork`, `except Exception` catches the soft limit and the task goes on; the hard one kills its process.

    The task has failed, and the worker runs twenty others.
    """
    with server() as url:
        tasks.update_contracts.delay([url, url])
        (run,) = rig.finished(CONTRACTS)
    assert run.state == "failed", f"it {run.state}"
    exceeded(rig, f"Soft time limit (0.2s) exceeded for {CONTRACTS}")
    exceeded(rig, f"Hard time limit (1s) exceeded for {CONTRACTS}")
    rig.same(rig.logged(), ["ERROR Contracts: a page failed"], "logged {}")
    assert "billiard.exceptions.SoftTimeLimitExceeded" in rig.log_file("extensions.log")
    rig.send(tasks.update_member, 20, 2112000001)
    rig.settle()
    assert numbers(rig) == [*range(1, 21)]
    bar(rig, "prefork", run, "hard limit")


@pytest.mark.workers(PREFORK)
@pytest.mark.broken_by(r"did not happen", file="demo_call.py", old="    time_limit=0.2,\n", new="    priority=5,\n")
def test_on_prefork_the_limits_of_a_call_count(rig):
    """On `prefork` the limits that `apply_async` names count for that start."""
    with rig.hold(CORPORATIONS):
        rig.demo("demo_call.py")
        rig.finished(CORPORATIONS)
    # It neither logs nor catches anything where the limit may reach it.
    tasks.render_map.apply_async([["sleep", "60"], 60], soft_time_limit=0.1)
    for run in [*rig.finished(CORPORATIONS), *rig.finished(tasks.render_map.name)]:
        assert run.state == "failed", f"it {run.state}"
    exceeded(rig, f"Hard time limit (0.2s) exceeded for {CORPORATIONS}")
    exceeded(rig, f"Soft time limit (0.1s) exceeded for {tasks.render_map.name}")
    rig.same(numbers(rig), [], "updated {}")


# ---- what hangs


@pytest.mark.broken_by(
    r"did not happen|after \d+ members",
    file="tasks.py",
    old="answer = requests.Session().get(url)",
    new="answer = requests.get(url, timeout=0.01)",
)
def test_five_requests_without_an_answer_stop_a_worker_of_five_threads(rig):
    """Five requests to a server that keeps silent stop a worker of five threads: nothing else runs until one ends.

    They outlast their `time_limit`.
    """
    with server() as url:
        for _ in range(5):
            tasks.update_status.apply_async([url], time_limit=0.1)
        rig.started(STATUS, 5)
        rig.send(tasks.update_member, 20, 2112000001)
        let_them_take(rig, 5, MEMBER)
        stack(rig, rig.workers[0], "in update_status")
        done = numbers(rig)
        assert not done, f"after {len(done)} members"
    rig.settle()
    assert numbers(rig) == [*range(1, 21)]
    hung = rig.runs(STATUS)
    assert min(run.ended - run.started for run in hung) > 0.1
    first = min(run.ended for run in hung)
    late = [run for run in rig.runs(MEMBER) if run.started < first]
    assert not late, f"after {len(late)} members"
    with server(*dripping(2)) as url:
        tasks.update_status.delay(url)
        rig.settle()
    assert rig.logged()[-1] == "INFO Status: 2 bytes"
    tasks.update_contracts.delay([url])
    rig.settle()
    assert rig.logged()[-1] == "ERROR Contracts: a page failed"


@pytest.mark.broken_by(
    r"did not happen",
    **in_worker("""
    import celery.apps.worker

    celery.apps.worker.cry = lambda: "no word"
    """),
)
def test_sigusr1_makes_a_worker_write_where_each_of_its_threads_stands(rig):
    """At SIGUSR1 a worker writes into its own log at which line each thread stands, and works on."""
    (worker,) = rig.workers
    with server() as url:
        tasks.update_status.delay(url)
        rig.started(STATUS)
        said = stack(rig, worker, "in update_status")
        rig.send(tasks.update_member, 20, 2112000001)
        rig.finished(MEMBER, 20)
    rig.settle()
    assert "answer = requests.Session().get(url)" in said
    assert "LOCAL VARIABLES" in said
    assert numbers(rig) == [*range(1, 21)]


@pytest.mark.fresh
@pytest.mark.broken_by(
    r"logged \[\]",
    **in_worker("""
    import os

    from celery.concurrency.thread import TaskPool

    TaskPool.terminate_job = lambda self, pid, signal=None: print("NotImplementedError", flush=True) or os._exit(1)
    """),
)
def test_sigquit_does_not_end_a_running_task(rig):
    """At SIGQUIT, Celery's cold shutdown, a busy worker with threads logs `NotImplementedError`, and its tasks run on.

    The worker waits for the five that run. Of twenty starts none is lost, but one that had not begun may run and be put
    back all the same, to run twice.
    """
    (worker,) = rig.workers
    with rig.hold(MEMBER):
        rig.send(tasks.update_member, 20, 2112000001)
        let_them_take(rig, 10)
        worker.signal(signal.SIGQUIT)
        rig.wait(lambda: "NotImplementedError" in rig.printed(worker), "a word of the worker")
    assert worker.join(SOON), "the worker has not ended"
    ran = numbers(rig)
    rig.same(ran[:5], [1, 2, 3, 4, 5], "logged {}")
    messages = [json.loads(message) for message in rig.redis.lrange(LOW + "5", 0, -1)]
    back = [int(message["headers"]["argsrepr"].strip("(,)")) - 2112000000 for message in messages]
    assert not {1, 2, 3, 4, 5} & {*back}, "what ran is put back"
    assert (sorted({*ran, *back}), rig.redis.hlen("unacked")) == ([*range(1, 21)], 0)


# ---- what to do instead of a limit


@pytest.mark.broken_by(
    r"did not happen",
    file="tasks.py",
    old="requests.get(url, timeout=TIMEOUT)\n",
    new="requests.Session().get(url)\n",
)
def test_a_request_with_a_timeout_gives_up_by_itself(rig):
    """A request with a `timeout` gives up when the server keeps silent for so long: twenty of twenty."""
    with server() as url:
        for _ in range(20):
            tasks.update_status_or_give_up.delay(url)
        tasks.download_prices.delay(url, 60)
        rig.send(tasks.update_member, 20, 2112000001)
        failed = [run for run in rig.settle() if run.state == "failed"]
    assert len(failed) == 21
    assert all("Read timed out. (read timeout=0.2)" in run.exception for run in failed), failed[0].exception
    assert numbers(rig) == [*range(1, 21)]


@pytest.mark.timed(0.2)
@pytest.mark.broken_by(
    r"it failed",
    file="tasks.py",
    old="    answer = requests.get(url, timeout=TIMEOUT)\n",
    new="    download_prices(url, TIMEOUT)\n    answer = requests.get(url, timeout=TIMEOUT)\n",
)
def test_a_timeout_counts_silence_and_not_the_whole(rig):
    """A `timeout` counts the silence between two pieces of an answer: one that trickles in may take longer than it."""
    with server(*dripping(15)) as url:
        tasks.update_status_or_give_up.delay(url)
        (run,) = rig.settle()
    assert run.state == "succeeded", f"it {run.state}: {run.exception}"
    assert run.ended - run.started > 2 * tasks.TIMEOUT, f"it took {run.ended - run.started:.2f} s"
    assert rig.logged() == ["INFO Status: 15 bytes"]


@pytest.mark.workers
@pytest.mark.broken_by(r"0 of 20 gave up", file="tasks.py", old="if time.monotonic() > deadline:", new="if not piece:")
def test_a_deadline_between_the_pieces_of_an_answer_ends_a_slow_download(rig, monkeypatch):
    """A deadline that is looked at between two pieces of an answer ends a download that trickles in: twenty of twenty.

    What comes in time comes whole.
    """
    # On a busy machine a pause may be longer than the timeout on the page.
    monkeypatch.setattr(tasks, "TIMEOUT", 60)
    rig.start_worker()
    with server(*dripping(30)) as slow, server(packed(2000)) as quick:
        for _ in range(20):
            tasks.download_prices.delay(slow, 0.2)
            tasks.download_prices.delay(quick, 60)
        told = [run.exception for run in rig.settle() if run.state == "failed"]
    assert len(told) == 20, f"{len(told)} of 20 gave up"
    assert set(told) == {"TimeoutError('the prices did not come within 0.2 s')"}, set(told)
    assert rig.logged() == ["INFO Prices: 2000 bytes"] * 20


@pytest.mark.workers
@pytest.mark.broken_by(
    r"it waits for 60 s",
    **in_worker("""
    from esi import app_settings

    app_settings.ESI_REQUESTS_READ_TIMEOUT = 60
    """),
)
def test_the_client_of_django_esi_gives_up_by_itself(rig, monkeypatch):
    """The client of django-esi gives up by itself: after 5 s without a connection, or 10 s of silence by default.

    Measured on its first request, with a fifth of a second.
    """
    assert app_settings.ESI_REQUESTS_CONNECT_TIMEOUT == 5
    silence = app_settings.ESI_REQUESTS_READ_TIMEOUT
    assert silence == 10, f"it waits for {silence} s"
    monkeypatch.setattr(app_settings, "ESI_REQUESTS_READ_TIMEOUT", 0.2)
    with server() as url:
        monkeypatch.setattr(app_settings, "ESI_API_URL", url)
        with pytest.raises(ReadTimeout):
            esi_client_factory_sync("2026-11-01", "TimeLimits", "1.0")


@pytest.mark.broken_by(
    r"in 1 runs",
    file="tasks.py",
    old="if time.monotonic() > deadline and structure_ids[count:]:",
    new="if not structure_ids[count - 1 :]:",
)
@pytest.mark.broken_by(
    r"updated: ",
    file="tasks.py",
    old="delay(structure_ids[count:], seconds)",
    new="delay(structure_ids[count - 1 :], seconds)",
)
def test_a_task_with_a_deadline_hands_the_rest_to_the_next(rig):
    """A task that looks at its deadline after each object hands the rest to a start of its own: each runs once.

    Twenty structures, of which none is left out or updated twice.
    """
    runs = rig.settle(after="demo_deadline.py")
    wanted = [f"INFO Structure {1035466617940 + number} updated" for number in range(20)]
    rig.same(rig.logged(), wanted, "updated: {}")
    assert len(runs) > 1, f"in {len(runs)} runs"
    assert {run.state for run in runs} == {"succeeded"}
    assert runs[0].kwargs == "{'seconds': 0.1}"
    tasks.update_structures.delay([1035466617960, 1035466617961, 1035466617962], 60)
    assert len(rig.settle()) == len(runs) + 1, "it has handed on before its deadline"
    assert len(rig.logged()) == 23


@pytest.mark.broken_by(r"did not happen", file="tasks.py", old="command, timeout=seconds", new="command")
def test_a_program_that_is_run_with_a_timeout_is_killed(rig):
    """`subprocess.run` with a `timeout` kills the program that outlasts it, on threads too: twenty of twenty.

    The task fails with `TimeoutExpired`.
    """
    for _ in range(20):
        tasks.render_map.delay(["sleep", "97"], 0.1)
    tasks.render_map.delay(["true"], 60)
    tasks.render_map.delay(["false"], 60)
    told = [run.exception for run in rig.settle() if run.state == "failed"]
    assert sorted(one.partition("]")[0] for one in told) == [
        "CalledProcessError(1, ['false'",
        *["TimeoutExpired(['sleep', '97'"] * 20,
    ], told
    assert not psutil.Process(rig.workers[0].pid).children(recursive=True), "a program is left"
    assert rig.logged() == ["INFO Map rendered"]


# ---- revoke


@pytest.mark.workers({}, {"program": "worker_services"})
@pytest.mark.broken_by(r"ran: \[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11", **DEAF)
@pytest.mark.broken_by(r"ran: \[1, 2, 3, 4, 5, 21\]", **MINDFUL)
def test_on_threads_revoke_reaches_no_task_that_a_worker_has_taken(rig):
    """On threads `revoke` reaches only what waits in Redis: what a worker runs or has taken, runs all the same.

    Of twenty starts Auth's worker of five threads has taken ten, and of four its worker for services two.
    """
    with rig.hold(MEMBER), rig.hold(ANNOUNCE):
        ids = [tasks.update_member.delay(2112000000 + number).id for number in range(1, 21)]
        ids += [tasks.announce.delay(1035466617900 + number).id for number in range(21, 25)]
        let_them_take(rig, 10, MEMBER)
        let_them_take(rig, 2, ANNOUNCE)
        answers = revoke(rig, *ids)
        waiting = rig.waiting()
    runs = rig.settle()
    ran = sorted([*numbers(rig), *announced(rig)])
    rig.same(ran, [*range(1, 11), 21, 22], "ran: {}")
    assert all("flagged as revoked" in answer["ok"] for answer in answers)
    assert [run.state for run in runs].count("revoked") == 12
    assert waiting == {LOW + "5": 10, SERVICES + "5": 2}, f"in Redis: {waiting}"


@pytest.mark.broken_by(r"0 of 20 were thrown away", **DEAF)
@pytest.mark.broken_by(
    r"in Redis: \{\}",
    **in_worker("""
    from celery.worker.control import Panel

    Panel.data["revoke"] = lambda state, **_: {"ok": state.app.control.purge()}
    """),
)
def test_a_revoked_message_waits_until_a_worker_takes_it(rig):
    """A revoked message stays in Redis, and counts there, until a worker takes it and throws it away."""
    with rig.hold(MEMBER):
        rig.send(tasks.update_member, 10, 2112000001)
        let_them_take(rig, 10)
        ids = [tasks.update_member.delay(2112000000 + number).id for number in range(11, 31)]
        revoke(rig, *ids)
        waiting = rig.waiting()
    assert waiting == {LOW + "5": 20}, f"in Redis: {waiting}"
    thrown = [run for run in rig.settle() if run.state == "revoked"]
    assert sorted(run.id for run in thrown) == sorted(ids), f"{len(thrown)} of 20 were thrown away"
    assert numbers(rig) == [*range(1, 11)]


@pytest.mark.workers({"pool": "prefork", "concurrency": 5})
@pytest.mark.broken_by(r"ran: \[1, 2, 3, 4, 5, 6", **DEAF)
def test_on_prefork_revoke_reaches_what_a_worker_has_taken_and_not_begun(rig):
    """On `prefork` `revoke` reaches what a worker has taken and not begun, too."""
    with rig.hold(MEMBER):
        ids = [tasks.update_member.delay(2112000000 + number).id for number in range(1, 21)]
        let_them_take(rig, 10)
        revoke(rig, *ids)
    rig.settle()
    rig.same(numbers(rig), [1, 2, 3, 4, 5], "ran: {}")


@pytest.mark.fresh
@pytest.mark.broken_by(r"it ran", file="demo_revoke.py", old="revoke(result.id)", new="revoke('another')")
def test_a_revoked_countdown_is_held_until_it_is_due_and_then_thrown_away(rig):
    """A worker keeps a revoked countdown until it is due, and throws it away then."""
    # One that is due in ten minutes is held while we look, however long that takes.
    far = tasks.update_member.apply_async([2112000002], countdown=600).id
    let_them_take(rig, 1)
    revoke(rig, far)
    (held,) = replies([current_app.control.inspect(timeout=SOON, limit=1).scheduled()])
    kept = rig.redis.hlen("unacked")
    since = time.time()
    rig.demo("demo_revoke.py")
    (run,) = rig.finished(MEMBER)
    assert run.state == "revoked", f"it ran: {run.state}"
    assert rig.logged() == []
    assert ([one["request"]["id"] for one in held], kept) == ([far], 1), f"{len(held)} scheduled, {kept} unacked"
    (sent,) = [event for event in rig.events if event["type"] == "task-sent" and event["uuid"] == run.id]
    due = datetime.fromisoformat(sent["eta"]).timestamp()
    assert run.ended + since >= due - 0.1
    assert due - sent["timestamp"] <= 1 <= due - since


@pytest.mark.broken_by(r"ran: \[1, 2, 3\]", file="demo_chain.py", old="last.parent.id", new="'another'")
def test_a_chain_ends_before_a_link_that_is_revoked_in_time(rig):
    """A link of a chain can be revoked before it is sent: the chain ends before it."""
    with rig.hold(MEMBER):
        rig.demo("demo_chain.py")
        rig.started(MEMBER)
        let_them_take(rig, 1)
    runs = rig.settle()
    rig.same(numbers(rig), [1], "ran: {}")
    assert [run.state for run in runs] == ["succeeded", "revoked"]


@pytest.mark.fresh
@pytest.mark.broken_by(
    r"ran after the restart: \[\]",
    **in_worker("""
    from celery.worker import state
    from django.core.cache import cache

    class Kept(set):
        def __contains__(self, task_id):
            return bool(cache.get(f"revoked {task_id}"))

        def update(self, ids):
            cache.set_many({f"revoked {one}": True for one in ids}, timeout=None)

    kept = Kept()
    state.revoked.update = kept.update
    state.LimitedSet.__contains__ = lambda self, one: one in kept
"""),
)
def test_a_restart_of_the_worker_forgets_what_was_revoked(rig):
    """Auth's worker keeps in memory what was revoked: after a restart the tasks run."""
    (worker,) = rig.workers
    ids = [tasks.update_member.apply_async([2112000000 + number], queue="later").id for number in range(1, 21)]
    revoke(rig, *ids)
    rig.stop(worker)
    rig.start_worker(queues="later")
    rig.finished(MEMBER, 20)
    rig.same(numbers(rig), [*range(1, 21)], "ran after the restart: {}")
    assert not [word for word in worker.argv if "statedb" in word]


@pytest.mark.broken_by(r"it answers \{'ok'", **TERMINATING)
def test_on_threads_terminate_raises_in_the_worker_and_the_task_runs_on(rig):
    """On threads `revoke` with `terminate=True` raises `NotImplementedError` in the worker; the task runs on."""
    with rig.hold(MEMBER):
        ids = [tasks.update_member.delay(2112000000 + number).id for number in range(1, 6)]
        rig.started(MEMBER, 5)
        answers = [revoke(rig, one, terminate=True)[0] for one in ids]
    runs = rig.settle()
    assert all("NotImplementedError" in answer.get("error", "") for answer in answers), f"it answers {answers[0]}"
    assert "does not implement kill_job" in rig.printed(rig.workers[0])
    assert [run.state for run in runs] == ["succeeded"] * 5
    assert numbers(rig) == [1, 2, 3, 4, 5]


@pytest.mark.fresh
@pytest.mark.broken_by(r"listed: [0-4]", **TERMINATING)
def test_on_threads_terminate_loses_a_task_that_is_taken_and_not_begun_and_lists_it_as_running(rig):
    """On threads `terminate=True` on a task that is taken and not begun loses it, and it stays listed as running."""
    with rig.hold(MEMBER):
        rig.send(tasks.update_member, 5, 2112000001)
        rig.started(MEMBER, 5)
        ids = [tasks.update_member.delay(2112000000 + number).id for number in range(6, 11)]
        let_them_take(rig, 10)
        answers = [revoke(rig, one, terminate=True)[0] for one in ids]
    rig.send(tasks.update_member, 20, 2112000011)
    rig.finished(MEMBER, 25)
    let_them_take(rig, 0)
    (listed,) = replies([current_app.control.inspect(timeout=SOON, limit=1).active()])
    assert sorted(task["id"] for task in listed) == sorted(ids), f"listed: {len(listed)}"
    assert numbers(rig) == [*range(1, 6), *range(11, 31)]
    assert all(answer["ok"].startswith("terminate: ") for answer in answers)
    assert not rig.redis.hlen("unacked"), "it would come again"


@pytest.mark.workers(PREFORK)
@pytest.mark.broken_by(r"did not happen|it succeeded", **DEAF)
def test_on_prefork_terminate_ends_a_running_task(rig):
    """On `prefork` `revoke` with `terminate=True` ends a task that runs, and the worker runs the next ones."""
    started = tasks.update_assets.apply_async([100], soft_time_limit=60, time_limit=60)
    rig.wait(lambda: rig.logged() == [BEGINS], "its first line")
    revoke(rig, started.id, terminate=True)
    (run,) = rig.finished(ASSETS)
    assert run.state == "revoked", f"it {run.state}"
    rig.send(tasks.update_member, 20, 2112000001)
    rig.finished(MEMBER, 20)
    assert numbers(rig) == [*range(1, 21)]
    assert ENDS not in rig.logged()


@pytest.mark.workers({}, {})
@pytest.mark.broken_by(r"did not happen|0 have stopped", file="tasks.py", old="if cache.get(STOP):", new="if False:")
def test_a_flag_in_the_cache_stops_what_runs_and_what_waits_on_every_worker(rig):
    """A flag in the cache, which the task looks at before each object, stops all that run, are taken or wait.

    Thirty starts on two workers of five threads. When the flag is gone, a new start runs to its end.
    """
    # More than a task can take before the flag is set: they stop there.
    ids = [*range(98000001, 98000981)]
    for _ in range(30):
        tasks.update_corporations.delay(ids)
    rig.started(CORPORATIONS, 10)
    let_them_take(rig, 20)
    rig.wait(lambda: len(rig.logged()) >= 10, "the first objects")
    rig.demo("demo_stop.py")
    assert cache.ttl(tasks.STOP) is None, "the flag ends by itself"
    rig.settle()
    stopped = [line for line in rig.logged() if line.startswith("INFO Stopped before corporation 980")]
    assert len(stopped) == 30, f"{len(stopped)} have stopped"
    # Ten had begun, at most.
    assert sum(line.endswith(" 98000001") for line in stopped) >= 20
    before = len(numbers(rig))
    rig.demo("demo_go_on.py")
    tasks.update_corporations.delay(ids[:5])
    rig.settle()
    assert len(numbers(rig)) == before + 5


# ---- purge


@pytest.mark.workers
@pytest.mark.broken_by(
    r"printed 'celery 20 thrown away\\n'", file="demo_purge.py", old='("celery", "services")', new='["celery"]'
)
def test_a_purge_of_both_queues_empties_all_twenty_lists(rig):
    """`queue_purge` for `celery` and for `services` empties the ten lists of each, whosever tasks wait there."""
    for priority in range(10):
        tasks.update_member.apply_async([2112000001], priority=priority)
        tasks.announce.apply_async([1035466617940], priority=priority)
        current_app.send_task("another_app.tasks.update", priority=priority)
    assert len(rig.waiting()) == 20
    rig.prints("demo_purge.py", "celery 20 thrown away\nservices 10 thrown away\n")
    assert rig.waiting() == {}


@pytest.mark.fresh
@pytest.mark.broken_by(r"did not happen", conf={"worker_disable_prefetch": True})
def test_a_purge_leaves_what_workers_have_taken(rig):
    """A purge leaves what a worker has taken: what runs and what is next for a thread, which run, and its countdowns.

    Of thirty starts ten run after it.
    """
    rig.send(tasks.update_member, 3, 2112000031, countdown=600)
    let_them_take(rig, 3)
    with rig.hold(MEMBER):
        rig.send(tasks.update_member, 30, 2112000001)
        let_them_take(rig, 13)
        thrown = current_app.control.purge()
    rig.finished(MEMBER, 10)
    let_them_take(rig, 3)
    assert thrown == 20, f"{thrown} were thrown away"
    rig.same(numbers(rig), [*range(1, 11)], "ran: {}")
    (held,) = replies([current_app.control.inspect(timeout=SOON, limit=1).scheduled()])
    assert len(held) == 3, f"{len(held)} countdowns are left"


@pytest.mark.broken_by(
    r"ran: \[1\]",
    **in_worker("""
    from celery.signals import task_prerun

    task_prerun.connect(lambda task, **_: task.request.update(chain=None), weak=False)
    """),
)
def test_a_purge_does_not_end_a_chain_whose_link_runs(rig):
    """A purge does not end a chain of which a link runs: that link sends the next one after the purge."""
    with rig.hold(MEMBER):
        chain(tasks.update_member.si(2112000000 + number) for number in range(1, 21)).delay()
        rig.started(MEMBER)
        assert current_app.control.purge() == 0
    rig.settle()
    rig.same(numbers(rig), [*range(1, 21)], "ran: {}")


@pytest.mark.workers({"paused": True})
@pytest.mark.broken_by(r"printed '0 dropped", file="demo_drop.py", old='["task"] ==', new='["id"] ==')
@pytest.mark.broken_by(r"printed '46 dropped", file="demo_drop.py", old='["task"] ==', new='["id"] !=')
def test_one_task_can_be_dropped_from_all_lists_while_the_others_stay(rig):
    """Messages of one task can be taken out of all lists by its name; what else waits there stays, and runs once."""
    for number in range(20):
        # Of each list the first message and the last are to go, and two between them stay.
        those = [(tasks.update_member, 2112000001 + number), (tasks.update_corporations, [98000001 + number])]
        for task, argument in those if number < 10 else reversed(those):
            task.apply_async([argument], priority=number % 10)
    for number in range(5):
        tasks.announce.apply_async([1035466617941 + number], priority=number)
    tasks.update_member.apply_async([2112000021], queue="services", priority=9)
    rig.prints("demo_drop.py", "21 dropped\n")
    left = sum(count for key, count in rig.waiting().items() if key.startswith("services"))
    current_app.control.add_consumer("services", destination=[rig.workers[0].node], reply=True, timeout=SOON, limit=1)
    rig.resume()
    rig.finished(CORPORATIONS, 20)
    rig.finished(ANNOUNCE, 5)
    let_them_take(rig, 0)
    assert numbers(rig) == [*range(1, 21)]
    assert announced(rig) == [41, 42, 43, 44, 45]
    assert left == 5
    assert not [run for run in rig.runs(MEMBER) if run.received is not None]


@pytest.mark.fresh
@pytest.mark.broken_by(
    r"ran: \[1, 2, 3, 4, 5, 6",
    **in_worker("""
    from celery.concurrency.thread import TaskPool

    TaskPool.on_stop = lambda self: self.executor.shutdown()
"""),
)
def test_a_worker_that_is_stopped_puts_back_what_it_has_not_begun(rig):
    """A worker that supervisor stops ends what it runs and puts back what it has taken and not begun: then purge.

    Of twenty starts five have run; a purge throws fifteen away.
    """
    (worker,) = rig.workers
    with rig.hold(MEMBER):
        rig.send(tasks.update_member, 20, 2112000001)
        let_them_take(rig, 10)
        worker.signal(signal.SIGTERM)
        # It waits for its threads, and gives them nothing any more.
        stack(rig, worker, "t.join()")
    assert worker.join(SOON), "the worker has not ended"
    rig.same(numbers(rig), [1, 2, 3, 4, 5], "ran: {}")
    rig.prints("demo_purge.py", "celery 15 thrown away\nservices 0 thrown away\n")
    assert (rig.waiting(), rig.redis.hlen("unacked")) == ({}, 0)


@pytest.mark.fresh
@pytest.mark.workers({}, {"program": "worker_services"})
@pytest.mark.broken_by(r"in Redis: ", file="demo_pause.py", old="cancel_consumer", new="add_consumer")
def test_a_paused_worker_ends_what_it_has_taken_and_takes_nothing_until_it_is_resumed(rig):
    """`cancel_consumer` pauses a worker: it ends what it has taken, and takes no more until `add_consumer`.

    Of forty starts ten run before and thirty after it, each once; the worker for services works on, and takes none.
    """
    with rig.hold(MEMBER):
        for number in range(40):
            tasks.update_member.apply_async([2112000001 + number], priority=number % 10)
        let_them_take(rig, 10)
        rig.demo("demo_pause.py")
        let_them_take(rig, 10)
    rig.finished(MEMBER, 10)
    tasks.announce.delay(1035466617940)
    rig.finished(ANNOUNCE)
    let_them_take(rig, 0)
    left = sum(rig.waiting().values())
    assert left == 30, f"in Redis: {left}"
    with rig.hold(MEMBER):
        rig.demo("demo_resume.py")
        # A worker that waits at Redis looks for other queues when that wait has ended.
        tasks.announce.delay(1035466617940)
        rig.finished(ANNOUNCE, 2)
        let_them_take(rig, 10, MEMBER)
    rig.settle()
    assert numbers(rig) == [*range(1, 41)]
    assert {run.worker for run in rig.runs(MEMBER)} == {"worker_00"}


@pytest.mark.fresh
@pytest.mark.workers({"paused": True}, {"program": "worker_services"})
@pytest.mark.broken_by(
    r"did not happen",
    **in_worker("""
    from celery.worker.control import Panel

    add = Panel.data["add_consumer"]
    Panel.data["add_consumer"] = lambda state, **told: add(state, **told) if "services" not in state.hostname else None
    """),
)
def test_resumed_without_a_name_the_worker_for_services_takes_ordinary_tasks(rig):
    """`add_consumer("celery")` without a `destination` makes the worker for services take ordinary tasks too."""
    with rig.hold(MEMBER):
        current_app.control.add_consumer("celery", reply=True, timeout=SOON, limit=2)
        rig.send(tasks.update_member, 20, 2112000001)
        # Five threads of the one, one of the other.
        rig.started(MEMBER, 6)
    rig.settle()
    assert {run.worker.rstrip("0123456789") for run in rig.runs(MEMBER)} == {"worker_", "worker_services_"}
    assert numbers(rig) == [*range(1, 21)]
