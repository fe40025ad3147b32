import configparser
import os
import re
import shutil
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from allianceauth.eveonline.models import EveCharacter, EveCorporationInfo
from celery import chain, chord, current_app
from celery.exceptions import Retry
from django.conf import settings
from django.core.cache import cache
from django.db import connection
from django.test import override_settings
from kombu.exceptions import EncodeError

import testing
from testing import corporations, tasks
from testing.apart import apart
from testing.tasks import count_members, find_ceo, note, tell, update_standings

COUNT = "testing.tasks.count_members"
NOTE = "testing.tasks.note"
SENT = "test_the_count_is_sent_when_a_corporation_is_added"
TWENTY = "test_each_of_twenty_is_counted"
COMMIT = "test_nothing_runs_before_the_commit"
ONCE = "test_standings_are_updated_once"
WAITS = {"celery\x06\x165": 1}
# What the runs need not spend their time on.
QUICKLY = ("--disable-plugin-autoload", "-p", "pytest_django.plugin", "-p", "no:cacheprovider")


def as_class(code):
    """Break every task of the chapter with a lock: `code` makes another class of Auth's."""
    there = "from allianceauth.services.tasks import QueueOnce\n"
    begin = "class QueueOnce(QueueOnce):\n    abstract = True\n\n"
    return {"file": "tasks.py", "old": there, "new": there + begin + textwrap.indent(textwrap.dedent(code), "    ")}


UNLOCKED = {"file": "tasks.py", "old": "@shared_task(base=QueueOnce)", "new": "@shared_task"}
KEPT_LOCK = as_class("""
    def after_return(self, *args):
        pass
""")
RESULTS = {"conf": {"result_backend": "cache+memory://"}}


class Suite:
    """Runs parts of the reader's suite, each in a process of its own."""

    def __init__(self, rig, monkeypatch, folder):
        self._rig = rig
        (self.app,) = map(Path, testing.__path__)
        monkeypatch.setenv("TEST_REDIS", current_app.conf.broker_url)
        self._own = {"CACHES": settings.CACHES, "DATABASES": settings.DATABASES}
        apart(self._own)
        place, name = connection.settings_dict["TEST"], self._own["DATABASES"]["default"]["TEST"]["NAME"]
        if name:
            monkeypatch.setitem(place, "NAME", str(folder / name))
        monkeypatch.setitem(place, "MIGRATE", False)

    def as_it_is(self, what, *options):
        """Run `what` with the project's settings; return the exit code and what was printed."""
        argv = ["pytest", *QUICKLY, "-p", "testing.fixtures", "--tb=short", "-c", os.devnull, f"--rootdir={self.app}"]
        process = self._rig.run(*argv, f"--confcutdir={self.app}", f"{self.app}/{what}", *options)
        return process.exitcode, self._rig.printed(process)

    def apart(self, what, *options):
        """Run `what` with the settings for tests."""
        with override_settings(TEST_REDIS=self._own["TEST_REDIS"], CACHES=self._own["CACHES"]):
            return self.as_it_is(what, *options)


@pytest.fixture
def suite(rig, monkeypatch, tmp_path):
    return Suite(rig, monkeypatch, tmp_path)


def passed(ran, count=1):
    """Demand that of a run of the suite so many tests passed, and no other failed."""
    code, printed = ran
    found = re.findall(r"(\d+ (?:passed|failed|error)\w*)", printed.splitlines()[-1]) if printed else []
    assert (code, found) == (0, [f"{count} passed"]), f"{found}: {printed}"


def failed(ran, *names, why=""):
    """Demand that of a run of the suite the tests called so failed, and no other, each with `why` in its traceback."""
    code, printed = ran
    found = sorted(re.findall(r"^FAILED .*::(\w+)", printed, re.MULTILINE))
    assert (code, found) == (1, sorted(names)), f"{found} failed: {printed}"
    assert why in printed, f"the reason was another: {printed}"


