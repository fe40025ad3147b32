from time import perf_counter

import pytest
import requests
from allianceauth.eveonline.models import EveCorporationInfo
from allianceauth.tests.auth_utils import AuthUtils
from celery import Celery, current_app
from django.conf import settings
from django.db import transaction
from django.test import Client
from django.urls import reverse
from kombu.exceptions import OperationalError

from when_to_use.tasks import welcome

UPDATE = "when_to_use.tasks.update_members"
WELCOME = "when_to_use.tasks.welcome"
CSRF = "c" * 32
HOOK = """@hooks.register("url_hook")
def register_urls():
    return UrlHook(urls, "when_to_use", r"^when-to-use/")
"""
PUBLIC_HOOK = """from django.conf import settings
settings.APPS_WITH_PUBLIC_VIEWS.append("when_to_use")
@hooks.register("url_hook")
def register_urls():
    return UrlHook(urls, "when_to_use", r"^when-to-use/", ["when_to_use.views.update_by_task"])
"""


def log_in(name, character_id):
    """A user with a main character, and the cookies of a browser in which this user is logged in."""
    user = AuthUtils.create_user(name)
    AuthUtils.add_main_character_2(user, name, character_id)
    client = Client()
    client.force_login(user)
    return {"sessionid": client.cookies["sessionid"].value}


def post(lab, view, corporation_id=98000001, cookies=None):
    """Post to a view as a browser does; the answer and how many seconds it took."""
    url = lab.url + reverse(f"when_to_use:{view}", args=[corporation_id])
    # The first request to a new server imports every view of Auth: not what is measured.
    assert requests.get(url, cookies=cookies, timeout=20, allow_redirects=False).status_code in (302, 405)
    began = perf_counter()
    response = requests.post(
        url,
        cookies={"csrftoken": CSRF, **(cookies or {})},
        headers={"X-CSRFToken": CSRF},
        timeout=20,
        allow_redirects=False,
    )
    return response, perf_counter() - began


def members():
    return EveCorporationInfo.objects.get(corporation_id=98000001).member_count


@pytest.fixture
def corporation(lab):
    return EveCorporationInfo.objects.create(corporation_id=98000001, corporation_name="Amarr Haulers")


@pytest.mark.web
@pytest.mark.broken_by(r"answered after 0\.", file="views.py", old="update_members(", new="update_members.delay(")
def test_a_view_that_does_two_seconds_of_work_answers_after_two_seconds(lab, corporation):
    """A view that does two seconds of work itself answers after two seconds; the worker does nothing."""
    response, seconds = post(lab, "update_inline", cookies=log_in("Aiko", 90000001))
    assert response.text == "The corporation is updated."
    assert 2 <= seconds < 4, f"answered after {seconds:.2f} s"
    assert members() == 42
    assert lab.runs() == [], "a task was sent"
    lab.record(seconds=round(seconds, 3))


@pytest.mark.web
@pytest.mark.broken_by(r"answered after 2\.", file="views.py", old="update_members.delay(", new="update_members(")
def test_a_view_that_hands_the_work_to_a_task_answers_within_a_second(lab, corporation):
    """The same view answers in well under a second when it hands the work to a task, and the work is not done yet."""
    response, seconds = post(lab, "update_by_task", cookies=log_in("Aiko", 90000001))
    done = members()
    assert response.text == "The update is on its way."
    assert seconds < 1, f"answered after {seconds:.2f} s"
    assert done is None, "the work was done before the answer"
    (run,) = lab.finished(UPDATE)
    assert run.worker == "worker_00"
    assert members() == 42, "the work was not done"
    lab.record(seconds=round(seconds, 3))


@pytest.mark.web
@pytest.mark.broken_by(r"answered 500", file="views.py", old="update_members.delay(", new="update_members(")
def test_a_user_who_has_the_answer_does_not_learn_of_a_failure(lab):
    """When the task fails later, the user has long had the answer that the update is on its way."""
    response, _ = post(lab, "update_by_task", corporation_id=98999999, cookies=log_in("Aiko", 90000001))
    assert response.status_code == 200, f"answered {response.status_code}"
    assert response.text == "The update is on its way."
    (run,) = lab.finished(UPDATE)
    assert run.exception == "DoesNotExist('EveCorporationInfo matching query does not exist.')"


@pytest.mark.web
@pytest.mark.broken_by(
    r"answered 200",
    file="auth_hooks.py",
    old=HOOK,
    new=PUBLIC_HOOK,
)
def test_auth_lets_no_one_start_the_task_without_a_login_and_a_main(lab, corporation):
    """Views that a `UrlHook` registers start nothing for a visitor who has no login, or no main character."""
    client = Client()
    client.force_login(AuthUtils.create_user("Bo"))
    for cookies in ({}, {"sessionid": client.cookies["sessionid"].value}):
        response, _ = post(lab, "update_by_task", cookies=cookies)
        assert response.status_code == 302, f"answered {response.status_code}"
    welcome.delay(98000001)
    lab.finished(WELCOME)
    assert [run.name for run in lab.runs()] == [WELCOME], "the update was started"


