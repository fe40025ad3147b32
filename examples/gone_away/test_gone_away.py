"""What becomes of a task's connection to MariaDB, and of tasks that want the same rows."""

import re
from contextlib import contextmanager

import pytest
from allianceauth.eveonline.models import EveCorporationInfo
from allianceauth.notifications import notify
from allianceauth.notifications.models import Notification
from django.conf import settings
from django.contrib.auth.models import User
from django.db import DataError, connection, transaction

from gone_away import tasks

APP = "gone_away.tasks."
COUNT, APART, AGAIN = APP + "count_members", APP + "count_members_apart", APP + "count_members_again"
MOVE, IN_ORDER, MOVE_AGAIN = APP + "move_members", APP + "move_members_in_order", APP + "move_members_again"
FIRST = 98000001
TWENTY = range(FIRST, FIRST + 20)
GONE = r"OperationalError\((2006, '.*gone away'|2013, 'Lost connection)"
DEADLOCK = "OperationalError(1213, 'Deadlock found when trying to get lock; try restarting transaction')"


def make(ids, members=0):
    """Make corporations with so many members each."""
    for one in ids:
        names = {"corporation_name": f"Corporation {one}", "corporation_ticker": str(one)[-5:]}
        EveCorporationInfo.objects.create(corporation_id=one, member_count=members, **names)


def counts(ids=TWENTY):
    """Return how many members the corporations have."""
    return list(
        EveCorporationInfo.objects.filter(corporation_id__in=ids)
        .order_by("corporation_id")
        .values_list("member_count", flat=True)
    )


def connections(condition="1"):
    """Return the ids of the connections to this database, but for the test's own."""
    with connection.cursor() as cursor:
        query = "SELECT id FROM information_schema.processlist WHERE db = DATABASE() AND id <> CONNECTION_ID() AND "
        cursor.execute(query + condition)
        return {number for (number,) in cursor.fetchall()}


def waiting():
    """Return the ids of the connections that wait for a row."""
    return connections("info LIKE '%FOR UPDATE%' AND time_ms > 100")


@contextmanager
def telling(statement):
    """Let workers that are started in the context tell the server this whenever they connect."""
    options = settings.DATABASES["default"]["OPTIONS"]
    options["init_command"] = statement
    try:
        yield
    finally:
        del options["init_command"]


def exceptions(runs):
    return [run.exception for run in runs]


@pytest.mark.workers
@pytest.mark.broken_by(
    r"connections are|the end of the task's connection did not happen", conf={"CELERY_DB_REUSE_MAX": 100}
)
def test_a_worker_closes_its_connection_with_each_task(rig, monkeypatch):
    """A worker closes a task's connection when the task ends, also where `CONN_MAX_AGE` says ten minutes.

    The next task on the same thread opens one of its own.
    """
    monkeypatch.setitem(settings.DATABASES["default"], "CONN_MAX_AGE", 600)
    rig.start_worker(concurrency=1)
    make([FIRST])
    seen = []
    for place in range(3):
        with transaction.atomic():
            tasks.locked(FIRST)
            tasks.move_members_in_order.delay(FIRST, FIRST, 0)
            seen += rig.wait(waiting, "a task that waits for the row")
        rig.finished(IN_ORDER, place + 1)
        rig.wait(lambda: not connections(), "the end of the task's connection", timeout=3)
    assert len(set(seen)) == 3, f"the connections are {seen}"


@pytest.mark.workers
@pytest.mark.broken_by(r"ended as", file="tasks.py", old="time.sleep(pages)", new="time.sleep(pages / 100)")
def test_a_connection_that_is_left_alone_for_too_long_is_gone(rig):
    """A task that leaves its connection alone for longer than `wait_timeout` fails with 2006 at its next query.

    What it had learned is lost.
    """
    with telling("SET SESSION wait_timeout = 1"):
        rig.start_worker()
    make([FIRST])
    tasks.count_members.delay(FIRST, pages=4)
    (run,) = rig.finished(COUNT)
    assert re.match(GONE, run.exception), f"ended as {run.exception}"
    assert counts() == [0]


@pytest.mark.workers
@pytest.mark.broken_by(r"the counts are \[0", file="tasks.py", old="    connection.close()\n", new="")
@pytest.mark.broken_by(
    r"the counts are \[0", file="tasks.py", old="connection.close()", new="connection.close_if_unusable_or_obsolete()"
)
def test_a_task_that_gives_its_connection_back_gets_another(rig, monkeypatch):
    """With `connection.close()` before what takes long, 20 of 20 tasks outlast the same `wait_timeout`.

    They do so where `CONN_MAX_AGE` says ten minutes.
    """
    monkeypatch.setitem(settings.DATABASES["default"], "CONN_MAX_AGE", 600)
    with telling("SET SESSION wait_timeout = 1"):
        rig.start_worker(concurrency=20)
    make(TWENTY)
    for one in TWENTY:
        tasks.count_members_apart.delay(one, pages=4)
    rig.finished(APART, 21, after="demo.py")
    rig.same(counts([*TWENTY, 98000099]), [*(one % 1000 for one in TWENTY), 99], "the counts are {}")