def logged_here(caplog):
    return [f"{record.levelname} {record.getMessage()}" for record in caplog.records if record.name == "testing.tasks"]


# Without a worker.


@pytest.mark.broken_by(
    r"DID NOT RAISE", file="tasks.py", old="raise self.retry(countdown=60, exc=error) from error", new="return None"
)
@pytest.mark.workers
def test_called_like_a_function_a_task_makes_one_attempt_and_its_error_reaches_the_test(rig, caplog):
    """Called like a function, a task makes one attempt, and its error reaches the test; also where it would retry."""
    with pytest.raises(EveCorporationInfo.DoesNotExist):
        count_members(98000001)
    with pytest.raises(EveCorporationInfo.DoesNotExist):
        find_ceo(98000001)
    assert logged_here(caplog) == ["INFO Attempt 1"]
    for number in (98000002, 98000001):
        corporations._create(number)
    assert set(EveCorporationInfo.objects.values_list("member_count", flat=True)) == {1}
    EveCorporationInfo.objects.filter(corporation_id=98000001).update(ceo_id=2112000001)
    assert find_ceo(98000001) == 2112000001
    assert EveCorporationInfo.objects.first().corporation_ticker == "98000002"
    assert rig.waiting() == {}


@pytest.mark.broken_by(r"it made \['INFO Attempt 1'\]", file="tasks.py", old="max_retries=2", new="max_retries=0")
@pytest.mark.workers
def test_apply_makes_all_retries_at_once(rig, caplog):
    """`apply()` makes all retries in the caller, at once, whatever their countdown, and sends nothing."""
    rig.prints("demo_retries.py", "FAILURE EveCorporationInfo matching query does not exist.\n")
    rig.same(logged_here(caplog), [f"INFO Attempt {number}" for number in (1, 2, 3)], "it made {}")
    assert rig.waiting() == {}


@pytest.mark.broken_by(
    r"printed 'the call returned None", file="tasks.py", old="    return value", new="    return None"
)
@pytest.mark.workers
def test_apply_returns_a_result_where_a_call_returns_the_value(rig, caplog):
    """A call returns what the task returns, `apply()` a result with that and the state; each runs the task here."""
    rig.prints("demo.py", "the call returned 98000001\napply returned SUCCESS 98000001\n")
    assert logged_here(caplog) == ["INFO 98000001 arrived"] * 2
    assert rig.waiting() == {}


@pytest.mark.broken_by(r"DoesNotExist", conf={"task_eager_propagates": True})
@pytest.mark.workers
def test_apply_raises_an_error_only_where_throw_is_true(rig):
    """`apply()` puts a task's error into the result it returns, and raises it only with `throw=True`."""
    result = count_members.apply((98000001,))
    assert (result.state, type(result.result)) == ("FAILURE", EveCorporationInfo.DoesNotExist)
    with pytest.raises(EveCorporationInfo.DoesNotExist):
        count_members.apply((98000001,), throw=True)
    with pytest.raises(Retry, match=r"^Retry in 60s: "):
        find_ceo.apply((98000001,), throw=True)


@pytest.mark.broken_by(r"apply gave \[1, 2\]", file="tasks.py", old="return value", new="return list(value)")
def test_apply_hands_arguments_over_as_they_are(rig):
    """`apply()` hands a tuple over as a tuple, where a worker gets a list."""
    rig.same(note.apply(((1, 2),)).result, (1, 2), "apply gave {}")
    note.delay((1, 2))
    rig.finished(NOTE)
    assert rig.logged() == ["INFO [1, 2] arrived"]


@pytest.mark.broken_by(
    r"waits: \{\}",
    file="traps.py",
    old="(CELERY_TASK_ALWAYS_EAGER=True)",
    new="(CELERY_TASK_ALWAYS_EAGER=True, CELERY_ALWAYS_EAGER=True)",
)
@pytest.mark.workers
def test_the_setting_with_task_in_its_name_does_nothing(rig, suite):
    """With `CELERY_TASK_ALWAYS_EAGER` nothing is eager: the test is green, and the message is in the broker."""
    passed(suite.as_it_is("traps.py::MisnamedTests"))
    rig.same(rig.waiting(), WAITS, "waits: {}")
    assert rig.logged() == []


