import html
import re
from importlib import import_module

import pytest
import requests
from allianceauth.eveonline.models import EveCharacter, EveCorporationInfo
from allianceauth.notifications import notify
from allianceauth.notifications.models import Notification
from allianceauth.services.tasks import QueueOnce
from celery import current_app
from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.auth.models import User
from django.db import transaction
from django.test import Client, override_settings

pytestmark = pytest.mark.web

AUDIT = "user_interface.tasks.audit_members"
AUDIT_NEW = "user_interface.tasks.audit_new_corporation"
PROMISE = "The audit has started. You will be notified of its result."
RESULT = "Audit of Perimeter Mining: 1 of 12 members are in Auth"
FAILURE = "Audit of corporation 98999999 failed"
ROW = re.compile(r'<tr class="table-(\w+)">\s*<td>[^<]*</td>\s*<td>(.*?)</td>', re.DOTALL)
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
        found = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page)
        assert found, "the app's page has no form"
        return self.post(f"/user_interface/audit/{corporation_id}/", {"csrfmiddlewaretoken": found[1]})

    def notifications(self):
        """Load Auth's page of notifications and return (level, title), the newest first."""
        return [(level, html.unescape(title)) for level, title in ROW.findall(self.get("/notifications/").text)]


def alerts(response):
    return [(level, html.unescape(text)) for level, text in ALERT.findall(response.text)]


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


def told(user=None):
    """Return (level, title) of what Auth has told, in order; of `user`, or of all users."""
    found = Notification.objects.filter(user=user) if user else Notification.objects.all()
    return list(found.order_by("pk").values_list("level", "title"))


@pytest.mark.broken_by(r"the page shows \[\]", file="views.py", old="messages.info(request, ", new="str(")
@pytest.mark.broken_by(r"answered with 500", file="views.py", old="request.user.pk", new="request.user")
def test_the_response_to_the_click_shows_the_message(lab):
    """The page that answers the click shows the Django message."""
    answer = Browser(lab.url, pilot()).click(98000001)
    assert answer.status_code == 200, f"answered with {answer.status_code}"
    assert alerts(answer) == [("info", PROMISE)], f"the page shows {alerts(answer)}"
    lab.finished(AUDIT)


@pytest.mark.broken_by(
    r"the notifications page shows \[\('info'",
    file="tasks.py",
    old='notify.success(user, f"Audit',
    new='notify.info(user, f"Audit',
)
@pytest.mark.broken_by(
    r"the notifications page shows \[\]",
    file="views.py",
    old="corporation_id, request.user.pk",
    new="corporation_id, 0",
)
def test_the_result_appears_as_a_success_on_the_notifications_page(lab):
    """When the task is done, Auth's notifications page shows its result as a success."""
    browser = Browser(lab.url, pilot())
    browser.click(98000001)
    lab.finished(AUDIT)
    shown = browser.notifications()
    assert shown == [("success", RESULT)], f"the notifications page shows {shown}"


@pytest.mark.broken_by(
    r"the notifications page shows \[\]", file="tasks.py", old='notify.danger(user, f"Audit', new='str(f"Audit'
)
@pytest.mark.broken_by(r"the page shows \[\]", file="views.py", old="messages.info(request, ", new="str(")
def test_a_failing_task_tells_the_user_too_as_danger(lab):
    """If the task fails, the message came all the same, and the notifications page shows the failure as danger."""
    browser = Browser(lab.url, pilot())
    answer = browser.click(98999999)
    assert alerts(answer) == [("info", PROMISE)], f"the page shows {alerts(answer)}"
    lab.finished(AUDIT)
    shown = browser.notifications()
    assert shown == [("danger", FAILURE)], f"the notifications page shows {shown}"


@pytest.mark.broken_by(
    r"ended as succeeded",
    file="tasks.py",
    old="REASON)\n        raise",
    new="REASON)\n        return",
)
def test_a_task_that_raises_again_is_a_failed_task(lab):
    """A task that tells the user and raises again counts as failed; its traceback is in the worker's log."""
    lab.demo("demo_failing.py")
    (run,) = lab.finished(AUDIT)
    assert run.state == "failed", f"the task ended as {run.state}"
    assert told() == [("danger", FAILURE)]
    assert "DoesNotExist: EveCorporationInfo matching query does not exist." in lab.printed(lab.workers[0])


