"""Entries of CELERYBEAT_SCHEDULE: who sends them, when, and what the database does with them."""

import datetime as dt
import json
import zoneinfo

import pytest
from allianceauth.notifications.models import Notification
from celery import current_app
from celery.schedules import crontab
from django.contrib import admin
from django.contrib.auth.models import User
from django_celery_beat.models import CrontabSchedule, PeriodicTask
from django_celery_beat.schedulers import ModelEntry

NAME = "periodic_tasks_remind_users_without_main"
REMIND = "periodic_tasks.tasks.remind_users_without_main"
MARKET = "periodic_tasks_update_market_orders"
SECOND = dt.timedelta(seconds=1)
TWO_DAYS = dt.timedelta(days=2)
# With a start time in the past, and no run yet, beat sends an entry as soon as it starts.
AT_ONCE = {"start_time": dt.datetime(2020, 1, 1, tzinfo=dt.UTC)}


def now():
    return dt.datetime.now(dt.UTC)


def titled(name):
    """Return the entry of the settings, hourly but not in this half of the hour, with a title that tells its runs."""
    hourly = crontab(minute=(now().minute + 30) % 60)
    return current_app.conf.beat_schedule[NAME] | {"schedule": hourly, "kwargs": {"title": name}}


def titles(runs):
    return [run.kwargs for run in runs]


def title(name):
    return repr({"title": name})


def all_sent(lab, last):
    """Wait for the run that beat sends last and return the titles of all."""
    lab.wait(lambda: title(last) in titles(lab.runs()), f"a run with the title {last}")
    return titles(lab.settle())


def known_to_beat(name, entry, **columns):
    """Write the row that an earlier beat left: due long ago, if `columns` don't say otherwise."""
    ModelEntry.from_entry(name, app=current_app, **entry)
    PeriodicTask.objects.filter(name=name).update(**{"last_run_at": now() - TWO_DAYS, **columns})


def row(name=NAME):
    return PeriodicTask.objects.filter(name=name).first()


def times(task):
    return task.crontab.hour, task.crontab.minute


def messages(lab):
    """Return what waits in the broker: the list's name and the message's headers."""
    return [(key, json.loads(raw)["headers"]) for key in lab.waiting() for raw in lab.redis.lrange(key, 0, -1)]


@pytest.fixture
def beat(lab):
    """Start beat on the given entries and no others: Alliance Auth's own are none of a claim's business."""
    before = current_app.conf.beat_schedule
    started = []

    def start(entries):
        current_app.conf.beat_schedule = entries
        started.append(lab.start_beat())
        return started[-1]

    yield start
    current_app.conf.beat_schedule = before
    for process in started:
        lab.kill(process)


@pytest.mark.broken_by("the end of 1", file="demo.py", old=".delay()", new="()")
def test_the_task_can_be_started_by_hand(lab):
    """The task of an entry is a normal task, which you can start by hand."""
    lab.demo()
    (run,) = lab.finished(REMIND, timeout=4)
    assert run.state == "succeeded"


@pytest.mark.broken_by("ended", file="local.py", old="tasks.remind_users", new="task.remind_users")
@pytest.mark.broken_by("notified", file="tasks.py", old="profile__main_character=None", new="profile=None")
def test_beat_sends_the_entry_when_it_is_due_and_a_worker_runs_it(lab, beat):
    """Beat sends the entry of `local.py` when it is due, and a worker runs the task."""
    user = User.objects.create(username="without_main")
    entry = current_app.conf.beat_schedule[NAME]
    known_to_beat(NAME, entry)
    beat({NAME: entry})
    (run,) = lab.finished()
    assert (run.name, run.state) == (REMIND, "succeeded"), f"{run.name} ended as {run.state}"
    assert Notification.objects.filter(user=user).count() == 1, "the user was not notified once"
    assert "Reminded 1 users" in lab.log_file("extensions.log")