@pytest.mark.broken_by(
    r"\['1 failed'\]", file="traps.py", old="settings.CELERY_ALWAYS_EAGER", new="settings.CELERY_TASK_ALWAYS_EAGER"
)
@pytest.mark.workers
def test_the_setting_of_the_old_name_works_with_pytest_django_too(rig, suite):
    """`CELERY_ALWAYS_EAGER` makes tasks run in the caller, also where pytest-django's `settings` sets it."""
    passed(suite.as_it_is("traps.py::test_green_in_eager_mode"))
    assert (rig.waiting(), rig.logged()) == ({}, ["INFO 98000001 arrived"])


EAGER = "traps.py::EagerTests::test_green_"


@pytest.mark.broken_by(r"timed out", **RESULTS)
@pytest.mark.workers
def test_in_eager_mode_a_result_can_be_had_that_auth_has_not(rig, suite):
    """In eager mode `.get()` returns the result; outside of it, Auth has no result backend, and `.get()` raises."""
    passed(suite.as_it_is(f"{EAGER}with_a_result"))
    rig.same(rig.logged(), ["INFO 98000001 arrived"], "it logged {}")
    with pytest.raises(NotImplementedError):
        note.delay(1).get(timeout=0.1)


@pytest.mark.broken_by(r"DID NOT RAISE", **RESULTS)
@pytest.mark.workers
def test_in_eager_mode_a_chord_works_that_raises_without(rig, suite):
    """In eager mode a chord works; outside of it, with Auth's settings, it raises at the call."""
    passed(suite.as_it_is(f"{EAGER}with_a_chord"))
    ran = ["98000001", "98000002", "[98000001, 98000002]"]
    assert rig.logged() == [f"INFO {value} arrived" for value in ran]
    with pytest.raises(NotImplementedError):
        chord([note.si(1), note.si(2)], note.s()).delay()


NOT_EAGER = {
    "file": "traps.py",
    "old": "CELERY_ALWAYS_EAGER=True)\nclass EagerTests",
    "new": "CELERY_ALWAYS_EAGER=False)\nclass EagerTests",
}


@pytest.mark.broken_by(r"the test logged \[\]", **NOT_EAGER)
@pytest.mark.workers
def test_in_eager_mode_a_task_does_not_wait_for_its_countdown(rig, suite):
    """In eager mode a task whose countdown lasts for days runs at once."""
    passed(suite.as_it_is(f"{EAGER}before_its_time"))
    rig.same(rig.logged(), ["INFO 98000001 arrived"], "the test logged {}")


@pytest.mark.broken_by(r"the test logged \[\]", **NOT_EAGER)
@pytest.mark.broken_by(
    r"the worker's state: succeeded",
    file="tasks.py",
    old="@shared_task\ndef note",
    new=textwrap.dedent("""
        from celery import Task


        class Patient(Task):
            def apply_async(self, args=None, kwargs=None, expires=None, **options):
                return super().apply_async(args, kwargs, **options)


        @shared_task(base=Patient)
        def note"""),
)
def test_in_eager_mode_a_task_runs_that_has_expired(rig, suite):
    """In eager mode a task runs that has expired, which a worker throws away."""
    passed(suite.as_it_is(f"{EAGER}after_its_time"))
    rig.same(rig.logged(), ["INFO 98000001 arrived"], "the test logged {}")
    note.apply_async((1,), expires=-1_000_000)
    (run,) = rig.finished(NOTE)
    rig.same(run.state, "revoked", "the worker's state: {}")


