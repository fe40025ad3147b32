import base64
import json
import re
from pathlib import Path

import pytest
import redis
from allianceauth.authentication.task_statistics.counters import dashboard_results
from allianceauth.eveonline.models import EveCharacter
from celery import current_app
from django.conf import settings
from django.core.management import call_command
from django.db import connection
from django.test import override_settings

from first_task.models import Roster
from first_task.tasks import count_members

COUNT = "first_task.tasks.count_members"
COMPARE = "first_task.loggers.compare_loggers"
LEVELS = {"debug": "a debug line", "info": "an info line", "warning": "a warning"}
PICKLE = {"task_serializer": "pickle", "accept_content": ["pickle", "json"]}
SWALLOW = {
    "file": "tasks.py",
    "old": "Roster.objects.get(corporation_id=corporation_id)",
    "new": "Roster.objects.get_or_create(corporation_id=corporation_id)[0]",
}


def count_lines(rig, logger):
    """How often each log of Auth, and the worker's own, has a logger's line of each level; without those that don't."""
    handlers = settings.LOGGING["handlers"].values()
    texts = {
        name: rig.log_file(name) for name in (Path(handler.get("filename", "")).name for handler in handlers) if name
    }
    texts["the worker's log"] = rig.printed(rig.workers[0])
    lines = {level: f"{text} of {logger}\n" for level, text in LEVELS.items()}
    counts = {level: {place: text.count(line) for place, text in texts.items()} for level, line in lines.items()}
    return {level: {place: n for place, n in found.items() if n} for level, found in counts.items()}


@pytest.mark.broken_by(r"waits in \{'celery\\x06\\x163': 1\}", conf={"task_default_priority": 3})
@pytest.mark.broken_by(r"waits in \{\}", file="demo.py", old="count_members.delay(", new="count_members(")
@pytest.mark.workers
def test_delay_puts_one_message_into_the_redis_list_of_priority_five(rig):
    """`.delay()` puts one message into the Redis list `celery` and, unless it is 0, the priority: 5 by default."""
    rig.demo()
    rig.same(rig.waiting(), {"celery\x06\x165": 1}, "the message waits in {}")
    for priority in (0, 9):
        count_members.apply_async((98000001,), priority=priority)
    assert set(rig.waiting()) == {"celery", "celery\x06\x165", "celery\x06\x169"}


@pytest.mark.broken_by(r"sent as application/x-python-serialize", conf=PICKLE)
@pytest.mark.broken_by(r"the body holds \[\[\], ", file="demo.py", old="delay(", new="delay(corporation_id=")
@pytest.mark.workers
def test_the_message_is_plain_json_with_the_name_and_the_arguments(rig):
    """The message is JSON: the task's name and its arguments, readable for whoever can read Redis."""
    rig.demo()
    message = json.loads(rig.redis.lindex("celery\x06\x165", 0))
    assert message["content-type"] == "application/json", f"sent as {message['content-type']}"
    assert message["headers"]["task"] == COUNT
    rig.same(json.loads(base64.b64decode(message["body"]))[:2], [[98000001], {}], "the body holds {}")


@pytest.mark.broken_by(r"waits in \{\} before", file="demo.py", old="count_members.delay(", new="count_members(")
@pytest.mark.workers
def test_a_worker_that_starts_later_runs_the_waiting_task_in_its_own_process(rig):
    """The message waits until there is a worker: one that starts later runs the task in its own process."""
    rig.demo()
    waiting = rig.waiting()
    assert sum(waiting.values()) == 1, f"the message waits in {waiting} before the worker starts"
    worker = rig.start_worker()
    rig.finished(COUNT)
    rig.same({event["pid"] for event in rig.events if event["type"] == "task-started"}, {worker.pid}, "it ran in {}")
    assert rig.waiting() == {}, "the message still waits"


