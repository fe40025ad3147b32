import datetime as dt
import html
import re
from importlib import import_module

import pytest
import requests
from allianceauth.eveonline.models import EveCharacter, EveCorporationInfo
from allianceauth.notifications import notify
from allianceauth.notifications.models import Notification
from allianceauth.services.tasks import QueueOnce
from celery import Task, current_app
from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.auth.models import User
from django.db import DataError, connection, transaction
from django.test import Client, override_settings

pytestmark = pytest.mark.web

AUDIT = "user_interface.tasks.audit_members"
AUDIT_NEW = "user_interface.tasks.audit_new_corporation"
PROMISE = "The audit has started. You will be notified of its result."
RESULT = "Audit of Perimeter Mining: 1 of 12 members are in Auth"
REASON = "An admin finds the reason in the log."
FAILURE = "Audit of corporation 98999999 failed"
ROW = re.compile(r'<tr class="table-(\w+)">\s*<td>[^<]*</td>\s*<td>(.*?)</td>', re.DOTALL)
FORM = re.compile(
    r'<form method="post" action="/user_interface/audit/\d+/">\s*'
    r'<input type="hidden" name="csrfmiddlewaretoken" value="(\w+)">\s*'
    r'<button class="btn btn-primary">Audit \w'
)
ALERT = re.compile(
    r'<div class="alert alert-([\w ]+?) alert-dismissible.*?<div class="ms-2">\s*(.*?)\s*</div>', re.DOTALL
)


class Browser:
    """A user's browser: keeps cookies, takes the CSRF token from the form, follows redirects."""

    def __init__(self, url, user=None):
        self._url = url
        self._session = requests.Session()
        if user:
            store = import_module(settings.SESSION_ENGINE).SessionStore()
            store[SESSION_KEY] = str(user.pk)
            store[BACKEND_SESSION_KEY] = settings.AUTHENTICATION_BACKENDS[0]
            store[HASH_SESSION_KEY] = user.get_session_auth_hash()
            store.create()
            self._session.cookies.set(settings.SESSION_COOKIE_NAME, store.session_key)

    def get(self, path, follow=True):
        return self._send("GET", path, None, follow)

    def post(self, path, data=None, follow=True):
        return self._send("POST", path, data, follow)

    def _send(self, method, path, data, follow):
        answer = self._session.request(method, self._url + path, data=data, allow_redirects=False, timeout=10)
        for cookie in self._session.cookies:
            # Auth's cookies are for HTTPS only, and this server speaks plain HTTP.
            cookie.secure = False
        return self.get(answer.headers["Location"]) if follow and answer.is_redirect else answer

    def click(self, corporation_id):
        """Load the app's page and press the button of a corporation."""
        page = self.get("/user_interface/").text
        found = re.search(FORM, page)
        assert found, "the app's page has no form"
        return self.post(f"/user_interface/audit/{corporation_id}/", {"csrfmiddlewaretoken": found[1]})

    def notifications(self):
        """Load Auth's page of notifications and return (level, title), the newest first."""
        return [(level, html.unescape(title)) for level, title in ROW.findall(self.get("/notifications/").text)]


def alerts(response):
    return [(level, html.unescape(text)) for level, text in ALERT.findall(response.content.decode())]


def pilot():
    """Return a user with a main character in a corporation that Auth knows."""
    user = User.objects.create(username="Kaia_Tennen")
    ids = {"corporation_id": 98000001, "corporation_name": "Perimeter Mining", "corporation_ticker": "PERI"}
    EveCorporationInfo.objects.create(**ids, member_count=12)
    user.profile.main_character = EveCharacter.objects.create(
        character_id=95000001, character_name="Kaia Tennen", **ids
    )
    user.profile.save()
    return user


@pytest.fixture(autouse=True)
def another(rig):
    """Return a user whom no test is about; there is one without a name too, and another corporation with a member."""
    User.objects.create(username="")
    EveCorporationInfo.objects.create(corporation_id=98000009, corporation_name="Others", member_count=1)
    EveCharacter.objects.create(character_id=95000009, character_name="Other", corporation_id=98000009)
    return User.objects.create(username="Another")


def timestamps(rig, kind):
    """Return when each event of a kind was told."""
    return [event["timestamp"] for event in rig.events if event["type"] == kind]