@pytest.mark.broken_by(r"DID NOT RAISE", conf={"task_serializer": "pickle"})
@pytest.mark.workers
def test_in_eager_mode_a_chain_takes_what_json_can_not_hold(rig, suite):
    """In eager mode `.delay()` of a task raises for what JSON can't hold; a chain takes it, and raises otherwise."""
    with pytest.raises(EncodeError):
        chain(note.si(EveCorporationInfo(corporation_id=98000001)), note.si(1)).delay()
    passed(suite.as_it_is(f"{EAGER}with_an_object_in_a_chain"))
    assert rig.logged() == ["INFO <EveCorporationInfo: > arrived", "INFO 98000002 arrived"]
    failed(
        suite.as_it_is("traps.py::EagerTests::test_red_with_an_object"), "test_red_with_an_object", why="EncodeError"
    )


@pytest.mark.broken_by(r"\['1 failed'\]", **KEPT_LOCK)
@pytest.mark.workers
def test_in_eager_mode_queue_once_rejects_nothing(rig, suite):
    """In eager mode a second start of a `QueueOnce` task is not rejected: the first has ended; otherwise it is."""
    passed(suite.as_it_is(f"{EAGER}with_a_second_start"))
    assert rig.logged() == ["INFO Standings of corporation 98000001 updated"] * 2
    assert update_standings.delay(98000001).id
    assert not update_standings.delay(98000001).id


@pytest.mark.broken_by(
    r"waits: \{\}",
    file="traps.py",
    old='current_app.send_task("testing.tasks.note", (98000001,))',
    new="note.delay(98000001)",
)
@pytest.mark.workers
def test_in_eager_mode_what_is_sent_by_name_goes_to_the_broker(rig, suite):
    """In eager mode `send_task` sends its message to the broker all the same."""
    passed(suite.as_it_is(f"{EAGER}but_sent_by_name"))
    rig.same(rig.waiting(), WAITS, "waits: {}")


@pytest.mark.broken_by(r"told: \['INFO eager: True'", file="tasks.py", old="self.request.is_eager)", new="True)")
def test_a_task_can_tell_that_it_runs_in_the_caller(rig, suite, caplog):
    """`self.request.is_eager` is True in `apply()` and in eager mode, False in a worker and in a plain call."""
    passed(suite.as_it_is(f"{EAGER}with_a_task_that_can_tell"))
    assert rig.logged() == ["INFO eager: True"]
    tell.apply()
    tell()
    tell.delay()
    rig.finished("testing.tasks.tell")
    assert logged_here(caplog)[0] == "INFO eager: True"
    rig.same([logged_here(caplog)[1], rig.logged()[-1]], ["INFO eager: False"] * 2, "told: {}")


ROWS = "traps.py::EagerRowTests::test_"


@pytest.mark.broken_by(
    r"the test logged \[\]", file="corporations.py", old="count_members.delay(", new="count_members.delay_on_commit("
)
@pytest.mark.workers
def test_in_eager_mode_a_task_finds_the_row_that_is_not_committed(rig, suite):
    """In eager mode a task that is started before the commit finds the row: the test is green."""
    passed(suite.as_it_is(f"{ROWS}green_before_the_commit"))
    rig.same(rig.logged(), ["INFO Corporation 98000001 has 0 members"], "the test logged {}")


@pytest.mark.broken_by(r"\['1 failed'\]", conf={"task_eager_propagates": True})
@pytest.mark.workers
def test_in_eager_mode_a_failure_goes_unnoticed(rig, suite):
    """In eager mode a task that fails, also after its retries, raises nothing in the test, which is green."""
    passed(suite.as_it_is(f"{ROWS}green_though_it_fails"))
    assert rig.logged() == ["INFO Attempt 1", "INFO Attempt 2", "INFO Attempt 3"]


@pytest.mark.broken_by(
    r"was another", file="tasks.py", old="raise self.retry(countdown=60, exc=error) from error", new="raise"
)
@pytest.mark.workers
def test_with_celery_eager_propagates_exceptions_a_retry_is_raised_instead_of_made(rig, suite):
    """With `CELERY_EAGER_PROPAGATES_EXCEPTIONS` too, the first retry is raised in the test, and not made."""
    name = "red_with_the_first_retry"
    failed(suite.as_it_is(f"{ROWS}{name}"), f"test_{name}", why="celery.exceptions.Retry")
    assert rig.logged() == ["INFO Attempt 1"]