@pytest.mark.broken_by(
    r"the task is called \['count'\]",
    file="tasks.py",
    old="@shared_task\ndef count_members(",
    new="@shared_task(name='count')\ndef count_members(",
)
def test_a_task_is_named_after_its_module_and_its_function(rig):
    """A task's name is the path of its module, a dot and the name of the function."""
    rig.demo()
    rig.same([run.name for run in rig.finished()], [COUNT], "the task is called {}")


@pytest.mark.broken_by(r"the task counted 0", file="tasks.py", old="    roster.count()\n", new="")
def test_the_work_of_a_slim_task_can_be_done_without_celery(rig):
    """Where the work is a method of the model, it can be called without Celery; the task does the very same."""
    pilot = {"corporation_id": 98000001, "corporation_name": "Amarr Haulers", "corporation_ticker": "AMH"}
    EveCharacter.objects.create(character_id=90000001, character_name="Aiko Danuja", **pilot)
    other = pilot | {"corporation_id": 98000002}
    EveCharacter.objects.create(character_id=90000009, character_name="Caro Tekk", **other)
    Roster.objects.create(corporation_id=98000002)
    roster = Roster.objects.create(corporation_id=98000001)
    assert roster.members == 0
    roster.count()
    assert roster.members == 1
    EveCharacter.objects.create(character_id=90000002, character_name="Bo Tarkan", **pilot)
    roster.members = 0
    roster.save()
    rig.finished(COUNT, after="demo.py")
    roster.refresh_from_db()
    assert roster.members == 2, f"the task counted {roster.members}"


@pytest.mark.broken_by(
    r"the second raised .*(no such table|\(1146, )",
    file="migrations/0001_initial.py",
    old="operations = [",
    new="operations = [] and [",
)
def test_migrate_makes_the_table_only_from_a_migration(rig):
    """`migrate` makes the model's table only from a migration: without one it succeeds, and the task finds no table."""
    with connection.schema_editor() as before:
        before.delete_model(Roster)
    call_command("migrate", "first_task", "zero", fake=True, verbosity=0)
    with override_settings(MIGRATION_MODULES={"first_task": None}):
        call_command("migrate", verbosity=0)
    (run,) = rig.finished(COUNT, after="demo_failing.py")
    # SQLite's words and MariaDB's.
    assert re.search(r"no such table: first_task_roster|\(1146, .*first_task_roster' doesn't exist", run.exception)
    call_command("migrate", verbosity=0)
    rig.finished(COUNT, 2, after="demo_failing.py")
    rig.same(
        [run.exception for run in rig.runs()][1],
        "DoesNotExist('Roster matching query does not exist.')",
        "the second raised {}",
    )
    # As the model is now.
    call_command("makemigrations", "first_task", check_changes=True, dry_run=True, verbosity=0)


@pytest.mark.broken_by(
    r"printed '[0-9a-f]{8}-",
    file="demo_function.py",
    old="print(count_members(",
    new="print(count_members.delay(",
)
def test_called_like_a_function_a_task_runs_in_the_caller(rig):
    """Called like a function, a task runs in the caller, which gets its return value; no message is sent."""
    rig.prints("demo_function.py", "0\n")
    (sentinel,) = rig.finished(COUNT, after="demo.py")
    assert {event["uuid"] for event in rig.events} == {sentinel.id}, "the call sent a message"


@pytest.mark.broken_by(
    r"extensions.log holds ''",
    file="tasks.py",
    old="get_extension_logger(__name__)",
    new="__import__('logging').getLogger(__name__)",
)
def test_a_line_of_the_extension_logger_goes_to_extensions_log(rig):
    """What a task logs with `get_extension_logger` goes to `extensions.log`, and not to `allianceauth.log`."""
    rig.finished(COUNT, after="demo.py")
    line = "] Corporation 98000001 has 0 members in Auth\n"
    extensions = rig.log_file("extensions.log")
    assert extensions.count(line) == 1, f"extensions.log holds {extensions!r}"
    assert "INFO [first_task.tasks:" in extensions, "the line does not name the module"
    assert rig.log_file("allianceauth.log") == ""


