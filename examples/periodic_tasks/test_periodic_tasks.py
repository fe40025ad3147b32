"""Entries of CELERYBEAT_SCHEDULE: who sends them, when, and what the database does with them."""

import ast
import datetime as dt
import json
import re
import time
import zoneinfo
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from allianceauth.crontab.models import CronOffset
from allianceauth.crontab.schedulers import OffsetDatabaseScheduler
from allianceauth.eveonline.models import EveCharacter
from allianceauth.notifications.models import Notification
from allianceauth.services.tasks import QueueOnce
from celery import current_app
from celery.schedules import crontab
from django.contrib.auth.models import User
from django.test import Client
from django_celery_beat.models import PeriodicTask, PeriodicTasks
from django_celery_beat.schedulers import ModelEntry

NAME = "periodic_tasks_remind_users_without_main"
REMIND = "periodic_tasks.tasks.remind_users_without_main"
MARKET = "periodic_tasks_update_market_orders"
UPDATE_MARKET = "periodic_tasks.tasks.update_market_orders"
TITLE = "Please choose a main character"
WITHOUT_MAIN = ["Tomo_Ryn", "Jita_Local"]
SECOND = dt.timedelta(seconds=1)
MINUTE = dt.timedelta(minutes=1)
HOUR = dt.timedelta(hours=1)
TWO_DAYS = dt.timedelta(days=2)
TOKYO = zoneinfo.ZoneInfo("Asia/Tokyo")
# With a start time in the past, and no run yet, beat sends an entry as soon as it starts.
AT_ONCE = {"start_time": dt.datetime(2020, 1, 1, tzinfo=dt.UTC)}
CHAPTERS = Path(__file__).parents[1]
FIELDS = ("minute", "hour", "day_of_month", "month_of_year", "day_of_week")
# Auth's own entries as beat stores them where the installation's offset is a quarter of an hour.
AUTHS_OWN = {
    "esi_cleanup_callbackredirect": ("esi.tasks.cleanup_callbackredirect", "0", "*/4"),
    "esi_cleanup_token": ("esi.tasks.cleanup_token_subset", "15", "*"),
    "run_model_update": ("allianceauth.eveonline.tasks.run_model_update", "15", "0,6,12,18"),
    "check_all_character_ownership": (
        "allianceauth.authentication.tasks.check_all_character_ownership",
        "15",
        "0,4,8,12,16,20",
    ),
    "analytics_daily_stats": ("allianceauth.analytics.tasks.analytics_daily_stats", "0", "2"),
    "admin_status_tasks": ("allianceauth.admin_status.tasks.run_admin_status_tasks", "15", "*"),
}
# Celery's own beat knows nothing of a database.
NO_ROWS = {"beat_scheduler": "celery.beat:PersistentScheduler"}


def scheduler(methods):
    """Return the arguments of a break that gives beat a scheduler with other `methods` than Auth's."""
    return {
        "file": "tasks.py",
        "old": "logger = ",
        "new": "from allianceauth.crontab.schedulers import OffsetDatabaseScheduler\n\n\n"
        f"class Other(OffsetDatabaseScheduler):\n{methods}\n\n\nlogger = ",
        "conf": {"beat_scheduler": "periodic_tasks.tasks:Other"},
    }


def now():
    return dt.datetime.now(dt.UTC)


def hourly():
    """Return a crontab that comes up every hour, but not in this half of it."""
    return crontab(minute=(now().minute + 30) % 60)


def daily(hours_from_now):
    """Return a crontab for one hour of the day, in this half of which it does not come up."""
    return crontab(hour=(now() + hours_from_now * HOUR).hour, minute=(now().minute + 30) % 60)


def titled(name, schedule=None):
    """Return the entry of the settings, hourly or at other times, with a title that tells its runs."""
    return current_app.conf.beat_schedule[NAME] | {"schedule": schedule or hourly(), "kwargs": {"title": name}}


def title(kwargs):
    return ast.literal_eval(kwargs or "{}").get("title")


def titles(runs):
    return [title(run.kwargs) for run in runs]


def all_sent(rig, last):
    """Wait for the run that beat sends last and return the titles of all."""
    rig.wait(lambda: last in titles(rig.runs()), f"a run with the title {last}")
    # In the order of the receipts: threads that begin side by side may tell of it in another.
    return titles(sorted(rig.settle(), key=lambda run: run.received))