@pytest.mark.broken_by("the row says", file="local.py", old="minute=15", new="minute=45")
def test_the_entry_becomes_a_row_in_the_database_when_beat_starts(lab, beat):
    """Beat writes the entry into the database when it starts, as a `PeriodicTask` that the admin site can show."""
    assert row() is None
    beat({NAME: current_app.conf.beat_schedule[NAME]})
    made = lab.wait(row, "the row of the entry")
    assert (made.task, *times(made)) == (REMIND, "11", "15"), f"the row says {made.task}, {times(made)}"
    assert admin.site.is_registered(PeriodicTask)


@pytest.mark.broken_by(
    "the row counts", file="local.py", old="minute=15),", new='minute=15),\n    "total_run_count": 5,'
)
def test_the_row_counts_what_beat_sends_while_the_log_says_nothing(lab, beat):
    """The row counts the runs and keeps the time of the last; beat's log does not name what it sends."""
    began = now()
    entry = current_app.conf.beat_schedule[NAME]
    known_to_beat(NAME, entry)
    process = beat({NAME: entry})
    lab.wait(lambda: row().last_run_at > began, "a new time of the last run in the row")
    assert row().total_run_count == 1, f"the row counts {row().total_run_count}"
    assert REMIND not in lab.printed(process)


@pytest.mark.broken_by("the row of the entry", conf={"beat_scheduler": "celery.beat:PersistentScheduler"})
def test_an_entry_taken_out_of_the_settings_stays_in_the_database_and_is_still_sent(lab, beat):
    """An entry that is taken out of the settings stays in the database, and beat goes on sending it."""
    entry = titled("as before")
    process = beat({NAME: entry})
    lab.wait(row, "the row of the entry", timeout=4)
    lab.kill(process)
    PeriodicTask.objects.filter(name=NAME).update(last_run_at=now() - TWO_DAYS)
    beat({})
    (run,) = lab.finished()
    assert titles([run]) == [title("as before")]
    assert row().enabled, "the row was disabled"


@pytest.mark.broken_by("sent:", file="demo_forget.py", old="remind_users", new="remind_all_users")
def test_deleting_the_row_ends_an_entry_that_is_not_in_the_settings(lab, beat):
    """An entry that is no longer in the settings ends when its row is deleted."""
    rest = {"rest": titled("rest")}
    known_to_beat(NAME, titled("gone"))
    known_to_beat("rest", rest["rest"])
    lab.demo("demo_forget.py")
    beat(rest)
    sent = all_sent(lab, "rest")
    assert sent == [title("rest")], f"sent: {sent}"


@pytest.mark.broken_by("the row says", file="local.py", old="hour=11", new="hour=12")
def test_the_settings_win_over_an_edit_in_the_admin_when_beat_starts(lab, beat):
    """When beat starts it writes task, schedule and arguments of the settings over what was edited in the admin."""
    entry = current_app.conf.beat_schedule[NAME]
    edited = {"schedule": crontab(hour=5, minute=0), "kwargs": {"title": "Edited"}, "task": "edited"}
    known_to_beat(NAME, entry | edited)
    beat({NAME: entry})
    (run,) = lab.finished()
    assert (run.name, run.kwargs) == (REMIND, "{}")
    assert times(row()) == ("11", "15"), f"the row says {times(row())}"


@pytest.mark.broken_by("sent:", file="local.py", old="minute=15),", new='minute=15),\n    "enabled": True,')
def test_an_entry_disabled_in_the_admin_stays_disabled_when_beat_starts(lab, beat):
    """An entry that is disabled in the admin stays disabled when beat starts again."""
    entries = {NAME: titled("disabled"), "rest": titled("rest")}
    known_to_beat(NAME, entries[NAME], enabled=False)
    known_to_beat("rest", entries["rest"])
    beat(entries)
    sent = all_sent(lab, "rest")
    assert sent == [title("rest")], f"sent: {sent}"
    assert not row().enabled