def told(user=None):
    """Return (level, title) of what Auth has told, in order; of `user`, or of all users."""
    found = Notification.objects.filter(user=user) if user else Notification.objects.all()
    return list(found.order_by("pk").values_list("level", "title"))


@pytest.mark.broken_by(r"the page shows \[\]", file="views.py", old="messages.info(request, ", new="str(")
def test_the_response_to_the_click_shows_the_message(rig):
    """The page that answers the click shows the Django message."""
    answer = Browser(rig.url, pilot()).click(98000001)
    assert answer.status_code == 200, f"answered with {answer.status_code}"
    assert alerts(answer) == [("info", PROMISE)], f"the page shows {alerts(answer)}"
    rig.finished(AUDIT)


@pytest.mark.broken_by(
    r"the notifications page shows \[\('info'", file="tasks.py", old="notify.success(user, f", new="notify.info(user, f"
)
def test_the_result_appears_as_a_success_on_the_notifications_page(rig):
    """When the task is done, Auth's notifications page shows its result as a success."""
    browser = Browser(rig.url, pilot())
    browser.click(98000001)
    rig.finished(AUDIT)
    rig.same(browser.notifications(), [("success", RESULT)], "the notifications page shows {}")
    assert re.search(r"INFO \[\S+\] Auth knows 1 of 12 members", rig.log_file("extensions.log"))


@pytest.mark.broken_by(
    r"the notifications page shows \[\]", file="tasks.py", old='notify.danger(user, f"Audit', new='str(f"Audit'
)
def test_a_failing_task_tells_the_user_too_as_danger(rig):
    """If the task fails, the message came all the same, and the notifications page shows the failure as danger."""
    browser = Browser(rig.url, pilot())
    rig.same(alerts(browser.click(98999999)), [("info", PROMISE)], "the page shows {}")
    rig.finished(AUDIT)
    rig.same(browser.notifications(), [("danger", FAILURE)], "the notifications page shows {}")
    assert Notification.objects.get().message == REASON


@pytest.mark.broken_by(
    r"ended as succeeded",
    file="tasks.py",
    old="REASON)\n        raise",
    new="REASON)\n        return",
)
def test_a_task_that_raises_again_is_a_failed_task(rig):
    """A task that tells the user and raises again counts as failed; its traceback is in the worker's log."""
    (run,) = rig.finished(AUDIT, after="demo_failing.py")
    assert run.state == "failed", f"the task ended as {run.state}"
    assert told() == [("danger", FAILURE)]
    assert "DoesNotExist: EveCorporationInfo matching query does not exist." in rig.printed(rig.workers[0])
    assert re.search(r"WARNING \[\S+\] The audit of corporation 98999999 failed", rig.log_file("extensions.log"))


@pytest.mark.broken_by(
    r"not shown once", file="views.py", old="messages.info(request, ", new='request.session.__setitem__("message", '
)
def test_the_message_is_shown_once_on_the_next_page(rig):
    """The message waits for the next page that the user loads, whichever it is, and is shown once."""
    browser = Browser(rig.url, pilot())
    page = browser.get("/user_interface/").text
    token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page)[1]
    answer = browser.post("/user_interface/audit/98000001/", {"csrfmiddlewaretoken": token}, follow=False)
    rig.same(
        [alerts(page) for page in (answer, browser.get("/notifications/"), browser.get("/notifications/"))],
        [[], [("info", PROMISE)], []],
        "not shown once, on the next page: {}",
    )
    rig.finished(AUDIT)


@pytest.mark.broken_by(r"GET .* started", file="views.py", old="@require_POST\n", new="")
@pytest.mark.broken_by(
    r"POST without a token .* started",
    file="views.py",
    old="@require_POST\n",
    new="@require_POST\n@__import__('django.views.decorators.csrf', fromlist=['x']).csrf_exempt\n",
)
def test_only_a_post_with_a_csrf_token_starts_a_task(rig):
    """With `require_POST`, a GET is refused with 405 and a POST without CSRF token with 403; neither starts a task."""
    browser = Browser(rig.url, pilot())
    path = "/user_interface/audit/98000001/"
    answer = browser.get(path, follow=False)
    assert answer.status_code == 405, f"GET answered {answer.status_code} and started {len(rig.runs(AUDIT))} tasks"
    answer = browser.post(path, follow=False)
    assert answer.status_code == 403, f"POST without a token answered {answer.status_code} and started a task"
    browser.click(98999999)
    rig.finished(AUDIT)
    assert told() == [("danger", FAILURE)], "more than the last click started a task"