# What a test leaves in the project.


@pytest.mark.broken_by(
    r"the project's row says 7",
    file="traps.py",
    old="captureOnCommitCallbacks(execute=True)",
    new="captureOnCommitCallbacks()",
)
def test_what_a_test_sends_runs_on_the_projects_database(rig, suite):
    """With the project's settings a worker of the project runs what a test sends, on the project's database."""
    corporations._create(98000001)
    EveCorporationInfo.objects.update(member_count=7)
    other = {"corporation_id": 98000002, "corporation_name": "Other", "corporation_ticker": "OTHER"}
    EveCharacter.objects.create(character_id=2112000001, character_name="Aiko Danuja", **other)
    passed(suite.as_it_is("traps.py::SharedRedisTests"))
    rig.settle()
    rig.same(EveCorporationInfo.objects.get().member_count, 0, "the project's row says {}")


@pytest.mark.broken_by(r"the project's start: [0-9a-f]", **UNLOCKED)
@pytest.mark.workers
def test_a_lock_of_a_test_rejects_the_projects_start(rig, suite):
    """With the project's settings a test leaves the lock of a `QueueOnce` task, which rejects the project's start."""
    passed(suite.as_it_is("traps.py::LockTests::test_first_green"))
    rig.same(update_standings.delay(98000001).id, None, "the project's start: {}")


@pytest.mark.broken_by(r"\[\] failed", **UNLOCKED)
@pytest.mark.workers
def test_a_lock_of_one_test_rejects_the_start_of_the_next(rig, suite):
    """A lock that one test leaves rejects the start of the next: the cache is not rolled back."""
    failed(suite.as_it_is("traps.py::LockTests"), "test_then_red", why="None is not true")


@pytest.mark.broken_by(r"\['test_red_with_a_second_start'\] failed|was another", **UNLOCKED)
@pytest.mark.workers
def test_with_djangos_own_memory_cache_a_rejected_start_raises(rig, suite):
    """With Django's `LocMemCache` a rejected start raises `AttributeError`, as that has no `ttl`."""
    name = "test_red_with_a_second_start"
    failed(suite.as_it_is("traps.py::LocalCacheTests"), name, why="'LocMemCache' object has no attribute 'ttl'")


@pytest.mark.broken_by(
    r"the tests' broker is redis://localhost:6379/0",
    file="apart.py",
    old='settings["TEST_REDIS"] = settings["BROKER_URL"] = url',
    new='settings["TEST_REDIS"] = url',
)
@pytest.mark.workers
def test_the_settings_for_tests_name_another_broker_and_cache(rig, monkeypatch):
    """The settings for tests take broker and cache from `TEST_REDIS`, else database 15, which is not the project's."""
    from myauth.settings import local

    monkeypatch.delenv("TEST_REDIS", raising=False)
    sys.modules.pop("testing.settings_for_tests", None)
    from testing import settings_for_tests

    rig.same(settings_for_tests.BROKER_URL, "redis://localhost:6379/15", "the tests' broker is {}")
    assert settings_for_tests.CACHES["default"] == local.CACHES["default"] | {"LOCATION": "redis://localhost:6379/15"}
    assert settings_for_tests.DATABASES == local.DATABASES
    monkeypatch.setenv("TEST_REDIS", "redis://redis:6379/3")
    own = {"CACHES": settings.CACHES, "DATABASES": settings.DATABASES}
    apart(own)
    assert own["BROKER_URL"] == own["CACHES"]["default"]["LOCATION"] == own["TEST_REDIS"] == "redis://redis:6379/3"
    was = settings.DATABASES["default"]
    file = {"TEST": was["TEST"] | {"NAME": "test.sqlite3"}}
    assert own["DATABASES"]["default"] == was | (file if connection.vendor == "sqlite" else {})