@pytest.mark.broken_by(
    r"found .*'extensions.log': 1, .the worker's log.: 1",
    file="loggers.py",
    old="logger.debug(",
    new="logger.parent.propagate = False\n        logger.debug(",
)
def test_lines_of_the_extension_logger_are_in_extensions_log_and_twice_in_the_workers_log(rig):
    """Info lines and warnings of the extension logger are in `extensions.log`, and twice in the worker's own log."""
    rig.finished(COMPARE, after="demo_loggers.py")
    found = count_lines(rig, "get_extension_logger")
    both = {"extensions.log": 1, "the worker's log": 2}
    assert (found["info"], found["warning"]) == (both, both), f"found {found}"


@pytest.mark.broken_by(r"extensions.log", file="loggers.py", old="logger.debug(", new="logger.info(")
def test_a_debug_line_goes_to_the_workers_log_only(rig):
    """A debug line of the extension logger is in the worker's own log, twice too, and in no log file of Auth."""
    rig.finished(COMPARE, after="demo_loggers.py")
    rig.same(count_lines(rig, "get_extension_logger")["debug"], {"the worker's log": 2}, "found in {}")


@pytest.mark.broken_by(
    r"found in \{'extensions.log'",
    file="loggers.py",
    old="logger = get(__name__)",
    new="logger = get_extension_logger(get.__name__)",
)
def test_info_lines_of_any_other_logger_are_lost(rig):
    """Info lines of `get_task_logger` and `logging.getLogger` are written nowhere: Auth gives its workers no level."""
    rig.finished(COMPARE, after="demo_loggers.py")
    for logger in ("get_task_logger", "getLogger"):
        found = count_lines(rig, logger)
        assert found["info"] == {}, f"found in {found['info']}"
        assert found["debug"] == {}
    assert not [word for word in rig.workers[0].argv if word.startswith(("-l", "--loglevel"))]


@pytest.mark.broken_by(
    r"found in \{'extensions.log'",
    file="loggers.py",
    old="logger = get(__name__)",
    new="logger = get_extension_logger(get.__name__)",
)
def test_warnings_of_other_loggers_go_to_the_workers_log_only(rig):
    """Warnings of `get_task_logger` and `logging.getLogger` are in the worker's own log and in no log file of Auth."""
    rig.finished(COMPARE, after="demo_loggers.py")
    for logger in ("get_task_logger", "getLogger"):
        rig.same(count_lines(rig, logger)["warning"], {"the worker's log": 1}, "found in {}")


@pytest.mark.broken_by(
    r"extensions.log",
    file="loggers.py",
    old='print("a printed line")',
    new='get_extension_logger("x").info("a printed line")',
)
def test_what_a_task_prints_goes_to_the_workers_log_only(rig):
    """What a task prints is in the worker's own log, as a warning, and in no log file of Auth."""
    rig.finished(COMPARE, after="demo_loggers.py")
    files = {name: rig.log_file(name) for name in ("extensions.log", "allianceauth.log", "mumble_authenticator.log")}
    rig.same([name for name, text in files.items() if "a printed line" in text], [], "found in {}")
    (line,) = [line for line in rig.printed(rig.workers[0]).splitlines() if line.endswith("a printed line")]
    assert ": WARNING/" in line


@pytest.mark.broken_by(
    r"Auth's log files hold .*Traceback",
    file="demo_failing.py",
    old="import count_members",
    new="import count_members_or_tell as count_members",
)
def test_the_traceback_is_in_the_workers_log_and_in_no_log_file_of_auth(rig):
    """The traceback of a raised exception is in the worker's own log; no log file of Auth gets a line."""
    rig.finished(after="demo_failing.py")
    rig.same(rig.log_file("extensions.log") + rig.log_file("allianceauth.log"), "", "Auth's log files hold {!r}")
    worker = rig.printed(rig.workers[0])
    assert "] raised unexpected: DoesNotExist('Roster matching query does not exist.')\nTraceback (most" in worker