@pytest.fixture
def no_broker(monkeypatch):
    """Give this process a broker that refuses connections."""
    monkeypatch.setattr(current_app.conf, "broker_url", "redis://127.0.0.1:1/0")
    current_app._after_fork()
    yield
    monkeypatch.undo()
    current_app._after_fork()


def click_in_this_process():
    """Press the button and load the next page; return the answer's status and the messages shown on that page."""
    client = Client(SERVER_NAME="127.0.0.1", raise_request_exception=False)
    client.force_login(pilot())
    status = client.post("/user_interface/audit/98000001/").status_code
    return status, alerts(client.get("/notifications/"))


@pytest.mark.broken_by(
    r"and shows \[\('info'",
    file="views.py",
    old="    audit_members.delay",
    new='    messages.info(request, "The audit has started.")\n    audit_members.delay',
)
def test_a_start_that_fails_promises_nothing(rig, no_broker):
    """If the task can't be sent, a view that makes the message after the start answers 500 and no message comes."""
    status, shown = click_in_this_process()
    assert (status, shown) == (500, []), f"answers {status} and shows {shown}"


@pytest.mark.broken_by(r"and shows \[\]", file="views.py", old=".delay_on_commit(", new=".delay(")
def test_with_a_transaction_around_the_view_the_message_comes_although_the_start_fails(rig, no_broker, monkeypatch):
    """With `ATOMIC_REQUESTS`, which Auth does not set, the start fails after the view, and the message comes."""
    assert connection.settings_dict["ATOMIC_REQUESTS"] is False
    monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", True)
    status, shown = click_in_this_process()
    assert (status, shown) == (500, [("info", PROMISE)]), f"answers {status} and shows {shown}"


@pytest.mark.broken_by(
    r"the stranger got 200",
    file="auth_hooks.py",
    old='@hooks.register("url_hook")\ndef register_urls():\n'
    '    return UrlHook(urls, "user_interface", r"^user_interface/")',
    new="from django.conf import settings\n\nsettings.APPS_WITH_PUBLIC_VIEWS = ['user_interface']\n\n"
    '@hooks.register("url_hook")\ndef register_urls():\n'
    '    return UrlHook(urls, "user_interface", r"^user_interface/", ["user_interface.views.index"])',
)
def test_auth_asks_for_a_login_and_a_main_character(rig):
    """Auth lets only a logged-in user with a main character into views that are registered with `UrlHook`."""
    without_main = Browser(rig.url, User.objects.create(username="Tomo_Ryn"))
    for path in ("/user_interface/", "/user_interface/audit/98000001/"):
        stranger = Browser(rig.url).get(path, follow=False)
        where = stranger.headers.get("Location", "")
        assert where.startswith("/account/login/"), f"the stranger got {stranger.status_code} {where}"
        answer = without_main.get(path, follow=False)
        where = answer.headers.get("Location", "")
        assert where.startswith("/dashboard/"), f"a user without main got {answer.status_code} {where}"
    told = [("danger error", "A main character is required to perform that action. Add one below.")] * 2
    rig.same(alerts(without_main.get("/notifications/")), told, "a user without main is shown {}")


@pytest.mark.broken_by(
    r"the end of 2 x",
    file="views.py",
    old="    audit_members.delay",
    new='    if request.session.get("audited"):\n        return redirect("user_interface:index")\n'
    '    request.session["audited"] = True\n    audit_members.delay',
)
def test_two_clicks_start_two_tasks_and_two_notifications(rig):
    """Two clicks start two tasks, and the user is notified twice."""
    user = pilot()
    browser = Browser(rig.url, user)
    browser.click(98000001)
    browser.click(98000001)
    rig.finished(AUDIT, 2, timeout=4)
    assert told(user) == [("success", RESULT)] * 2, f"told {told(user)}"