@pytest.mark.broken_by(
    r"update_by_task: .* 2 s or more", file="views.py", old="update_members.delay(", new="update_members("
)
def test_either_way_the_work_is_done(lab, capsys, caplog):
    """The work is done all the same, in the view or by the task, and leaves the same result."""
    lab.demo()
    printed = capsys.readouterr().out
    assert printed == (
        "update_inline: The corporation is updated. It took 2 s or more.\n"
        "update_by_task: The update is on its way. It took less than 2 s.\n"
    ), f"printed {printed}"
    lab.finished(UPDATE)
    assert caplog.messages.count("Amarr Haulers has 42 members") == 1, "the view did not do it"
    assert "Amarr Haulers has 42 members\n" in lab.printed(lab.workers[0]), "the worker did not do it"
    assert members() == 42


@pytest.mark.broken_by(r"did not happen within 3 s", file="demo_too_early.py", old=".delay(", new=".delay_on_commit(")
def test_a_task_started_before_the_commit_does_not_find_the_row(lab):
    """A task that is started inside a transaction can run before the commit, and does not find the new row."""
    with transaction.atomic():
        lab.demo("demo_too_early.py")
        (run,) = lab.finished(WELCOME, timeout=3)
    assert run.exception == "DoesNotExist('EveCorporationInfo matching query does not exist.')"
    assert EveCorporationInfo.objects.filter(corporation_id=98000002).exists()


@pytest.mark.broken_by(r"sent before the commit", file="demo_on_commit.py", old=".delay_on_commit(", new=".delay(")
def test_delay_on_commit_sends_the_task_after_the_commit(lab):
    """`.delay_on_commit()` sends the task after the commit, so that it finds the row."""
    with transaction.atomic():
        lab.demo("demo_on_commit.py")
        lab.demo("demo_too_early.py")
        lab.finished(WELCOME)
        early = [run.args for run in lab.runs()]
        assert early == ["(98000002,)"], f"sent before the commit: {early}"
    lab.finished(WELCOME, 2)
    ends = {run.args: run.state for run in lab.runs()}
    assert ends == {"(98000002,)": "failed", "(98000003,)": "succeeded"}
    assert "Welcome, Gallente Traders\n" in lab.log_file("extensions.log")


@pytest.mark.broken_by(r"sent \['", file="demo_on_commit.py", old=".delay_on_commit(", new=".delay(")
def test_after_a_rollback_delay_on_commit_sends_nothing(lab):
    """When the transaction is rolled back, `.delay_on_commit()` sends nothing; a `.delay()` has been sent already."""
    with transaction.atomic():
        lab.demo("demo_on_commit.py")
        lab.demo("demo_too_early.py")
        transaction.set_rollback(True)
    welcome.delay(0)
    lab.finished(WELCOME, 2)
    sent = [run.args for run in lab.runs() if run.args != "(0,)"]
    assert sent == ["(98000002,)"], f"sent {sent}"


@pytest.mark.broken_by(
    r"did not happen within 3 s",
    file="demo_no_transaction.py",
    old="delay_on_commit(98000004)",
    new="apply_async_on_commit((98000004,), countdown=30)",
)
def test_without_a_transaction_delay_on_commit_sends_at_once(lab):
    """Outside a transaction `.delay_on_commit()` sends the task at once; in either case it returns nothing."""
    lab.demo("demo_no_transaction.py")
    (run,) = lab.finished(WELCOME, timeout=3)
    assert run.state == "succeeded"
    assert welcome.delay_on_commit(98000004) is None
    lab.finished(WELCOME, 2)


@pytest.mark.workers
@pytest.mark.broken_by(r"answered after 2\.", file="views.py", old="update_members.delay(", new="update_members(")
def test_without_a_worker_the_view_answers_just_as_fast(lab, corporation):
    """A view that starts a task does not notice that no worker runs: it answers as fast, and the message waits."""
    client = Client(SERVER_NAME="127.0.0.1")
    client.cookies.load(log_in("Aiko", 90000001))
    url = reverse("when_to_use:update_by_task", args=[98000001])
    client.get(url)
    began = perf_counter()
    response = client.post(url)
    seconds = perf_counter() - began
    assert response.content == b"The update is on its way."
    assert seconds < 1, f"answered after {seconds:.2f} s"
    assert sum(lab.waiting().values()) == 1


@pytest.mark.workers
@pytest.mark.broken_by(r"raised after [5-9]\.", conf={"task_publish_retry": False})
def test_when_the_broker_refuses_starting_a_task_raises_after_some_tries(lab):
    """When the broker refuses connections, starting a task tries for half a second, then raises `OperationalError`."""
    nowhere = Celery(broker="redis://127.0.0.1:1/0", set_as_current=False)
    nowhere.conf.task_publish_retry = current_app.conf.task_publish_retry
    began = perf_counter()
    with pytest.raises(OperationalError):
        nowhere.send_task(WELCOME, (98000001,))
    seconds = perf_counter() - began
    assert 0.5 <= seconds < 5, f"raised after {seconds:.2f} s"


@pytest.mark.workers
@pytest.mark.broken_by(r"celery.beat", conf={"beat_scheduler": "celery.beat:PersistentScheduler"})
def test_auth_itself_uses_beat_for_what_recurs(lab):
    """Auth itself uses beat for what recurs, such as the check of every character's owner each four hours."""
    assert current_app.conf.beat_scheduler == "allianceauth.crontab.schedulers.OffsetDatabaseScheduler"
    entry = settings.CELERYBEAT_SCHEDULE["check_all_character_ownership"]
    assert entry["task"] == "allianceauth.authentication.tasks.check_all_character_ownership"
    assert entry["schedule"].hour == set(range(0, 24, 4))