@pytest.mark.broken_by(r"extensions.log holds ''", file="tasks.py", old="logger.exception(", new="logger.debug(")
@pytest.mark.broken_by(r"the task succeeded", file="tasks.py", old="        raise\n", new="        return\n")
def test_logger_exception_brings_the_traceback_to_extensions_log(rig):
    """A task that calls `logger.exception` and raises again has its traceback in `extensions.log`, and still fails."""
    (run,) = rig.finished("first_task.tasks.count_members_or_tell", after="demo_telling.py")
    assert run.state == "failed", f"the task {run.state}"
    extensions = rig.log_file("extensions.log")
    expected = "] Can't count the members of corporation 98999999\nTraceback (most recent call last)"
    assert expected in extensions, f"extensions.log holds {extensions!r}"


@pytest.mark.broken_by(
    r"[34] starts",
    file="tasks.py",
    old="@shared_task\ndef count_members(",
    new="@shared_task(autoretry_for=(Exception,), max_retries=1, default_retry_delay=0)\ndef count_members(",
)
def test_a_failed_task_is_not_tried_again(rig):
    """A task that raised is not run again, unless it asks for that, and its worker goes on with the next."""
    rig.demo("demo_failing.py")
    rig.finished(COUNT, 2, after="demo.py")
    rig.settle()
    rig.same([event["type"] for event in rig.events].count("task-started"), 2, "{} starts")
    assert sorted(run.state for run in rig.runs()) == ["failed", "succeeded"]


@pytest.mark.broken_by(
    r"left \[b?'members'\]",
    file="tasks.py",
    old="    roster.count()",
    new="    __import__('django_redis').get_redis_connection().set('members', 1)\n    roster.count()",
)
def test_neither_a_failure_nor_a_returned_value_is_kept(rig):
    """When a task has ended, neither the broker's nor the cache's database holds its message, exception or value."""
    addresses = {current_app.conf.broker_url, settings.CACHES["default"]["LOCATION"]}
    databases = [redis.Redis.from_url(address) for address in addresses]
    before = [set(database.scan_iter()) for database in databases]
    rig.demo()
    rig.finished(COUNT, 2, after="demo_failing.py")
    rig.wait(lambda: rig.redis.hlen("unacked") == 0, "the acknowledgement")
    # How queues are bound, Auth's count of tasks for the dashboard, and the count of failures of another chapter's app.
    known = ("_kombu.binding", "ALLIANCEAUTH_EVENT_SERIES", ":1:how_full:failed:")
    new = [
        key.decode()
        for then, database in zip(before, databases, strict=True)
        for key in set(database.scan_iter()) - then
    ]
    rig.same([key for key in new if not key.startswith(known)], [], "left {}")


@pytest.mark.broken_by(r"Auth counts 0 failed", **SWALLOW)
def test_auths_dashboard_counts_the_failure(rig):
    """A raised exception counts as one failed task on the dashboard's task statistics."""
    before = dashboard_results(hours=1).failed
    rig.finished(COUNT, after="demo_failing.py")
    rig.same(dashboard_results(hours=1).failed - before, 1, "Auth counts {} failed")


@pytest.mark.broken_by(r"printed ''", file="demo_model_argument.py", old="Roster()", new="98000001")
def test_a_model_instance_as_argument_raises_at_the_call(rig):
    """A model instance as an argument raises `EncodeError` at the call, and nothing is sent: pass its key instead."""
    rig.prints("demo_model_argument.py", "Object of type Roster is not JSON serializable\n")
    (sentinel,) = rig.finished(after="demo.py")
    assert {event["uuid"] for event in rig.events} == {sentinel.id}, "the call sent a message"