@pytest.mark.broken_by(
    r"the rows are \[\('danger', 'The fleet has ended'\), \('info'",
    file="demo_levels.py",
    old="notify.info(",
    new="notify.warning = notify.info\nnotify.info(",
)
def test_the_four_levels_are_the_four_colours_of_bootstrap(rig):
    """`notify.info`, `.success`, `.warning` and `.danger` give a row of the notifications page its Bootstrap colour."""
    user = rig.demo("demo_levels.py")["user"]
    rig.same(
        Browser(rig.url, user).notifications(),
        [
            ("danger", "The fleet has ended"),
            ("warning", "A pilot has no token"),
            ("success", "Every pilot is in Auth"),
            ("info", "The fleet was counted"),
        ],
        "the rows are {}",
    )


@pytest.mark.broken_by(
    r"printed .*error becomes error",
    file="demo_unknown_level.py",
    old="user, _",
    new="Notification.Level = [*Notification.Level, 'error']\nuser, _",
)
def test_an_unknown_level_becomes_info_without_a_word(rig, another):
    """A level that Auth does not know, such as "error", becomes "info" without an error."""
    notify(another, "A danger")
    rig.prints("demo_unknown_level.py", "danger becomes danger\nerror becomes info\n")


@pytest.mark.broken_by(
    r"HTML of",
    file="auth_hooks.py",
    old="from . import urls",
    new="from allianceauth.notifications.models import Notification\nfrom django.utils.safestring import mark_safe\n\n"
    "from . import urls\n\nfor name in ('title', 'message'):\n"
    "    Notification._meta.get_field(name).from_db_value = lambda value, *_: mark_safe(value)",
)
def test_the_list_shows_titles_and_the_own_page_the_message_as_plain_text(rig):
    """The list shows titles, a notification's own page its message with line breaks; HTML in both is plain text."""
    user = rig.demo("demo_text.py")["user"]
    browser = Browser(rig.url, user)
    listed = browser.get("/notifications/").text
    (notification,) = Notification.objects.filter(user=user)
    assert notification.level == "info"
    page = browser.get(f"/notifications/{notification.pk}/").text
    for name, text in {"the list": listed, "the page": page}.items():
        assert not re.search("<b>ships|<i>Kestrel", text), f"HTML of the notification is HTML of {name}"
    title = "Pilots & <b>ships</b>"
    assert f"<td>{html.escape(title)}</td>" in listed
    assert "Rifter" not in listed
    assert html.escape(title) in page
    rig.same(
        html.unescape(re.search(r"<pre>(.*?)</pre>", page, re.DOTALL)[1]),
        "Kaia: Rifter\nTomo: <i>Kestrel</i>",
        "read as {!r}",
    )


@pytest.mark.broken_by(
    r"the message is '-'",
    file="tasks.py",
    old="REASON =",
    new="from allianceauth.notifications.managers import NotificationManager as Manager\n\n"
    "notify_user = Manager.notify_user\n"
    "Manager.notify_user = lambda self, user, title, message='', level='': notify_user(\n"
    "    self, user, title, message or '-', level\n)\nREASON =",
)
def test_a_notification_without_a_message_repeats_its_title(rig):
    """A notification without a message has its title as its message."""
    rig.prints("demo.py", f"{PROMISE}\n")
    rig.finished(AUDIT)
    (notification,) = Notification.objects.all()
    assert notification.title == RESULT, f"the title is {notification.title!r}"
    assert notification.message == notification.title, f"the message is {notification.message!r}"


@pytest.mark.broken_by(
    r"asks every 60 s",
    file="auth_hooks.py",
    old="from . import urls",
    new="from django.conf import settings\n\nfrom . import urls\n\nsettings.NOTIFICATIONS_REFRESH_TIME = 60",
)
def test_every_page_asks_for_unread_notifications_every_30_seconds(rig):
    """Each page of Auth has a script that asks for the number of unread notifications every 30 seconds.

    It asks while the tab has the focus, and makes the bell red where there is one.
    """
    browser = Browser(rig.url, pilot())
    for path in ("/dashboard/", "/notifications/", "/user_interface/"):
        page = browser.get(path).text
        seconds, asked = re.search(r'refreshTime: "(\d+)",\s*userNotificationsCountViewUrl: "(.*?)"', page).groups()
        assert (seconds, asked) == ("30", "/user_notifications_count/"), f"{path} asks every {seconds} s"
        script = browser.get(re.search(r'src="(\S+/refresh-notification-icon\.js)', page)[1]).text
    does = "".join(re.sub("//.*", "", script).split())
    assert "setInterval(updateNotificationIcon,notificationRefreshTime*1000)" in does
    assert "elementNotificationIcon.toggleClass('text-danger',data.unread_count>0)" in does
    assert ".focus(()=>{activateIconUpdate();}).blur(function(){deactivateIconUpdate();})" in does