def known_to_beat(name, entry, **columns):
    """Write the row that an earlier beat left: due long ago, if `columns` don't say otherwise."""
    ModelEntry.from_entry(name, app=current_app, **entry)
    PeriodicTask.objects.filter(name=name).update(**{"last_run_at": now() - TWO_DAYS, **columns})


def all_known_to_beat(entries, **columns):
    """Write the rows of several entries, as `known_to_beat` does."""
    for name, entry in entries.items():
        known_to_beat(name, entry, **columns)


def never_run(name, entry, changed):
    """Write the row of an entry that has never run and was last saved at `changed`."""
    known_to_beat(name, entry, last_run_at=None, date_changed=changed)


def row(name=NAME):
    return PeriodicTask.objects.filter(name=name).first()


def runs_of_a_day(schedule):
    """Return the times at which `schedule` is due on a day of UTC."""
    midnight = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    at = midnight - MINUTE
    found = []
    while True:
        start, wait, _ = schedule.remaining_delta(at)
        at = (start + wait).astimezone(dt.UTC)
        if at >= midnight + dt.timedelta(days=1):
            return [f"{at:%H:%M}" for at in found]
        found.append(at)


def messages(rig):
    """Return what waits in the broker: the list's name and the message's headers."""
    return [(key, json.loads(raw)["headers"]) for key in rig.waiting() for raw in rig.redis.lrange(key, 0, -1)]


@pytest.fixture
def beat(rig):
    """Start beat on the given entries and no others: Alliance Auth's own are none of a claim's business.

    Their rows can be there as those of entries that are `known` to beat and due.
    """
    before = current_app.conf.beat_schedule
    started = []

    def start(entries, *, known=False):
        if known:
            all_known_to_beat(entries)
        current_app.conf.beat_schedule = entries
        started.append(rig.start_beat())
        return started[-1]

    yield start
    current_app.conf.beat_schedule = before
    for process in started:
        rig.kill(process)


def people():
    """Make two users without a main character, one with, and one without who may not log in."""
    pilot = User.objects.create(username="Kaia_Tennen")
    ids = {"character_id": 95000001, "character_name": "Kaia Tennen"}
    corporation = {"corporation_id": 98000001, "corporation_name": "Perimeter Mining", "corporation_ticker": "PERI"}
    pilot.profile.main_character = EveCharacter.objects.create(**ids, **corporation)
    pilot.profile.save()
    User.objects.create(username="Gone", is_active=False)
    for name in WITHOUT_MAIN:
        User.objects.create(username=name)


def told():
    return [(told.user.username, told.level, told.title) for told in Notification.objects.order_by("pk")]


@pytest.mark.broken_by("missing 1 required", file="tasks.py", old='title="Please choose a main character"', new="title")
def test_the_task_can_be_started_by_hand(rig):
    """The task of an entry is a normal task, which you can start by hand."""
    people()
    (run,) = rig.finished(REMIND, after="demo.py")
    assert run.state == "succeeded"
    assert told() == [(name, "warning", TITLE) for name in WITHOUT_MAIN], f"told {told()}"
    assert re.search(r"INFO \[periodic_tasks.tasks:\d+\] Reminded 2 users", rig.log_file("extensions.log"))


@pytest.mark.broken_by("ended", file="local.py", old="tasks.remind_users", new="task.remind_users")
def test_beat_sends_the_entry_when_it_is_due_and_a_worker_runs_it(rig, beat):
    """Beat sends the entry of `local.py` when it is due and not before, and a worker runs the task."""
    people()
    early = {"early": titled("early")}
    known_to_beat("early", early["early"], last_run_at=now())
    entry = current_app.conf.beat_schedule[NAME] | {"schedule": hourly()}
    known_to_beat(NAME, entry)
    beat(early | {NAME: entry})
    rig.finished()
    (run,) = rig.settle()
    assert (run.name, run.state) == (REMIND, "succeeded"), f"{run.name} ended as {run.state}"
    assert told() == [(name, "warning", TITLE) for name in WITHOUT_MAIN], f"told {told()}"


@pytest.mark.broken_by(r"due at \['02:15'\]", conf={"timezone": "Asia/Tokyo"})
def test_the_first_entry_is_due_every_day_at_a_quarter_past_eleven(rig):
    """The first entry of `local.py` is due once a day, at 11:15 UTC."""
    known_to_beat(NAME, current_app.conf.beat_schedule[NAME])
    rig.same(runs_of_a_day(row().schedule), ["11:15"], "due at {}")