# The helpers.


@pytest.mark.broken_by(
    r"the reason was another",
    file="helpers.py",
    old='if getattr(settings, "TEST_REDIS", None) != current_app.conf.broker_url:',
    new="if False:",
)
@pytest.mark.workers
def test_the_helpers_refuse_a_redis_that_may_be_the_projects(rig, suite):
    """With the project's settings the helpers raise before they empty anything."""
    cache.set("of the project", 1)
    failed(suite.as_it_is("tests.py"), ONCE, SENT, TWENTY, COMMIT, why="name no Redis database for tests")
    assert cache.get("of the project")


@pytest.mark.broken_by(
    r"\[\] failed", file="corporations.py", old="count_members.delay_on_commit(", new="count_members.delay("
)
@pytest.mark.workers
def test_in_a_test_case_delay_on_commit_sends_nothing(rig, suite):
    """In a `TestCase` `delay_on_commit` sends nothing: the test's transaction is never committed."""
    name = "test_red_as_nothing_is_sent"
    failed(suite.apart(f"traps.py::UncommittedTests::{name}"), name, why="0 != 1")


@pytest.mark.broken_by(r"\['1 failed'\]", file="tests.py", old="execute=True", new="execute=False")
@pytest.mark.workers
def test_capture_on_commit_callbacks_sends_it(rig, suite):
    """`captureOnCommitCallbacks(execute=True)` sends it, and the helper has its name, arguments and priority."""
    passed(suite.apart(f"tests.py::SentTests::{SENT}"))
    assert rig.waiting() == {}


@pytest.mark.broken_by(r"\['1 failed'\]", file="tests_pytest.py", old="execute=True", new="execute=False")
@pytest.mark.workers
def test_pytest_djangos_fixture_sends_it_too(rig, suite):
    """pytest-django's fixture `django_capture_on_commit_callbacks` sends it too."""
    passed(suite.apart(f"tests_pytest.py::{SENT}"))


@pytest.mark.broken_by(
    r"the locks are \['",
    file="helpers.py",
    old="    finally:\n        client.flushdb()",
    new="    finally:\n        pass",
)
@pytest.mark.workers
def test_the_helpers_leave_no_lock_behind(rig, suite):
    """With the helpers a test begins without locks, and leaves none."""
    cache.set("qo_testing.tasks.update_standings_corporation_id-98000001", "lock")
    for once in ("tests.py::SentTests", "tests_pytest.py"):
        passed(suite.apart(f"{once}::test_standings_are_updated_once"))
        rig.same(cache.keys("qo_*"), [], "the locks are {}")


@pytest.mark.broken_by(r"\[\] failed", **RESULTS)
@pytest.mark.workers
def test_start_worker_wants_a_ping_that_auth_can_not_answer(rig, suite):
    """Celery's `start_worker` raises unless told not to ping: its ping is unknown, and with Auth it has no result."""
    failed(
        suite.apart("traps.py::WorkerTests::test_red_as_the_ping_is_unknown"),
        "test_red_as_the_ping_is_unknown",
        why="AssertionError",
    )
    failed(
        suite.apart("traps.py::WorkerTests::test_red_as_the_ping_has_no_result"),
        "test_red_as_the_ping_has_no_result",
        why="No result backend is configured",
    )


@pytest.mark.broken_by(r"threads are .*4", file="helpers.py", old="concurrency=5", new="concurrency=4")
@pytest.mark.workers
def test_the_worker_of_the_helper_has_the_threads_of_supervisors(rig, suite):
    """The helper's worker has the pool and the number of threads that Auth's `supervisor.conf` gives the worker."""
    code, printed = suite.apart("traps.py::WorkerTests::test_green_with_five_threads", "-s")
    assert not code, printed
    rig.same(
        re.findall(r"celery\.concurrency\.(\w+)\.TaskPool\S* (\d+)", printed, re.M), [("thread", "5")], "threads are {}"
    )
    conf = configparser.ConfigParser(interpolation=None, inline_comment_prefixes=(";",))
    conf.read("supervisor.conf")
    assert {"--pool=threads", "--concurrency=5"} <= set(conf["program:worker"]["command"].split())