@pytest.mark.broken_by(
    r"1 unread, not 2",
    file="tasks.py",
    old='notify.danger(user, f"Audit of corporation {corporation_id} failed", REASON)',
    new="__import__('allianceauth').notifications.models.Notification.objects.bulk_create(\n"
    "            [__import__('allianceauth').notifications.models.Notification(user=user, title='', message='')]\n"
    "        )",
)
def test_the_number_of_unread_notifications_is_fresh_as_soon_as_the_task_has_notified(rig):
    """What a page gets when it asks counts the notification that a worker has sent just now."""
    browser = Browser(rig.url, User.objects.create(username="Kaia_Tennen"))

    def unread():
        return browser.get("/user_notifications_count/").json()["unread_count"]

    assert unread() == 0
    for count in (1, 2):
        rig.finished(AUDIT, count, after="demo_failing.py")
        assert unread() == count, f"{unread()} unread, not {count}"


@pytest.mark.broken_by(
    r"2 unread, says the cache",
    file="demo_bulk.py",
    old='print(Notification.objects.user_unread_count(user.pk), "unread, says',
    new="Notification.objects.invalidate_user_notification_cache(user.pk)\n"
    'print(Notification.objects.user_unread_count(user.pk), "unread, says',
)
def test_bulk_create_leaves_the_number_of_unread_notifications_old(rig, another):
    """The number of unread notifications, which Auth caches for a day, misses those made with `bulk_create`.

    A 0 is not kept, and the cache can be told to forget the number.
    """
    notify(another, "Audit 1")
    said = "1 unread\n1 unread, says the cache\n2 unread, says the database\n"
    user = rig.prints("demo_bulk.py", said)["user"]
    assert told(user) == [("info", "Audit 1"), ("info", "Audit 2")]
    left = rig.redis.ttl(f":1:USER_NOTIFICATION_COUNT_{user.pk}")
    assert 86_000 < left <= 86_400, f"the number is kept for {left} s"
    Notification.objects.invalidate_user_notification_cache(user.pk)
    assert Notification.objects.user_unread_count(user.pk) == 2
    other = User.objects.create(username="Not_Yet_Notified")
    assert Notification.objects.user_unread_count(other.pk) == 0
    Notification.objects.bulk_create([Notification(user=other, title="Audit 1", message="Done")])
    assert Notification.objects.user_unread_count(other.pk) == 1


@pytest.mark.broken_by(
    r"printed '52 kept",
    file="demo_many.py",
    old="user = ",
    new="__import__('django').conf.settings.NOTIFICATIONS_MAX_PER_USER = 60\nuser = ",
)
def test_the_fifty_first_notification_deletes_the_oldest_unread_or_not(rig, another):
    """Auth keeps 50 notifications of a user: one more deletes the oldest, also if it is the only unread one."""
    notify(another, "Audit 0")
    user = rig.prints("demo_many.py", "50 kept, from Audit 2 to Audit 51\n")["user"]
    Notification.objects.filter(user=user).exclude(title="Audit 2").update(viewed=True)
    notify.info(user, "Audit 52")
    rig.same(told(user), [("info", f"Audit {number}") for number in range(3, 53)], "kept {}")


@pytest.mark.broken_by(
    r"printed '50 kept",
    file="demo_many.py",
    old="user = ",
    new="Notification.objects._max_notifications_per_user = lambda: 50\nuser = ",
)
def test_a_setting_changes_how_many_are_kept_and_zero_breaks_every_notification(rig):
    """`NOTIFICATIONS_MAX_PER_USER` says how many notifications are kept; with 0 each new one raises ValueError."""
    with override_settings(NOTIFICATIONS_MAX_PER_USER=3):
        user = rig.prints("demo_many.py", "3 kept, from Audit 49 to Audit 51\n")["user"]
    with override_settings(NOTIFICATIONS_MAX_PER_USER=0):
        for other in (user, User.objects.create(username="Not_Yet_Notified")):
            with pytest.raises(ValueError, match="Negative indexing"):
                notify(other, "Audit 52")