@pytest.mark.broken_by(
    r"sent: .*'first'",
    **scheduler(
        "    def update_from_dict(self, mapping):\n"
        "        super().update_from_dict({name: mapping[name] for name in mapping if name not in self.schedule})"
    ),
)
def test_an_entry_may_have_any_name_but_one_name_is_one_entry(rig, beat):
    """An entry may have any name; a second entry with the same name takes the place of the first."""
    name = "Any name: with spaces, Ünïcode, 100 %"
    known_to_beat(name, titled("first"))
    beat({name: titled("second"), "rest": titled("rest") | AT_ONCE})
    rig.same(all_sent(rig, "rest"), ["second", "rest"], "sent: {}")


@pytest.mark.broken_by(
    "ended as {'path': 'failed', 'name': 'succeeded'",
    file="tasks.py",
    old="@shared_task\ndef remind",
    new='@shared_task(name="remind_users_without_main")\ndef remind',
)
def test_the_task_of_an_entry_is_its_full_path_and_no_part_of_it(rig, beat):
    """An entry's task is found by its full path; its name alone, or with a part of the path, is no task."""
    tasks = {"path": REMIND, "name": REMIND.rpartition(".")[2], "part": REMIND.partition(".")[2]}
    beat({name: titled(name) | {"task": task} for name, task in tasks.items()}, known=True)
    for task in tasks.values():
        rig.finished(task)
    rig.same(
        {name: run.state for name, task in tasks.items() for run in rig.runs(task)},
        {"path": "succeeded", "name": "failed", "part": "failed"},
        "ended as {}",
    )


@pytest.mark.broken_by(
    "sent:",
    **scheduler(
        "    def enabled_models_qs(self):\n        return super().enabled_models_qs().exclude(interval=None)\n\n"
        "    def update_from_dict(self, mapping):\n        pass"
    ),
)
def test_a_schedule_is_a_crontab_or_a_timedelta(rig, beat):
    """An entry's schedule may be a crontab or a timedelta: both are stored, and sent when they are due."""
    beat({"crontab": titled("crontab"), "timedelta": titled("timedelta", HOUR)}, known=True)
    rig.same(all_sent(rig, "timedelta"), ["crontab", "timedelta"], "sent: {}")
    assert (row("crontab").crontab.hour, row("crontab").interval) == ("*", None)
    assert (row("timedelta").crontab, row("timedelta").schedule.run_every) == (None, HOUR)


@pytest.mark.broken_by(
    "told",
    **scheduler(
        "    def update_from_dict(self, mapping):\n"
        "        super().update_from_dict({name: {**entry, 'kwargs': {}} for name, entry in mapping.items()})"
    ),
)
def test_the_task_gets_the_kwargs_of_its_entry(rig, beat):
    """The task gets the `kwargs` of its entry as its arguments."""
    people()
    beat({NAME: titled("From the settings")}, known=True)
    rig.finished()
    assert told() == [(name, "warning", "From the settings") for name in WITHOUT_MAIN], f"told {told()}"


@pytest.mark.broken_by("the row of the last entry", conf=NO_ROWS)
def test_the_entry_becomes_a_row_in_the_database_when_beat_starts(rig, beat):
    """Beat writes each entry into the database when it starts; the admin lists it under "Periodic tasks"."""
    names = [NAME, MARKET]
    assert not PeriodicTask.objects.filter(name__in=names).exists()
    beat({name: current_app.conf.beat_schedule[name] for name in names})
    rig.wait(lambda: row(MARKET), "the row of the last entry", timeout=30)
    rig.same(
        [(row(name).task, row(name).crontab.hour, row(name).crontab.minute, row(name).kwargs) for name in names],
        [(REMIND, "11", "15", "{}"), (UPDATE_MARKET, "*", "20,50", '{"region": "The Forge"}')],
        "the rows say {}",
    )
    client = Client(SERVER_NAME="127.0.0.1")
    client.force_login(User.objects.create_superuser("Admin"))
    listed = client.get("/admin/django_celery_beat/periodictask/").content.decode()
    assert ">Periodic tasks</a>" in client.get("/admin/").content.decode()
    assert all(name in listed for name in names), "the admin does not list both"