@pytest.mark.broken_by(
    r"shown again", file="views.py", old='return redirect("user_interface:index")', new="return index(request)"
)
def test_the_message_is_shown_once_on_the_next_page(lab):
    """The message waits for the next page that the user loads, whichever it is, and is shown once."""
    browser = Browser(lab.url, pilot())
    page = browser.get("/user_interface/").text
    token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page)[1]
    form = {"csrfmiddlewaretoken": token}
    answer = browser.post("/user_interface/audit/98000001/", form, follow=False)
    shown = [alerts(page) for page in (answer, browser.get("/notifications/"), browser.get("/notifications/"))]
    assert shown == [[], [("info", PROMISE)], []], f"not shown once, or shown again: {shown}"
    lab.finished(AUDIT)


@pytest.mark.broken_by(r"GET .* started", file="views.py", old="@require_POST\n", new="")
@pytest.mark.broken_by(
    r"POST without a token .* started",
    file="views.py",
    old="@require_POST\n",
    new="@require_POST\n@__import__('django.views.decorators.csrf', fromlist=['x']).csrf_exempt\n",
)
def test_only_a_post_with_a_csrf_token_starts_a_task(lab):
    """With `require_POST`, a GET is refused with 405 and a POST without CSRF token with 403; neither starts a task."""
    browser = Browser(lab.url, pilot())
    path = "/user_interface/audit/98000001/"
    answer = browser.get(path, follow=False)
    assert answer.status_code == 405, f"GET answered {answer.status_code} and started {len(lab.runs(AUDIT))} tasks"
    answer = browser.post(path, follow=False)
    assert answer.status_code == 403, f"POST without a token answered {answer.status_code} and started a task"
    browser.click(98999999)
    lab.finished(AUDIT)
    assert told() == [("danger", FAILURE)], "more than the last click started a task"


@pytest.mark.broken_by(
    r"the next page shows \[\('info'",
    file="views.py",
    old="    audit_members.delay",
    new='    messages.info(request, "The audit has started.")\n    audit_members.delay',
)
def test_a_start_that_fails_promises_nothing(lab, monkeypatch):
    """If the task can't be sent, a view that makes the message after the start answers 500 and no message comes."""
    client = Client(SERVER_NAME="127.0.0.1", raise_request_exception=False)
    client.force_login(pilot())
    monkeypatch.setenv("CELERY_BROKER_WRITE_URL", "redis://127.0.0.1:1/0")
    current_app._after_fork()
    try:
        answer = client.post("/user_interface/audit/98000001/")
    finally:
        monkeypatch.undo()
        current_app._after_fork()
    assert answer.status_code == 500, f"answered with {answer.status_code}"
    shown = ALERT.findall(client.get("/notifications/").content.decode())
    assert shown == [], f"the next page shows {shown}"
    assert lab.settle() == []


@pytest.mark.broken_by(
    r"the stranger got 200",
    file="auth_hooks.py",
    old='@hooks.register("url_hook")\ndef register_urls():\n'
    '    return UrlHook(urls, "user_interface", r"^user_interface/")',
    new="from django.conf import settings\n\nsettings.APPS_WITH_PUBLIC_VIEWS = ['user_interface']\n\n"
    '@hooks.register("url_hook")\ndef register_urls():\n'
    '    return UrlHook(urls, "user_interface", r"^user_interface/", ["user_interface.views.index"])',
)
def test_auth_asks_for_a_login_and_a_main_character(lab):
    """Auth lets only a logged-in user with a main character into views that are registered with `UrlHook`."""
    stranger = Browser(lab.url).get("/user_interface/", follow=False)
    where = stranger.headers.get("Location", "")
    assert where.startswith("/account/login/"), f"the stranger got {stranger.status_code} {where}"
    without_main = Browser(lab.url, User.objects.create(username="Tomo_Ryn"))
    answer = without_main.get("/user_interface/", follow=False)
    assert answer.headers.get("Location", "").startswith("/dashboard/"), f"a user without main got {answer.status_code}"
    shown = alerts(without_main.get("/notifications/"))
    assert shown == [("danger error", "A main character is required to perform that action. Add one below.")]