@pytest.mark.broken_by(
    r"arrived as \['datetime: .*'tuple",
    file="tasks.py",
    old="(*given):",
    new="(*given):\n    given = (given[0], tuple(given[1]), given[2])",
)
@pytest.mark.broken_by(
    r"arrived as \['str: ", file="demo_arguments.py", old="tzinfo=UTC)", new="tzinfo=UTC).isoformat()"
)
def test_a_datetime_arrives_as_one_but_a_tuple_as_a_list_and_numbers_as_keys_as_text(rig):
    """A datetime arrives as a datetime, but a tuple as a list, and a dictionary's integer keys as strings."""
    rig.finished("first_task.tasks.show_arguments", after="demo_arguments.py")
    lines = rig.log_file("extensions.log").splitlines()
    assert all("] INFO [first_task.tasks:" in line for line in lines)
    arrived = [line.partition("] ")[2].partition("] ")[2] for line in lines]
    rig.same(
        arrived, ["datetime: 2026-11-24 11:00:00+00:00", "list: [1, 2]", "dict: {'30000142': 'Jita'}"], "arrived as {}"
    )


@pytest.mark.broken_by(
    r"printed ''",
    file="tasks.py",
    old="@shared_task\ndef count_members(",
    new="@shared_task(typing=False)\ndef count_members(",
)
def test_a_missing_argument_raises_at_the_call(rig):
    """A missing argument raises `TypeError` where `.delay()` is called, and nothing is sent."""
    rig.prints("demo_missing_argument.py", "count_members() missing 1 required positional argument: 'corporation_id'\n")
    (sentinel,) = rig.finished(after="demo.py")
    assert {event["uuid"] for event in rig.events} == {sentinel.id}, "the call sent a message"


@pytest.mark.broken_by(
    r"it succeeded", file="tasks.py", old="def show_arguments(*given):", new="def count_pilots(*given):"
)
def test_a_message_for_a_name_that_is_gone_is_discarded(rig):
    """A message whose task was renamed or removed is thrown away, with an error in the worker's own log only."""
    before = dashboard_results(hours=1).failed
    (run,) = rig.finished(after="demo_renamed.py")
    assert run.state == "failed", f"it {run.state}"
    assert (run.args, run.exception) == ("[98000001]", "NotRegistered('first_task.tasks.count_pilots')")
    worker = rig.printed(rig.workers[0])
    assert "Received unregistered task of type 'first_task.tasks.count_pilots'.\nThe message has been ignored" in worker
    rig.settle()
    assert rig.log_file("extensions.log") + rig.log_file("allianceauth.log") == ""
    assert dashboard_results(hours=1).failed == before, "Auth counts it as failed"


@pytest.mark.broken_by(
    r"it succeeded",
    file="tasks.py",
    old="from .models import Roster\n",
    new="from . import reports  # noqa: F401\nfrom .models import Roster\n",
)
def test_a_task_outside_tasks_py_is_unknown_to_the_worker(rig, caplog):
    """A task in a module other than `tasks.py` is unknown to a worker that imports that module nowhere at its start."""
    known_here = rig.demo("demo_elsewhere.py")
    (run,) = rig.finished()
    assert run.state == "failed", f"it {run.state}"
    assert run.exception == "NotRegistered('first_task.reports.send_report')"
    known_here["send_report"]()
    known = [(line.levelname, line.message) for line in caplog.records]
    assert known == [("INFO", "The report is on its way")], "the caller does not know it either"


@pytest.mark.broken_by(r"raised NotRegistered", file="tasks.py", old="from .loggers import compare_loggers\n", new="")
def test_a_task_outside_tasks_py_is_known_to_the_worker_where_tasks_py_imports_it(rig):
    """A task in another module runs where `tasks.py`, which is loaded at the worker's start, imports it."""
    (run,) = rig.finished(after="demo_loggers.py")
    assert (run.name, run.state) == (COMPARE, "succeeded"), f"it raised {run.exception}"