@pytest.mark.broken_by("sent:", conf={"timezone": "Asia/Tokyo"})
def test_an_hour_in_a_crontab_is_an_hour_of_utc(lab, beat):
    """An hour in a crontab is an hour of UTC, which is EVE time."""
    a_minute = dt.timedelta(minutes=1)
    utc = now().replace(second=0, microsecond=0) - a_minute
    clocks = {"Asia/Tokyo": utc.astimezone(zoneinfo.ZoneInfo("Asia/Tokyo")), "UTC": utc}
    entries = {
        zone: titled(zone) | {"schedule": crontab(hour=clock.hour, minute=clock.minute)}
        for zone, clock in clocks.items()
    }
    for zone, entry in entries.items():
        known_to_beat(zone, entry, last_run_at=utc - a_minute)
    rest = {"rest": titled("rest")}
    known_to_beat("rest", rest["rest"])
    beat(entries | rest)
    sent = sorted(all_sent(lab, "rest"))
    assert sent == [title("UTC"), title("rest")], f"sent: {sent}"
    assert str(row("UTC").crontab.timezone) == "UTC"


@pytest.mark.broken_by("ended as succeeded", file="tasks.py", old="def remind_users_", new="def remind_user_")
def test_a_misspelled_task_is_sent_and_the_worker_throws_it_away(lab, beat):
    """Beat sends a task that does not exist and counts it as a run; the worker logs an error and throws it away."""
    entry = current_app.conf.beat_schedule[NAME] | {"task": "periodic_tasks.tasks.remind_user_without_main"}
    known_to_beat(NAME, entry)
    beat({NAME: entry})
    (run,) = lab.finished()
    assert run.state == "failed", f"the misspelled task ended as {run.state}"
    assert "NotRegistered" in run.exception
    assert "Received unregistered task" in lab.printed(lab.workers[0])
    assert len(lab.settle()) == 1
    lab.wait(lambda: row().total_run_count == 1, "a count in the row")


@pytest.mark.broken_by("sent:", conf={"beat_schedule": {NAME: {"task": REMIND, **AT_ONCE}}})
def test_an_entry_that_has_never_run_is_not_due_when_beat_starts(lab, beat):
    """An entry that has never run is not due when beat starts, however long ago beat first saw it."""
    entries = {"crontab": titled("crontab"), "interval": titled("interval") | {"schedule": dt.timedelta(hours=1)}}
    for name, entry in entries.items():
        known_to_beat(name, entry, last_run_at=None, date_changed=now() - TWO_DAYS)
    beat({**entries, "new": titled("new"), "rest": titled("rest") | AT_ONCE})
    sent = all_sent(lab, "rest")
    assert sent == [title("rest")], f"sent: {sent}"


@pytest.mark.broken_by("sent 0 times", conf={"beat_cron_starting_deadline": 60})
def test_beat_makes_up_for_missed_runs_with_a_single_one(lab, beat):
    """When beat was down over several of an entry's times it sends the entry once when it is back."""
    entries = {NAME: titled("missed"), "rest": titled("rest") | {"schedule": SECOND}}
    known_to_beat(NAME, entries[NAME])
    known_to_beat("rest", entries["rest"])
    beat(entries)
    # The second one is sent a second later: time enough for more of the first.
    lab.wait(lambda: titles(lab.runs()).count(title("rest")) == 2, "two runs of the rest")
    count = titles(lab.runs()).count(title("missed"))
    assert count == 1, f"sent {count} times"


@pytest.mark.workers
@pytest.mark.broken_by(
    "both beats", file="tasks.py", old="@shared_task\ndef remind", new="@shared_task(base=QueueOnce)\ndef remind"
)
def test_two_beats_send_every_entry_twice(lab, beat):
    """Two beats send every entry twice."""
    entries = {NAME: titled("twice") | {"schedule": SECOND}}
    known_to_beat(NAME, entries[NAME], last_run_at=now())
    beats = {f"gen{beat(entries).pid}", f"gen{beat(entries).pid}"}

    def senders():
        return {headers["origin"].partition("@")[0] for _, headers in messages(lab)}

    lab.wait(lambda: senders() == beats, "a message of both beats", timeout=6)