@pytest.mark.broken_by("a new time of the last run", conf=NO_ROWS)
def test_the_row_counts_what_beat_sends_while_the_log_says_nothing(rig, beat):
    """The row counts the runs and keeps the time of the last; beat's log does not name what it sends."""
    began = now()
    process = beat({NAME: titled("told")}, known=True)
    rig.wait(lambda: row().last_run_at > began, "a new time of the last run in the row", timeout=30)
    assert row().total_run_count == 1, f"the row counts {row().total_run_count}"
    log = rig.printed(process)
    assert "celery beat" in log
    assert NAME not in log
    assert REMIND not in log


@pytest.mark.broken_by("the rows count {'first': 1, 'later': 1}", **scheduler("    sync_every = 0"))
def test_the_row_is_up_to_three_minutes_late_until_beat_stops(rig, beat):
    """Beat writes its first run at once, later ones every three minutes, and the rest when it is stopped."""
    entries = {name: titled(name) for name in ("first", "later")}
    process = beat(entries, known=True)
    assert all_sent(rig, "later") == ["first", "later"]
    rig.wait(lambda: row("first").total_run_count == 1, "a count in the first row")
    rig.same({name: row(name).total_run_count for name in entries}, {"first": 1, "later": 0}, "the rows count {}")
    assert OffsetDatabaseScheduler.sync_every == 180
    rig.stop(process)
    assert row("later").total_run_count == 1


@pytest.mark.broken_by("the row of the entry", conf=NO_ROWS)
def test_an_entry_taken_out_of_the_settings_stays_in_the_database_and_is_still_sent(rig, beat):
    """An entry that is renamed in the settings, or taken out, stays in the database; beat goes on sending it."""
    process = beat({NAME: titled("as before"), "gone": titled("gone")})
    rig.wait(lambda: row("gone"), "the row of the entry", timeout=30)
    rig.kill(process)
    PeriodicTask.objects.filter(name__in=[NAME, "gone"]).update(last_run_at=now() - TWO_DAYS)
    beat({"renamed": titled("renamed"), "rest": titled("rest") | AT_ONCE})
    rig.same(all_sent(rig, "rest"), ["as before", "gone", "rest"], "sent: {}")
    assert row().enabled, "the row was disabled"


@pytest.mark.broken_by("sent:", file="demo_forget.py", old=".delete()", new=".update(total_run_count=0)")
def test_deleting_the_row_ends_an_entry_that_is_not_in_the_settings(rig, beat):
    """An entry that is no longer in the settings ends when its row is deleted."""
    rest = {"rest": titled("rest")}
    known_to_beat(NAME, titled("gone"))
    known_to_beat("rest", rest["rest"])
    rig.demo("demo_forget.py")
    beat(rest)
    rig.same(all_sent(rig, "rest"), ["rest"], "sent: {}")


@pytest.mark.broken_by("the row of the entry", conf=NO_ROWS)
def test_deleting_only_the_row_brings_it_back_when_beat_starts(rig, beat):
    """The row of an entry that is still in the settings is written again when beat starts."""
    entries = {NAME: titled("back")}
    known_to_beat(NAME, entries[NAME])
    rig.demo("demo_forget.py")
    assert row() is None
    beat(entries)
    rig.wait(row, "the row of the entry", timeout=30)


@pytest.mark.broken_by(
    "sent: (.*Edited| None)",
    **scheduler(
        "    def update_from_dict(self, mapping):\n"
        "        super().update_from_dict({name: mapping[name] for name in mapping if name not in self.schedule})"
    ),
)
def test_the_settings_win_over_an_edit_in_the_admin_when_beat_starts(rig, beat):
    """When beat starts it writes task, schedule and arguments of the settings over what was edited in the admin."""
    entries = {NAME: titled("settings")}
    # Beat looks at rows with one hour of the day only when that is near.
    edited = {"schedule": crontab(day_of_month="*/2"), "kwargs": {"title": "Edited"}, "task": "edited"}
    known_to_beat(NAME, entries[NAME] | edited)
    beat(entries)
    (run,) = rig.finished()
    assert (run.name, title(run.kwargs)) == (REMIND, "settings"), f"sent: {run.name} {run.kwargs}"
    rig.same(
        (row().task, row().crontab.day_of_month, row().kwargs),
        (REMIND, "*", '{"title": "settings"}'),
        "the row says {}",
    )


@pytest.mark.broken_by("sent:", file="local.py", old="minute=15),", new='minute=15),\n    "enabled": True,')
def test_an_entry_disabled_in_the_admin_stays_disabled_when_beat_starts(rig, beat):
    """An entry that is disabled in the admin stays disabled when beat starts again."""
    entries = {NAME: titled("disabled"), "rest": titled("rest")}
    known_to_beat(NAME, entries[NAME], enabled=False)
    known_to_beat("rest", entries["rest"])
    beat(entries)
    rig.same(all_sent(rig, "rest"), ["rest"], "sent: {}")
    assert not row().enabled