@pytest.mark.broken_by(
    r"\[\] failed", file="helpers.py", old="        while len(ended) < len(sent):", new="        while False:"
)
@pytest.mark.workers
def test_settle_raises_where_a_task_does_not_end(rig, suite):
    """`settle` raises `TimeoutError` where a task has not ended in the given seconds, and names what was sent."""
    name = "test_red_with_what_has_not_ended"
    failed(
        suite.apart(f"traps.py::WorkerTests::{name}"),
        name,
        why="TimeoutError: of ['testing.tasks.note'] only [] have ended after 0.1 s",
    )


@pytest.mark.broken_by(
    r"'1 failed'", file="tests.py", old="WorkerTests(TransactionTestCase)", new="WorkerTests(TestCase)"
)
@pytest.mark.workers
def test_a_worker_in_a_test_runs_each_of_twenty_tasks_once(rig, suite):
    """In a `TransactionTestCase` a worker with five threads runs each of 20 tasks once, and finds every row."""
    passed(suite.apart("tests.py::WorkerTests::test_each_of_twenty_is_counted"))
    assert (rig.waiting(), rig.redis.hlen("unacked")) == ({}, 0)


@pytest.mark.broken_by(r"'1 failed'", file="fixtures.py", old="transactional_db", new="db")
@pytest.mark.workers
def test_with_pytest_too_a_worker_runs_each_of_twenty_tasks_once(rig, suite):
    """With pytest-django's `transactional_db` the worker runs each of 20 tasks once, and finds every row."""
    passed(suite.apart("tests_pytest.py::test_each_of_twenty_is_counted"))


@pytest.mark.broken_by(
    r"\[\] failed",
    file="traps.py",
    old="class UncommittedTests(TestCase)",
    new="from django.test import TransactionTestCase\n\n\nclass UncommittedTests(TransactionTestCase)",
)
@pytest.mark.workers
def test_in_a_test_case_a_worker_closes_the_connection_of_the_test(rig, suite):
    """In a `TestCase` the start of a worker closes the test's own connection to the database: the next query raises.

    On SQLite that is a `ProgrammingError`, on MariaDB a `TransactionManagementError`.
    """
    name = "test_red_with_a_worker"
    there = "You can't execute queries until the end of the 'atomic' block"
    why = {"sqlite": "Cannot operate on a closed database", "mysql": there}[connection.vendor]
    ran = suite.apart(f"traps.py::UncommittedTests::{name}")
    failed(ran, name, why=why)
    failed(ran, name, why="corporations.add(98000001)")


@pytest.mark.broken_by(
    r"\[\] failed", file="corporations.py", old="count_members.delay(", new="count_members.delay_on_commit("
)
@pytest.mark.workers
def test_a_worker_in_a_test_tells_that_a_task_starts_too_early(rig, suite, monkeypatch):
    """A test that lets the worker settle before the commit is red for a task that is started too early."""
    monkeypatch.setattr(corporations, "add", corporations.add_too_early)
    failed(suite.apart(f"tests.py::WorkerTests::{COMMIT}"), COMMIT)


@pytest.mark.broken_by(
    r"test_the_count'",
    file="tests.py",
    old="        self.assertEqual(count_members(98000001), 0)",
    new="        count_members(98000001)",
)
@pytest.mark.workers
def test_each_test_is_red_where_the_code_is_wrong(rig, suite, monkeypatch):
    """Each of the tests is red where nothing is started, the count is wrong, or the task has no lock."""
    monkeypatch.setattr(corporations, "add", corporations._create)
    monkeypatch.setattr(tasks, "count_members", tasks.note)
    monkeypatch.setattr(tasks, "update_standings", tasks.note)
    failed(suite.apart("tests.py"), SENT, ONCE, TWENTY, COMMIT, "test_the_count")
    failed(suite.apart("tests_pytest.py"), SENT, ONCE, TWENTY)