@pytest.mark.broken_by(
    r"printed '254 char|DID NOT RAISE",
    file="demo_long_title.py",
    old="user, _",
    new='Notification._meta.get_field("title").get_prep_value = lambda value: value[:254]\nuser, _',
)
def test_auth_does_not_cut_a_long_title(rig, another):
    """Auth hands a title to the database uncut, although the column is declared for 254 characters.

    SQLite takes it, MariaDB raises `DataError`.
    """
    notify(another, "Audit 1")
    if connection.vendor == "sqlite":
        rig.prints("demo_long_title.py", "300 characters in a column for 254\n")
    else:
        with pytest.raises(DataError, match="Data too long for column 'title'"):
            rig.demo("demo_long_title.py")


@pytest.mark.workers
@pytest.mark.broken_by(
    r"printed ''",
    file="demo_user_object.py",
    old=".delay(98000001, user)",
    new='.apply_async((98000001, user), serializer="pickle")',
)
def test_a_user_object_cannot_be_sent_only_its_key(rig):
    """A user object cannot be an argument of a task: `.delay()` raises EncodeError, and nothing is sent."""
    rig.prints("demo_user_object.py", "Object of type User is not JSON serializable\n")
    assert rig.settle() == []


@pytest.mark.broken_by(
    r"ended as failed IntegrityError",
    file="tasks.py",
    old="    user = User.objects.get(pk=user_pk)\n    try:",
    new="    user = User.objects.filter(pk=user_pk).first()\n    try:",
)
def test_a_user_who_is_gone_stops_the_task_before_its_work(rig):
    """If the user is gone when the task starts, looking the user up first ends the task before its work."""
    (run,) = rig.finished(AUDIT, after="demo_user_gone.py")
    assert run.exception == "DoesNotExist('User matching query does not exist.')", (
        f"ended as {run.state} {run.exception}"
    )
    assert rig.log_file("extensions.log") == ""
    assert told() == []


@pytest.mark.broken_by(
    r"told \[\('danger', .*\('danger', ", file="tasks.py", old="def on_failure(", new="def on_retry("
)
def test_on_failure_tells_the_user_once_after_the_last_retry(rig):
    """A task that retries twice and tells the user in `on_failure` tells once, after the last attempt has failed."""
    (run,) = rig.finished(AUDIT_NEW, after="demo_retrying.py")
    assert told() == [("danger", "Audit of your new corporation failed")], f"told {told()}"
    assert run.exception == "DoesNotExist('EveCorporationInfo matching query does not exist.')"
    retried = rig.wait(lambda: len(at := timestamps(rig, "task-retried")) == 2 and at, "word of two retries")
    notification = Notification.objects.get()
    assert notification.message == REASON
    assert notification.timestamp.timestamp() > max(timestamps(rig, "task-received"))
    received = [event for event in rig.events if event["type"] == "task-received"]
    # A retry is due a second after the attempt before it, whose end is told a little later.
    due = [dt.datetime.fromisoformat(event["eta"]).timestamp() for event in received if event.get("eta")]
    assert all(at <= end + 1 for at, end in zip(due, retried, strict=True)), f"due at {due}, retried at {retried}"


@pytest.mark.broken_by(r"sent before the commit", file="demo_transaction.py", old=".delay_on_commit(", new=".delay(")
def test_delay_on_commit_sends_the_task_when_the_transaction_is_committed(rig):
    """`delay_on_commit` sends the task when the transaction is committed, so the task finds the row."""
    user = User.objects.create(username="Kaia_Tennen")
    with transaction.atomic():
        assert rig.savepoints("demo_transaction.py") == ["SAVEPOINT", "RELEASE SAVEPOINT"]
        rig.same(rig.runs(AUDIT_NEW), [], "sent before the commit: {}")
    (run,) = rig.finished(AUDIT_NEW)
    assert told(user) == [("success", "Amarr Haulers has 7 members")], f"{run.state} with {run.exception or 'success'}"
    assert re.search(r"INFO \[\S+\] Amarr Haulers has 7 members", rig.log_file("extensions.log"))