@pytest.mark.broken_by(
    r"the end of 2 x",
    file="views.py",
    old="    audit_members.delay",
    new='    if request.session.get("audited"):\n        return redirect("user_interface:index")\n'
    '    request.session["audited"] = True\n    audit_members.delay',
)
def test_two_clicks_start_two_tasks_and_two_notifications(lab):
    """Two clicks start two tasks, and the user is notified twice."""
    user = pilot()
    browser = Browser(lab.url, user)
    browser.click(98000001)
    browser.click(98000001)
    lab.finished(AUDIT, 2, timeout=4)
    assert told(user) == [("success", RESULT)] * 2, f"told {told(user)}"


@pytest.mark.broken_by(
    r"the colours are \['danger', 'info'", file="demo_levels.py", old="notify.warning", new="notify.info"
)
def test_the_four_levels_are_the_four_colours_of_bootstrap(lab):
    """`notify.info`, `.success`, `.warning` and `.danger` give a row of the notifications page its Bootstrap colour."""
    user = lab.demo("demo_levels.py")["user"]
    shown = [level for level, _ in Browser(lab.url, user).notifications()]
    assert shown == ["danger", "warning", "success", "info"], f"the colours are {shown}"


@pytest.mark.broken_by(r"printed 'danger", file="demo_unknown_level.py", old='level="error"', new='level="danger"')
def test_an_unknown_level_becomes_info_without_a_word(lab, capsys):
    """A level that Auth does not know, such as "error", becomes "info" without an error."""
    lab.demo("demo_unknown_level.py")
    printed = capsys.readouterr().out
    assert printed == "info\n", f"printed {printed!r}"


@pytest.mark.broken_by(
    r"the list has 'Kaia", file="demo_text.py", old='"Pilots & <b>ships</b>", ', new='"Kaia: Rifter", '
)
@pytest.mark.broken_by(
    r"read as 'Kaia: Rifter\\nTomo: &lt;i&gt;",
    file="demo_text.py",
    old="<i>Kestrel</i>",
    new="&lt;i&gt;Kestrel&lt;/i&gt;",
)
def test_the_list_shows_titles_and_the_own_page_the_message_as_plain_text(lab):
    """The list shows titles, a notification's own page its message with line breaks; HTML in both is plain text."""
    user = lab.demo("demo_text.py")["user"]
    browser = Browser(lab.url, user)
    ((_, title),) = browser.notifications()
    listed = browser.get("/notifications/").text
    assert title == "Pilots & <b>ships</b>", f"the list has {title!r}"
    assert "Rifter" not in listed
    assert "<b>ships" not in listed
    (notification,) = Notification.objects.filter(user=user)
    page = browser.get(f"/notifications/{notification.pk}/").text
    message = re.search(r"<pre>(.*?)</pre>", page, re.DOTALL)[1]
    assert "<i>" not in message
    read = html.unescape(message)
    assert read == "Kaia: Rifter\nTomo: <i>Kestrel</i>", f"read as {read!r}"


@pytest.mark.broken_by(
    r"the message is '<b>|the message is 'Done",
    file="tasks.py",
    old='members are in Auth")',
    new='members are in Auth", "Done")',
)
def test_a_notification_without_a_message_repeats_its_title(lab, capsys):
    """A notification without a message has its title as its message."""
    lab.demo()
    assert capsys.readouterr().out == f"{PROMISE}\n"
    lab.finished(AUDIT)
    (notification,) = Notification.objects.all()
    assert notification.message == notification.title, f"the message is {notification.message!r}"


@pytest.mark.broken_by(r"the badge says 0", file="tasks.py", old='notify.danger(user, f"Audit', new='str(f"Audit')
def test_the_bells_number_is_fresh_as_soon_as_the_task_has_notified(lab):
    """Pages ask for the number of unread notifications every 30 seconds; the worker's one is in the next answer."""
    user = User.objects.create(username="Kaia_Tennen")
    browser = Browser(lab.url, user)
    page = browser.get("/notifications/").text
    assert 'refreshTime: "30"' in page
    path = re.search(r'userNotificationsCountViewUrl: "(.*?)"', page)[1]
    before = browser.get(path).json()
    assert before == {"unread_count": 0}
    lab.demo("demo_failing.py")
    lab.finished(AUDIT)
    after = browser.get(path).json()["unread_count"]
    assert after == 1, f"the badge says {after}"