@pytest.fixture
def server_in_tokyo(monkeypatch):
    """Set the time zone of the machine, as far as the processes started from here on can see."""
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def celery_in_tokyo(monkeypatch):
    """Set CELERY_TIMEZONE for this process and those started from here on."""
    monkeypatch.setattr(current_app.conf, "timezone", "Asia/Tokyo")
    # Celery keeps what it once made of the setting.
    vars(current_app._get_current_object()).pop("timezone", None)
    yield
    vars(current_app._get_current_object()).pop("timezone", None)


def sent_by_the_clock_of(rig, beat):
    """Let beat send entries for a minute ago by the clocks of UTC and of Tokyo and return which it sent."""
    utc = now().replace(second=0, microsecond=0) - MINUTE
    clocks = {"Tokyo": utc.astimezone(TOKYO), "UTC": utc}
    entries = {
        f"{zone} {app}": titled(zone, crontab(hour=clock.hour, minute=clock.minute))
        for app in ("of one app", "of another")
        for zone, clock in clocks.items()
    }
    all_known_to_beat(entries, last_run_at=utc - MINUTE)
    rest = {"rest": titled("rest")}
    known_to_beat("rest", rest["rest"])
    beat(entries | rest)
    return all_sent(rig, "rest")


@pytest.mark.broken_by("sent:", conf={"timezone": "Asia/Tokyo"})
def test_an_hour_in_a_crontab_is_an_hour_of_utc(rig, beat, server_in_tokyo):
    """An hour in a crontab is an hour of UTC, which is EVE time, whatever the time zone of the server."""
    assert time.tzname[0] == "JST"
    rig.same(sent_by_the_clock_of(rig, beat), ["UTC", "UTC", "rest"], "sent: {}")


@pytest.mark.workers
@pytest.mark.broken_by(r"printed", conf={"timezone": "America/New_York"})
def test_where_clocks_change_for_the_summer_a_run_keeps_its_hour_of_utc(rig):
    """Where clocks change for the summer, the hour of UTC of a run stays, and its hour of the clock there moves."""
    rig.prints(
        "demo_next_runs.py",
        "Sun 08 Mar 00:15 UTC, 19:15 in New York\nSun 08 Mar 12:15 UTC, 08:15 in New York\n"
        "Mon 09 Mar 00:15 UTC, 20:15 in New York\nMon 09 Mar 12:15 UTC, 08:15 in New York\n",
    )


@pytest.mark.broken_by(
    "sent:",
    file="local.py",
    old="from celery.schedules import crontab\n",
    new="from celery.schedules import crontab\n\ncrontab.tz = __import__('datetime').UTC\n",
)
def test_the_setting_celery_timezone_moves_the_hours_of_every_entry(rig, beat, celery_in_tokyo):
    """`CELERY_TIMEZONE` moves the hours of all entries of an installation, whichever app they are of."""
    rig.same(sent_by_the_clock_of(rig, beat), ["Tokyo", "Tokyo", "rest"], "sent: {}")


@pytest.mark.broken_by("ended as succeeded", file="tasks.py", old="def remind_users_", new="def remind_user_")
def test_a_misspelled_task_is_sent_and_the_worker_throws_it_away(rig, beat):
    """Beat sends a task that does not exist and counts it as a run; the worker logs an error and throws it away."""
    entry = titled("misspelled") | {"task": "periodic_tasks.tasks.remind_user_without_main"}
    known_to_beat(NAME, entry)
    beat({NAME: entry})
    (run,) = rig.finished()
    assert run.state == "failed", f"the misspelled task ended as {run.state}"
    assert "NotRegistered" in run.exception
    assert "Received unregistered task" in rig.printed(rig.workers[0])
    assert len(rig.settle()) == 1
    rig.wait(lambda: row().total_run_count == 1, "a count in the row")