LOCAL = """
SITE_URL = "http://127.0.0.1"
ESI_USER_CONTACT_EMAIL = "lab@example.com"
INSTALLED_APPS += ["testing"]
BROKER_URL = CACHES["default"]["LOCATION"] = "{}"
DATABASES["default"] = {{"ENGINE": "django.db.backends.sqlite3", "NAME": "auth.sqlite3", "TEST": {{"MIGRATE": False}}}}
"""


class Prompt:
    """Runs pytest and `manage.py test` side by side, as a reader does, each in a project of its own."""

    def __init__(self, base, app, refuses):
        self._base = base
        for runner in ("pytest", "manage"):
            folder = self._of(runner)
            # The name that `allianceauth start` was given; what it has made.
            shutil.copytree(Path.cwd(), folder, ignore=shutil.ignore_patterns("*.sqlite3*", "__pycache__"))
            shutil.copytree(app, folder / "testing", ignore=shutil.ignore_patterns("test_*.py", "__pycache__"))
            with (folder / "myauth" / "settings" / "local.py").open("a") as local:
                local.write(LOCAL.format(refuses))

    def _of(self, runner):
        return self._base / runner / "myauth"

    def without(self, file):
        for runner in ("pytest", "manage"):
            (self._of(runner) / file).unlink()

    def test(self, pytest_s, djangos):
        """Return of pytest and of `manage.py test` the exit code and what it printed."""
        commands = {
            "pytest": ["-m", "pytest", "--ds=testing.settings_for_tests", "-p", "testing.fixtures", pytest_s],
            "manage": ["manage.py", "test", "--settings=testing.settings_for_tests", djangos],
        }
        keep = {name: text for name, text in os.environ.items() if name != "PYTHONPATH" and not name.startswith("LAB_")}
        how = {"env": keep, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        running = [
            subprocess.Popen([sys.executable, *words], cwd=self._of(runner), **how)
            for runner, words in commands.items()
        ]
        told = [process.communicate(timeout=120)[0] for process in running]
        return [(process.returncode, text) for process, text in zip(running, told, strict=True)]


@pytest.fixture
def prompt(suite, tmp_path):
    with socket.socket() as nobody:
        # Taken, but not listened at.
        nobody.bind(("127.0.0.1", 0))
        yield Prompt(tmp_path, suite.app, f"redis://127.0.0.1:{nobody.getsockname()[1]}/0")


@pytest.mark.broken_by(
    r"it went by without|assert \"No module named 'myauth.testing'\" in",
    file="__init__.py",
    old='"""The app of a reader, with tests of its own."""',
    new='import sys\n\nsys.modules["myauth.testing"] = sys.modules[__name__]',
)
@pytest.mark.workers
def test_the_file_beside_manage_py_keeps_both_runners_from_the_app(prompt):
    """With the `__init__.py` that `allianceauth start` puts beside `manage.py`, both runners can't import the tests."""
    for code, printed in prompt.test("testing/tests.py", "testing"):
        assert code, f"it went by without: {printed}"
        assert "No module named 'myauth.testing'" in printed, printed


@pytest.mark.broken_by(
    r"These settings name no Redis database for tests",
    file="apart.py",
    old='settings["TEST_REDIS"] = settings["BROKER_URL"] = url',
    new='settings["TEST_REDIS"] = url',
)
@pytest.mark.workers
def test_both_runners_are_green_without_it_and_need_no_broker_of_the_project(prompt):
    """Without that file both runners are green, also where the project's broker refuses: the tests use their own."""
    prompt.without("__init__.py")
    for code, printed in prompt.test(f"testing/tests_pytest.py::{SENT}", f"testing.tests.SentTests.{SENT}"):
        assert not code, printed