@pytest.mark.broken_by(
    r"'2 unread, says the cache'",
    file="demo_bulk.py",
    old='Notification.objects.bulk_create([Notification(user=user, title="Audit 2", message="Done")])',
    new='Notification(user=user, title="Audit 2", message="Done").save()',
)
def test_bulk_create_leaves_the_bells_number_old(lab, capsys):
    """The bell's number, which Auth caches for a day, misses notifications made with `bulk_create`."""
    user = lab.demo("demo_bulk.py")["user"]
    printed = capsys.readouterr().out.splitlines()
    assert printed == ["1 unread", "1 unread, says the cache", "2 unread, says the database"], f"printed {printed}"
    left = lab.redis.ttl(f":1:USER_NOTIFICATION_COUNT_{user.pk}")
    assert 86_000 < left <= 86_400, f"the number is kept for {left} s"


@pytest.mark.broken_by(r"printed '49 kept", file="demo_many.py", old="range(1, 53)", new="range(1, 50)")
def test_the_fifty_first_notification_deletes_the_oldest_unread_or_not(lab, capsys):
    """Auth keeps 50 notifications of a user: one more deletes the oldest, although nobody has read it."""
    lab.demo("demo_many.py")
    printed = capsys.readouterr().out
    assert printed == "50 kept, from Audit 3 to Audit 52\n", f"printed {printed!r}"


@pytest.mark.broken_by(r"printed '2 kept", file="demo_many.py", old="range(1, 53)", new="range(1, 3)")
def test_a_setting_changes_how_many_are_kept_and_zero_breaks_every_notification(lab, capsys):
    """`NOTIFICATIONS_MAX_PER_USER` says how many notifications are kept; with 0 each new one raises ValueError."""
    with override_settings(NOTIFICATIONS_MAX_PER_USER=3):
        user = lab.demo("demo_many.py")["user"]
    printed = capsys.readouterr().out
    assert printed == "3 kept, from Audit 50 to Audit 52\n", f"printed {printed!r}"
    with override_settings(NOTIFICATIONS_MAX_PER_USER=0), pytest.raises(ValueError, match="Negative indexing"):
        notify(user, "Audit 53")


@pytest.mark.broken_by(r"printed '254 char", file="demo_long_title.py", old='"x" * 300', new='("x" * 300)[:254]')
def test_auth_does_not_cut_a_long_title(lab, capsys):
    """Auth hands a title to the database uncut, although the column is declared for 254 characters; SQLite takes it."""
    lab.demo("demo_long_title.py")
    printed = capsys.readouterr().out
    assert printed == "300 characters in a column for 254\n", f"printed {printed!r}"


@pytest.mark.broken_by(r"printed ''", file="demo_user_object.py", old="98000001, user)", new="98000001, user.pk)")
def test_a_user_object_cannot_be_sent_only_its_key(lab, capsys):
    """A user object cannot be an argument of a task: `.delay()` raises EncodeError in the view, and nothing is sent."""
    lab.demo("demo_user_object.py")
    printed = capsys.readouterr().out
    assert printed == "Object of type User is not JSON serializable\n", f"printed {printed!r}"
    assert lab.settle() == []


@pytest.mark.broken_by(
    r"ended as failed IntegrityError",
    file="tasks.py",
    old="    user = User.objects.get(pk=user_pk)\n    try:",
    new="    user = User.objects.filter(pk=user_pk).first()\n    try:",
)
def test_a_user_who_is_deleted_meanwhile_stops_the_task_before_its_work(lab):
    """If the user was deleted while the task waited, looking the user up first ends the task before its work."""
    lab.demo("demo_user_gone.py")
    (run,) = lab.finished(AUDIT)
    assert run.exception == "DoesNotExist('User matching query does not exist.')", (
        f"ended as {run.state} {run.exception}"
    )
    assert lab.log_file("extensions.log") == ""
    assert told() == []


@pytest.mark.broken_by(
    r"told \[\('danger', .*\('danger', ", file="tasks.py", old="def on_failure(", new="def on_retry("
)
@pytest.mark.broken_by(
    r"failed after \[\]", file="tasks.py", old="    autoretry_for=(EveCorporationInfo.DoesNotExist,),\n", new=""
)
def test_on_failure_tells_the_user_once_after_the_last_retry(lab):
    """A task that retries twice and tells the user in `on_failure` tells once, after the last attempt has failed."""
    lab.demo("demo_retrying.py")
    (run,) = lab.finished(AUDIT_NEW)
    assert len(run.retries) == 2, f"failed after {run.retries}"
    assert told() == [("danger", "Audit of your new corporation failed")], f"told {told()}"