@pytest.mark.broken_by("sent:", conf={"beat_schedule": {NAME: {"task": REMIND, **AT_ONCE}}})
def test_an_entry_of_the_settings_that_has_never_run_counts_from_the_start_of_beat(rig, beat):
    """An entry of the settings that has never run is not due when beat starts, however long beat has known it.

    A crontab waits for its next time, an interval counts from the start of beat.
    """
    schedules = {"crontab": hourly(), "interval": HOUR}
    known = {name: titled(name, schedule) for name, schedule in schedules.items()} | {"soon": titled("soon", SECOND)}
    for name, entry in known.items():
        never_run(name, entry, now() - TWO_DAYS)
    unknown = {f"new {name}": titled(f"new {name}", schedule) for name, schedule in schedules.items()}
    started = time.time()
    beat({**known, **unknown, "rest": titled("rest") | AT_ONCE})

    def first_sent():
        events = [event for event in rig.events if event["type"] == "task-sent"]
        return {title(event["kwargs"]): event["timestamp"] for event in reversed(events)}

    # Beat tells of a sending when the message may have been received already.
    sent = rig.wait(lambda: (found := first_sent()).keys() >= {"rest", "soon"} and found, "a run of both")
    assert sent.keys() == {"rest", "soon"}, f"sent: {sent}"
    assert sent["soon"] > started + 1
    for name in ("crontab", "new crontab"):
        due, wait = ModelEntry(row(name)).is_due()
        assert (due, (now() + wait * SECOND).minute) == (False, row(name).schedule.minute.copy().pop())


@pytest.mark.broken_by(
    r"sent: \['rest'\]",
    **scheduler(
        "    def enabled_models_qs(self):\n        return super().enabled_models_qs().exclude(last_run_at=None)"
    ),
)
def test_a_row_that_the_settings_do_not_hold_counts_from_its_last_change_until_it_has_run(rig, beat):
    """A row that is not in the settings and has never run is due when its time has come since it was last saved.

    Beat sends it as soon as it starts, a crontab as well as an interval. One saved just now is not due yet.
    """
    for kind, schedule in {"crontab": hourly(), "interval": HOUR}.items():
        never_run(f"new {kind}", titled(f"new {kind}", schedule), now())
        never_run(f"old {kind}", titled(f"old {kind}", schedule), now() - TWO_DAYS)
    known_to_beat("rest", titled("rest"))
    beat({})
    rig.same(all_sent(rig, "rest"), ["old crontab", "old interval", "rest"], "sent: {}")


@pytest.mark.broken_by(
    "sent:",
    **scheduler("    def _get_crontab_exclude_query(self):\n        return __import__('django').db.models.Q(pk=0)"),
)
def test_a_row_with_a_single_hour_that_the_settings_do_not_hold_waits_until_that_hour_is_near(rig, beat):
    """A row that is not in the settings, with a single hour other than 4, is sent in the hours around it only."""
    # The hour of Celery's own cleaning up, at whose rows beat looks all day.
    known_to_beat("4", titled("4", crontab(hour=4, minute=(now().minute + 30) % 60)))
    far = 12 if daily(12).hour != {4} else 11
    for hours in (far, 1, -1):
        name = f"{hours} hours away"
        known_to_beat(name, titled(name, daily(hours)))
        never_run(f"{name}, never run", titled(f"{name}, never run", daily(hours)), now() - TWO_DAYS)
    known_to_beat("rest", titled("rest"))
    beat({})
    near = ["1 hours away", "1 hours away, never run", "-1 hours away", "-1 hours away, never run"]
    rig.same(all_sent(rig, "rest"), ["4", *near, "rest"], "sent: {}")


@pytest.mark.broken_by(r"sent .*'interval': 1", conf={"beat_cron_starting_deadline": 60})
def test_beat_makes_up_for_missed_runs_with_a_single_one(rig, beat):
    """When beat was down over several times of an entry of the settings, it sends the entry once when it is back."""
    missed = {"hourly": hourly(), "daily": daily(12), "interval": HOUR}
    entries = {name: titled(name, schedule) for name, schedule in missed.items()} | {"rest": titled("rest", SECOND)}
    beat(entries, known=True)
    # The second one is sent a second later: time enough for more of the others.
    rig.wait(lambda: titles(rig.runs()).count("rest") == 2, "two runs of the rest")
    rig.same({name: titles(rig.runs()).count(name) for name in missed}, dict.fromkeys(missed, 1), "sent {}")


@pytest.mark.broken_by(
    "the start of 2", file="tasks.py", old="@shared_task\ndef remind", new="@shared_task(base=QueueOnce)\ndef remind"
)
def test_a_run_that_takes_longer_than_its_interval_overlaps_with_the_next(rig, beat):
    """Beat does not wait for the last run: one that takes longer than the interval overlaps with the next."""
    entries = {NAME: titled("long", SECOND)}
    with rig.hold(REMIND):
        process = beat(entries, known=True)
        first, second = rig.started(REMIND, 2, timeout=30)[:2]
        assert first.ended is None
        assert second.ended is None
        rig.kill(process)
    rig.settle()