@pytest.mark.broken_by(
    r"five that wait for the row did not happen", file="tasks.py", old="select_for_update().get", new="get"
)
def test_each_thread_with_a_task_has_a_connection_of_its_own(rig):
    """Five threads with a task each have five connections, however many tasks wait in Redis."""
    make([FIRST])
    with transaction.atomic():
        tasks.locked(FIRST)
        for _ in range(20):
            tasks.move_members_in_order.delay(FIRST, FIRST, 0)
        rig.wait(lambda: len(waiting()) == 5, "five that wait for the row")
        assert len(connections()) == 5
    rig.finished(IN_ORDER, 20)


def hold_all(rig, task, wanted):
    """Start 20 tasks while somebody holds their rows, and return once `wanted()`."""
    make(TWENTY)
    with transaction.atomic():
        list(EveCorporationInfo.objects.select_for_update())
        for one in TWENTY:
            task.delay(one, one, 0)
        rig.wait(wanted, "what was to happen while the rows are held")


@pytest.mark.mariadb("--max-connections=10")
@pytest.mark.workers({"concurrency": 20})
@pytest.mark.broken_by(
    r"what was to happen|ended as",
    file="tasks.py",
    old="@shared_task\ndef move_members(",
    new="@shared_task(autoretry_for=(OperationalError,), max_retries=20)\ndef move_members(",
)
def test_more_threads_than_the_server_takes_connections(rig):
    """Where the server takes no more connections, a task fails with 1040: 20 threads want one of ten."""
    hold_all(rig, tasks.move_members, lambda: len([run for run in rig.runs(MOVE) if run.exception]) >= 9)
    runs = rig.finished(MOVE, 20)
    found = {run.exception for run in runs if run.exception}
    assert found == {"OperationalError(1040, 'Too many connections')"}, f"ended as {found}"


@pytest.mark.mariadb("--max-connections=10")
@pytest.mark.workers({"concurrency": 20})
@pytest.mark.broken_by(
    r"what was to happen|ended as",
    file="tasks.py",
    old="@shared_task(autoretry_for=(OperationalError,), retry_backoff=True, max_retries=10)\ndef move",
    new="@shared_task\ndef move",
)
def test_a_task_that_tries_again_finds_a_connection(rig):
    """With `autoretry_for=(OperationalError,)` all 20 of those tasks find a connection, sooner or later."""
    hold_all(rig, tasks.move_members_again, lambda: sum(len(run.retries) for run in rig.runs(MOVE_AGAIN)) >= 9)
    runs = rig.settle(timeout=60)
    assert counts() == [0] * 20
    assert {(run.state, run.exception) for run in runs} == {("succeeded", "")}, f"ended as {exceptions(runs)}"


def crossed(rig, task, pairs):
    """Let two tasks for each pair, one in either direction, get the first of their rows at the same moment."""
    ids = [one for pair in pairs for one in pair]
    make(ids, members=100)
    with transaction.atomic():
        list(EveCorporationInfo.objects.select_for_update())
        for one, other in pairs:
            task.delay(one, other, 1)
            task.delay(other, one, 1)
        rig.wait(lambda: len(waiting()) == len(ids), "all that wait for a row")


@pytest.mark.broken_by(r"ended as", file="tasks.py", old="target = locked(target_id)", new="target = source")
def test_two_tasks_that_lock_the_same_rows_in_another_order(rig):
    """Of two tasks that lock the same two rows in another order, one fails with 1213, Deadlock, and changes nothing."""
    crossed(rig, tasks.move_members, [(FIRST, FIRST + 1)])
    runs = rig.finished(MOVE, 2)
    found = sorted(exceptions(runs))
    assert found == ["", DEADLOCK], f"ended as {found}"
    assert sorted(counts()) == [99, 101]


PAIRS = [(one, one + 1) for one in TWENTY if one % 2]


@pytest.mark.workers({"concurrency": 20})
@pytest.mark.broken_by(
    r"ended as", file="tasks.py", old="in sorted([source_id, target_id])", new="in (source_id, target_id)"
)
def test_rows_that_are_locked_in_one_order_make_no_deadlock(rig):
    """With the rows locked in the order of their ids, none of ten such pairs of tasks fails."""
    crossed(rig, tasks.move_members_in_order, PAIRS)
    runs = rig.finished(IN_ORDER, 20)
    assert set(exceptions(runs)) == {""}, f"ended as {exceptions(runs)}"
    assert counts() == [100] * 20