@pytest.mark.workers
@pytest.mark.broken_by("expires", file="local.py", old='"expire_seconds"', new='"expires"')
@pytest.mark.broken_by("priority", file="local.py", old='"priority": 7', new='"priority": 3')
def test_of_the_options_priority_and_expire_seconds_count_and_expires_does_not(lab, beat):
    """An entry's `kwargs` reach the message, and so do the options `priority` and `expire_seconds`, not `expires`."""
    entry = current_app.conf.beat_schedule[MARKET]
    others = {"kwargs": {"region": "Domain"}, "options": {"expires": 1800, "countdown": 60}}
    entries = {MARKET: entry, "others": entry | others}
    for name, fields in entries.items():
        known_to_beat(name, fields)
    beat(entries)
    lab.wait(lambda: len(messages(lab)) == 2, "two messages")
    found = {headers["periodic_task_name"]: (key, headers) for key, headers in messages(lab)}
    key, headers = found[MARKET]
    assert key == "celery\x06\x167", f"not sent with priority 7: {key!r}"
    assert headers["expires"], "the message never expires"
    assert headers["kwargsrepr"] == "{'region': 'The Forge'}"
    key, headers = found["others"]
    assert (key, headers["expires"], headers["eta"]) == ("celery\x06\x165", None, None)


def runs_a_day(schedule):
    """Return how often `schedule` is due between two midnights."""
    at = midnight = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    count = 0
    while True:
        start, wait, _ = schedule.remaining_delta(at)
        at = start + wait
        if at > midnight + dt.timedelta(days=1):
            return count
        count += 1


@pytest.mark.workers
@pytest.mark.broken_by("runs a day", file="demo_minutes.py", old="crontab(hour=11)", new="crontab(hour=11, minute=0)")
def test_a_crontab_with_an_hour_and_no_minute_runs_sixty_times(lab):
    """A crontab with an hour and no minute runs in every minute of that hour: sixty times a day."""
    shown = lab.demo("demo_minutes.py")
    stored = [CrontabSchedule.from_schedule(shown[name]) for name in ("careless", "careful")]
    counts = [runs_a_day(schedule.schedule) for schedule in stored]
    assert counts == [60, 1], f"runs a day: {counts}"


def overlap(first, second):
    return first.ended is None or first.ended > second.started


@pytest.mark.broken_by(
    "one after the other",
    file="tasks.py",
    old="@shared_task\ndef update_structures(",
    new="@shared_task(base=QueueOnce)\ndef update_structures(",
)
def test_a_run_that_takes_longer_than_its_interval_overlaps_with_the_next(lab, beat):
    """Beat does not wait for the last run: one that takes longer than the interval overlaps with the next."""
    name = "periodic_tasks.tasks.update_structures"
    entries = {"structures": {"task": name, "schedule": SECOND}}
    known_to_beat("structures", entries["structures"])
    beat(entries)
    first, second = lab.started(name, 2)
    assert overlap(first, second), "the runs came one after the other"


@pytest.mark.fresh
@pytest.mark.broken_by("overlapped", file="tasks.py", old="@shared_task(base=QueueOnce)", new="@shared_task")
def test_a_queue_once_task_is_not_sent_again_while_its_last_run_lasts(lab, beat):
    """A task with AA's QueueOnce is not sent again while its last run lasts; beat tries again an interval later."""
    entries = {MARKET: current_app.conf.beat_schedule[MARKET] | {"schedule": SECOND}}
    known_to_beat(MARKET, entries[MARKET])
    beat(entries)
    first, second = lab.started("periodic_tasks.tasks.update_market_orders", 2)
    assert not overlap(first, second), "the runs overlapped"