@pytest.mark.broken_by("started while", file="tasks.py", old="@shared_task(base=QueueOnce)", new="@shared_task")
def test_a_queue_once_task_is_not_sent_again_while_its_last_run_lasts(rig, beat):
    """A task with AA's QueueOnce is not sent again while its last run lasts; beat sends it when that has ended."""
    entries = {MARKET: current_app.conf.beat_schedule[MARKET] | {"schedule": SECOND}, "rest": titled("rest", SECOND)}
    with rig.hold(UPDATE_MARKET):
        beat(entries, known=True)
        rig.finished(REMIND, 2)
        runs = rig.runs(UPDATE_MARKET)
        assert len(runs) == 1, f"{len(runs) - 1} more started while the first run lasted"
        assert runs[0].ended is None
    rig.finished(UPDATE_MARKET, 2)
    assert re.search(
        r"INFO \[periodic_tasks.tasks:\d+\] Updating market orders of The Forge", rig.log_file("extensions.log")
    )


@pytest.mark.workers({"paused": True})
@pytest.mark.broken_by(
    "'Domain'}\": 'succeeded'",
    file="tasks.py",
    old="@shared_task(base=QueueOnce)",
    new="from celery.worker.request import Request\n\n\nclass Patient(Request):\n    def maybe_expire(self):\n"
    "        return False\n\n\n@shared_task(base=QueueOnce, Request=Patient)",
)
def test_a_worker_throws_away_what_has_expired(rig, beat):
    """What waits in Redis longer than its `expire_seconds` is thrown away by the worker; what has not expired runs."""
    market = current_app.conf.beat_schedule[MARKET]
    late = {"kwargs": {"region": "Domain"}, "options": market["options"] | {"expire_seconds": 1}}
    process = beat(
        {"late": market | late | {"schedule": hourly()}, MARKET: market | {"schedule": hourly()}}, known=True
    )
    rig.wait(lambda: len(messages(rig)) == 2, "two messages")
    rig.kill(process)
    expires = {headers["periodic_task_name"]: headers["expires"] for _, headers in messages(rig)}
    rig.wait(lambda: now() > dt.datetime.fromisoformat(expires["late"]), "the end of the second")
    rig.resume()
    rig.same(
        {run.kwargs: run.state for run in rig.finished(UPDATE_MARKET, 2)},
        {"{'region': 'Domain'}": "revoked", "{'region': 'The Forge'}": "succeeded"},
        "ended as {}",
    )


@pytest.mark.workers
@pytest.mark.broken_by("not dropped", conf=NO_ROWS)
def test_of_the_options_priority_and_expire_seconds_count_and_expires_does_not(rig, beat):
    """An entry's options `priority` and `expire_seconds` reach the message, `expires` and `countdown` don't."""
    market = current_app.conf.beat_schedule[MARKET] | {"schedule": SECOND}
    others = {"kwargs": {"region": "Domain"}, "options": {"expires": 1800, "countdown": 60}}
    began = now()
    process = beat({MARKET: market, "others": market | others}, known=True)
    found = rig.wait(lambda: len(both := by_kwargs(rig)) == 2 and both, "two messages")
    key, headers = found["{'region': 'Domain'}"]
    assert (key, headers["expires"], headers["eta"]) == ("celery\x06\x165", None, None), "not dropped"
    key, headers = found["{'region': 'The Forge'}"]
    assert key == "celery\x06\x167", f"not sent with priority 7: {key!r}"
    sent = dt.datetime.fromisoformat(headers["expires"]) - 1800 * SECOND
    assert began <= sent <= now(), "it does not expire after half an hour"
    assert not re.search("expires|countdown", rig.printed(process))


def by_kwargs(rig):
    return {headers["kwargsrepr"]: (key, headers) for key, headers in messages(rig)}