@pytest.mark.broken_by(
    r"the task's answer did not happen", file="demo_too_early.py", old=".delay(", new=".delay_on_commit("
)
def test_delay_inside_a_transaction_fails_on_the_row_that_is_not_there_yet(rig):
    """A worker faster than the commit does not find the row if `.delay()` is called inside the transaction."""
    user = User.objects.create(username="Kaia_Tennen")
    with transaction.atomic():
        assert rig.savepoints("demo_too_early.py") == ["SAVEPOINT", "RELEASE SAVEPOINT"]
        rig.wait(lambda: rig.log_file("extensions.log"), "the task's answer", timeout=4)
    rig.finished(AUDIT)
    assert EveCorporationInfo.objects.filter(corporation_id=98000003).exists()
    assert told(user) == [("danger", "Audit of corporation 98000003 failed")]


@pytest.mark.broken_by(
    r"has no attribute 'delay_on_commit'",
    file="tasks.py",
    old="from celery.contrib.django.task import DjangoTask",
    new="from celery import Task as DjangoTask",
)
def test_a_base_class_keeps_delay_on_commit_only_if_it_is_a_django_task(rig):
    """A base class made from DjangoTask has `delay_on_commit`; one made from Task, as Auth's QueueOnce, has not."""
    from user_interface.tasks import audit_members

    assert not hasattr(Task, "delay_on_commit")
    assert not hasattr(QueueOnce, "delay_on_commit")
    assert audit_members.delay_on_commit
    (run,) = rig.finished(AUDIT_NEW, after="demo_transaction.py")
    assert run.state == "succeeded"


@pytest.mark.broken_by(
    r"printed .*1 notifications", file="demo_rolled_back.py", old="with transaction.atomic():", new="if True:"
)
def test_a_notification_inside_a_failing_transaction_is_rolled_back(rig, another):
    """A notification that is sent inside a transaction is gone when the task raises through it."""
    notify(another, "Audit 1")
    rig.prints("demo_rolled_back.py", "EveCorporationInfo matching query does not exist.\n0 notifications\n")


@pytest.mark.workers({"paused": True}, {"paused": True, "pool": "prefork"}, {"paused": True})
@pytest.mark.broken_by(
    r"the message's deletion did not happen",
    file="tasks.py",
    old="@shared_task\ndef",
    new="@shared_task(acks_late=True)\ndef",
)
def test_a_killed_worker_takes_the_notification_with_it(rig):
    """The message leaves Redis while the task runs; if its worker is killed then, no notification ever comes.

    Nobody runs the task again, be the pool of threads or of processes.
    """
    from user_interface.tasks import audit_members

    user = pilot()
    *killed, last = range(len(rig.workers))
    with rig.hold(AUDIT):
        for worker in killed:
            audit_members.delay(98000001, user.pk)
            rig.resume(worker)
            rig.started(AUDIT, worker + 1)
            rig.wait(lambda: not rig.redis.hlen("unacked"), "the message's deletion", timeout=4)
            rig.kill(rig.workers[worker])
    rig.resume(last)
    audit_members.delay(98999999, user.pk)
    rig.finished(AUDIT)
    assert (rig.waiting(), rig.redis.hlen("unacked")) == ({}, 0)
    assert told(user) == [("danger", FAILURE)], f"told {told(user)}"
    runs = [(run.worker, run.state) for run in rig.runs(AUDIT)]
    assert runs == [(f"worker_{worker:02d}", "started") for worker in killed] + [(f"worker_{last:02d}", "failed")]


@pytest.mark.workers
@pytest.mark.broken_by(
    r"the page shows \[\]",
    file="views.py",
    old="audit_members.delay_on_commit(corporation_id, request.user.pk)",
    new="audit_members.delay(corporation_id, request.user.pk).get(timeout=1)",
)
def test_the_message_does_not_wait_for_a_worker(rig):
    """The message comes also while no worker runs; the task waits in Redis, and there is no notification yet."""
    user = pilot()
    rig.same(alerts(Browser(rig.url, user).click(98000001)), [("info", PROMISE)], "the page shows {}")
    rig.same(rig.waiting(), {"celery\x06\x165": 1}, "the task waits in {}")
    assert told(user) == []