@pytest.mark.broken_by(r"sent before the commit", file="demo_transaction.py", old=".delay_on_commit(", new=".delay(")
def test_delay_on_commit_sends_the_task_when_the_transaction_is_committed(lab):
    """`delay_on_commit` sends the task when the transaction is committed, so the task finds the row."""
    user = User.objects.create(username="Kaia_Tennen")
    with transaction.atomic():
        lab.demo("demo_transaction.py")
        sent = lab.runs(AUDIT_NEW)
        assert sent == [], f"sent before the commit: {sent}"
    (run,) = lab.finished(AUDIT_NEW)
    assert told(user) == [("success", "Amarr Haulers has 7 members")], f"{run.state} with {run.exception or 'success'}"


@pytest.mark.broken_by(
    r"the task's answer did not happen", file="demo_too_early.py", old=".delay(", new=".delay_on_commit("
)
def test_delay_inside_a_transaction_fails_on_the_row_that_is_not_there_yet(lab):
    """A worker faster than the commit does not find the row if `.delay()` is called inside the transaction."""
    user = User.objects.create(username="Kaia_Tennen")
    with transaction.atomic():
        lab.demo("demo_too_early.py")
        lab.wait(lambda: lab.log_file("extensions.log"), "the task's answer", timeout=4)
    lab.finished(AUDIT)
    assert EveCorporationInfo.objects.filter(corporation_id=98000003).exists()
    assert told(user) == [("danger", "Audit of corporation 98000003 failed")]


@pytest.mark.broken_by(
    r"has no attribute 'delay_on_commit'",
    file="tasks.py",
    old="from celery.contrib.django.task import DjangoTask",
    new="from celery import Task as DjangoTask",
)
def test_a_base_class_keeps_delay_on_commit_only_if_it_is_a_django_task(lab):
    """A base class made from DjangoTask has `delay_on_commit`; one made from Task, as Auth's QueueOnce, has not."""
    from user_interface.tasks import audit_members

    assert not hasattr(QueueOnce, "delay_on_commit")
    assert audit_members.delay_on_commit
    lab.demo("demo_transaction.py")
    (run,) = lab.finished(AUDIT_NEW)
    assert run.state == "succeeded"


@pytest.mark.broken_by(
    r"printed .*1 notifications", file="demo_rolled_back.py", old="with transaction.atomic():", new="if True:"
)
def test_a_notification_inside_a_failing_transaction_is_rolled_back(lab, capsys):
    """A notification that is sent inside a transaction is gone when the task raises through it."""
    lab.demo("demo_rolled_back.py")
    printed = capsys.readouterr().out
    assert printed == "EveCorporationInfo matching query does not exist.\n0 notifications\n", f"printed {printed!r}"


@pytest.mark.fresh
@pytest.mark.broken_by(r"the message's deletion did not happen", conf={"task_acks_late": True})
def test_a_killed_worker_takes_the_notification_with_it(lab):
    """The message leaves Redis while the task runs; if its worker is killed then, no notification ever comes."""
    from user_interface.tasks import audit_members

    user = pilot()
    log = "Auth knows 1 of 12 members"
    # Whoever has begun to write keeps others from writing: the task stands still where it notifies.
    with transaction.atomic():
        audit_members.delay(98000001, user.pk)
        lab.wait(lambda: log in lab.log_file("extensions.log"), "the task's work")
        lab.wait(lambda: not lab.redis.hlen("unacked"), "the message's deletion", timeout=4)
        lab.kill(lab.workers[0])
    assert lab.waiting() == {}
    assert told(user) == []


@pytest.mark.workers
@pytest.mark.broken_by(
    r"waits in \{\}", file="views.py", old="audit_members.delay_on_commit(", new="(lambda *_: None)("
)
def test_the_message_does_not_wait_for_a_worker(lab):
    """The message comes also while no worker runs; the task waits in Redis, and there is no notification yet."""
    user = pilot()
    answer = Browser(lab.url, user).click(98000001)
    assert alerts(answer) == [("info", PROMISE)], f"the page shows {alerts(answer)}"
    waiting = lab.waiting()
    assert waiting == {"celery\x06\x165": 1}, f"the task waits in {waiting}"
    assert told(user) == []