@pytest.mark.workers
@pytest.mark.broken_by(
    "not sent by both",
    **scheduler(
        "    def apply_entry(self, entry, producer=None):\n"
        "        from django.core.cache import cache\n\n"
        '        if "tick" in entry.name or cache.add(entry.name, 1):\n'
        "            super().apply_entry(entry, producer)"
    ),
)
def test_two_beats_send_every_entry_twice_but_for_queue_once(rig, beat):
    """Two beats send each entry of an installation twice, Auth's own too; only a QueueOnce task's is sent once."""
    current_app.loader.import_default_modules()
    all_hourly = {"schedule": hourly(), "apply_offset": False}
    entries = {name: entry | all_hourly for name, entry in current_app.conf.beat_schedule.items()}
    entries["tick"] = titled("tick", SECOND)
    for name, entry in entries.items():
        fields = {key: value for key, value in entry.items() if key != "apply_offset"}
        known_to_beat(name, fields, last_run_at=now())
    beats = {f"gen{beat(entries).pid}", f"gen{beat(entries).pid}"}

    def sent():
        """Return by whom each entry was sent."""
        found = defaultdict(list)
        for _, headers in messages(rig):
            found[headers["periodic_task_name"]].append(headers["origin"].partition("@")[0])
        return found

    def two_more_ticks():
        before = Counter(sent()["tick"])
        rig.wait(lambda: all((Counter(sent()["tick"]) - before)[one] >= 2 for one in beats), "two more ticks of both")

    # From a beat's first run on it keeps the times of its runs for itself for three minutes.
    rig.wait(lambda: set(sent()["tick"]) == beats, "a tick of both beats", timeout=6)
    # What the second wrote when it started, the first one reads with its next tick; not together with what follows.
    two_more_ticks()
    PeriodicTask.objects.filter(name__in=entries).update(last_run_at=now() - TWO_DAYS)
    PeriodicTasks.update_changed()
    two_more_ticks()
    found = sent()
    del entries["tick"]
    once = {name for name in entries if isinstance(current_app.tasks[entries[name]["task"]], QueueOnce)}
    assert {MARKET, "run_model_update"} <= once
    for name in entries:
        if name in once:
            assert len(found[name]) == 1, f"{name} was sent by {found[name]}"
        else:
            assert sorted(found[name]) == sorted(beats), f"{name} was not sent by both beats, once each: {found[name]}"


@pytest.mark.workers
@pytest.mark.broken_by(r"Auth's entries are {}", conf={"beat_schedule": {}})
def test_auth_itself_has_six_entries_and_the_offset_shifts_four_of_them(rig):
    """Auth itself has six entries, at minute 0: two every hour, two every four, one every six, one at two o'clock.

    `apply_offset` shifts four of them.
    """
    own = {
        name: dict(entry)
        for name, entry in current_app.conf.beat_schedule.items()
        if not (CHAPTERS / entry["task"].partition(".")[0]).is_dir()
    }
    CronOffset.objects.update_or_create(defaults=dict.fromkeys(FIELDS, 0.0) | {"minute": 0.25})
    OffsetDatabaseScheduler(app=current_app, lazy=True).update_from_dict(own)
    rows = PeriodicTask.objects.select_related("crontab").filter(name__in=own)
    rig.same(
        {row.name: (row.task, row.crontab.minute, row.crontab.hour) for row in rows}, AUTHS_OWN, "Auth's entries are {}"
    )
    days = {(row.crontab.day_of_month, row.crontab.month_of_year, row.crontab.day_of_week) for row in rows}
    assert days == {("*", "*", "*")}
    assert current_app.conf.beat_scheduler == "allianceauth.crontab.schedulers.OffsetDatabaseScheduler"


@pytest.mark.workers
@pytest.mark.broken_by(
    r"printed '1 runs a day",
    file="demo_minutes.py",
    old="from celery.schedules import crontab\n",
    new="import functools\n\nfrom celery import schedules\n\n"
    "crontab = functools.partial(schedules.crontab, minute=0)\n",
)
def test_a_crontab_with_an_hour_and_no_minute_runs_sixty_times(rig):
    """A crontab runs every minute; with an hour and no minute, in every minute of that hour: sixty times a day."""
    shown = rig.prints("demo_minutes.py", "60 runs a day without a minute, 1 with one\n")
    due = {}
    for name, schedule in {
        "every": shown["crontab"](),
        "careless": shown["careless"],
        "careful": shown["careful"],
    }.items():
        known_to_beat(name, titled(name, schedule))
        due[name] = runs_of_a_day(row(name).schedule)
    assert len(due["careless"]) == 60, f"runs a day: {len(due['careless'])}"
    assert due["careless"] == [f"11:{minute:02d}" for minute in range(60)]
    assert due["careful"] == ["11:15"]
    assert len(due["every"]) == 24 * 60