@pytest.mark.workers
@pytest.mark.broken_by(r"ended as", file="tasks.py", old="select_for_update().get", new="get")
def test_a_row_that_stays_locked_is_waited_for(rig):
    """A task that waits for a row for longer than `innodb_lock_wait_timeout`, 50 s unless set, fails with 1205."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT @@global.innodb_lock_wait_timeout")
        assert cursor.fetchone() == (50,)
    with telling("SET SESSION innodb_lock_wait_timeout = 1"):
        rig.start_worker()
    make([FIRST])
    with transaction.atomic():
        tasks.locked(FIRST)
        tasks.move_members_in_order.delay(FIRST, FIRST, 0)
        (run,) = rig.finished(IN_ORDER)
    assert run.exception == "OperationalError(1205, 'Lock wait timeout exceeded; try restarting transaction')", (
        f"ended as {run.exception}"
    )


def over_a_restart(rig, task):
    """Start `task` for twenty corporations, and restart MariaDB while each has a connection."""
    make(TWENTY)
    for one in TWENTY:
        task.delay(one, pages=4)
    rig.started(task.name, 20)
    rig.wait(lambda: len(connections()) == 20, "the tasks' connections")
    connection.close()
    rig.server.stop()
    rig.server.start()


@pytest.mark.workers({"concurrency": 20})
@pytest.mark.mariadb
@pytest.mark.broken_by(
    r"ended as|the tasks' connections did not happen",
    file="tasks.py",
    old="corporation_id)\n    corporation.member_count = ask",
    new="corporation_id)\n    connection.close()\n    corporation.member_count = ask",
)
def test_a_restart_of_the_database_ends_the_tasks_that_talk_to_it_and_no_worker(rig):
    """A restart of MariaDB fails tasks that have a connection; the same worker runs the next ones without a restart."""
    over_a_restart(rig, tasks.count_members)
    runs = rig.finished(COUNT, 20)
    assert all(re.match(GONE, run.exception) for run in runs), f"ended as {exceptions(runs)}"
    assert counts() == [0] * 20
    tasks.count_members.delay(FIRST, pages=0)
    assert rig.finished(COUNT, 21)[-1].state == "succeeded"


@pytest.mark.workers({"concurrency": 20})
@pytest.mark.mariadb
@pytest.mark.broken_by(
    r"the counts are \[0",
    file="tasks.py",
    old="@shared_task(autoretry_for=(OperationalError,), retry_backoff=True, max_retries=10)\ndef count",
    new="@shared_task\ndef count",
)
def test_a_task_that_tries_again_outlasts_a_restart_of_the_database(rig):
    """With `autoretry_for=(OperationalError,)` 20 of 20 tasks outlast a restart of MariaDB, and no count is lost."""
    over_a_restart(rig, tasks.count_members_again)
    rig.settle(timeout=60)
    rig.same(counts(), [one % 1000 for one in TWENTY], "the counts are {}")
    assert all(run.retries for run in rig.runs(AGAIN))


@pytest.mark.broken_by(
    r"sees \[0, 0\]",
    file="tasks.py",
    old="import time\n",
    new="import time\n\nfrom django.conf import settings\n\n"
    'settings.DATABASES["default"]["OPTIONS"]["isolation_level"] = None\n',
)
def test_a_transaction_sees_what_others_have_committed_meanwhile(rig, monkeypatch):
    """In a transaction a query sees what others have committed meanwhile: Django asks MariaDB for READ COMMITTED.

    With the server's own default, REPEATABLE READ, it sees what was there at the transaction's first query.
    """
    make([FIRST, FIRST + 1])
    seen = []
    for place, options in enumerate(({}, {"isolation_level": "repeatable read"})):
        one = FIRST + place
        for name, value in options.items():
            monkeypatch.setitem(settings.DATABASES["default"]["OPTIONS"], name, value)
        connection.close()
        with transaction.atomic():
            assert counts([one]) == [0]
            tasks.count_members.delay(one, pages=0)
            rig.finished(COUNT, place + 1)
            seen += counts([one])
    connection.close()
    rig.same(seen, [1, 0], "the transaction sees {}")


@pytest.mark.workers
@pytest.mark.broken_by(
    r"DID NOT RAISE",
    file="tasks.py",
    old="import time\n",
    new="import time\n\nfrom allianceauth.notifications.models import Notification\n\n"
    'Notification._meta.get_field("title").get_prep_value = lambda value: value[:254]\n',
)
def test_a_long_title_raises_and_a_cut_one_does_not(rig):
    """A notification with a title of more than 254 characters raises `DataError` 1406 on MariaDB; a cut one is kept."""
    user = User.objects.create(username="Kaia_Tennen")
    with pytest.raises(DataError, match="1406, \"Data too long for column 'title'"):
        notify(user, "x" * 255)
    notify(user, "x" * 254)
    assert [len(one.title) for one in Notification.objects.all()] == [254]
