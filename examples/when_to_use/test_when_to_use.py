import re
import runpy
import sys
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from time import perf_counter
from urllib.parse import urlsplit

import pytest
import redis
import requests
from allianceauth.eveonline.models import EveCorporationInfo
from allianceauth.services.tasks import QueueOnce
from allianceauth.tests.auth_utils import AuthUtils
from celery import current_app
from django.conf import settings
from django.core.cache import caches
from django.db import transaction
from django.test import Client
from django.urls import reverse
from django_redis import get_redis_connection
from kombu.exceptions import OperationalError
from myauth.settings import base

from when_to_use.starts import start
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


def post(rig, view, corporation_id=98000001, cookies=None):
    """Post to a view as a browser does."""
    return requests.post(
        rig.url + reverse(f"when_to_use:{view}", args=[corporation_id]),
        cookies={"csrftoken": CSRF, **(cookies or {})},
        headers={"X-CSRFToken": CSRF},
        timeout=60,
        allow_redirects=False,
    )


@contextmanager
def connections():
    """The ports to which this process connects, as Python itself tells them."""
    ports, listening = [], [True]
    sys.addaudithook(lambda event, told: listening and event == "socket.connect" and ports.append(told[1][1]))
    yield ports
    listening.clear()


def browser(name="Aiko", character_id=90000001):
    """A client in this process, in which a user with a main character is logged in."""
    client = Client(SERVER_NAME="127.0.0.1")
    client.cookies.load(log_in(name, character_id))
    return client


def members():
    return EveCorporationInfo.objects.get(corporation_id=98000001).member_count


@pytest.fixture
def corporation(rig):
    return EveCorporationInfo.objects.create(corporation_id=98000001, corporation_name="Amarr Haulers", member_count=0)


@pytest.mark.web
@pytest.mark.broken_by(
    r"answered after [01]\.|a task was sent", file="views.py", old="update_members(", new="update_members.delay("
)
def test_a_view_that_does_two_seconds_of_work_answers_after_two_seconds(rig, corporation):
    """A view that does two seconds of work itself answers no earlier than after two seconds; no task is sent."""
    cookies = log_in("Aiko", 90000001)
    began = perf_counter()
    response = post(rig, "update_inline", cookies=cookies)
    seconds = perf_counter() - began
    assert response.text == "The corporation is updated."
    assert seconds >= 2, f"answered after {seconds:.2f} s"
    assert members() == 42
    assert rig.runs() == [], "a task was sent"


@pytest.mark.web
@pytest.mark.broken_by(r"42 members", file="views.py", old="update_members.delay(", new="update_members(")
def test_a_view_that_hands_the_work_to_a_task_does_not_wait_for_it(rig, corporation):
    """A view that hands the work to a task answers before it is done, however long it takes; a worker does it."""
    with rig.hold(UPDATE):
        response = post(rig, "update_by_task", cookies=log_in("Aiko", 90000001))
        done = members()
        assert response.text == "The update is on its way."
        assert done == 0, f"{done} members by the time of the answer"
        (run,) = rig.started(UPDATE)
        assert run.worker == "worker_00"
    rig.finished(UPDATE)
    assert members() == 42, "the work was not done"


@pytest.mark.web
@pytest.mark.broken_by(r"answered 500", file="views.py", old="update_members.delay(", new="update_members(")
def test_a_user_who_has_the_answer_does_not_learn_of_a_failure(rig, corporation):
    """When the task fails later, the user has long had the answer that the update is on its way."""
    with rig.hold(UPDATE):
        response = post(rig, "update_by_task", corporation_id=98999999, cookies=log_in("Aiko", 90000001))
        assert response.status_code == 200, f"answered {response.status_code}"
        assert response.text == "The update is on its way."
    (run,) = rig.finished(UPDATE)
    assert run.exception == "DoesNotExist('EveCorporationInfo matching query does not exist.')"


@pytest.mark.workers
@pytest.mark.broken_by(
    r"answered 200", file="views.py", old="@require_POST\ndef update_by_task", new="def update_by_task"
)
def test_a_link_starts_nothing_where_post_is_required(rig, corporation):
    """With `@require_POST` a link, which is followed with GET, starts nothing."""
    client = browser()
    for view in ("update_by_task", "update_inline"):
        rig.same(client.get(reverse(f"when_to_use:{view}", args=[98000001])).status_code, 405, "answered {}")
    assert (members(), rig.runs()) == (0, [])


@pytest.mark.web
@pytest.mark.broken_by(
    r"answered 200",
    file="auth_hooks.py",
    old=HOOK,
    new=PUBLIC_HOOK,
)
def test_auth_lets_no_one_start_the_task_without_a_login_and_a_main(rig, corporation):
    """Views that a `UrlHook` registers start nothing for a visitor who has no login, or no main character."""
    client = Client()
    client.force_login(AuthUtils.create_user("Bo"))
    for cookies in ({}, {"sessionid": client.cookies["sessionid"].value}):
        rig.same(post(rig, "update_by_task", cookies=cookies).status_code, 302, "answered {}")
    welcome.delay(98000001)
    rig.finished(WELCOME)
    assert [run.name for run in rig.runs()] == [WELCOME], "the update was started"


@pytest.mark.broken_by(
    r"update_by_task: .* 2 s or more", file="views.py", old="update_members.delay(", new="update_members("
)
def test_either_way_the_work_is_done(rig, caplog):
    """The work is done all the same, in the view or by the task, and leaves the same result."""
    rig.prints(
        "demo.py",
        "update_inline: The corporation is updated. It took 2 s or more.\n"
        "update_by_task: The update is on its way. It took less than 2 s.\n",
    )
    rig.finished(UPDATE)
    assert caplog.messages.count("Amarr Haulers has 42 members") == 1, "the view did not do it"
    worker = rig.printed(rig.workers[0])
    assert re.search(r"INFO \[when_to_use\.tasks:\d+\] Amarr Haulers has 42 members\n", worker), "the worker did not"
    assert members() == 42


@pytest.mark.broken_by(r"sent \[\] before", file="demo_too_early.py", old=".delay(", new=".delay_on_commit(")
def test_a_task_started_before_the_commit_does_not_find_the_row(rig):
    """A task that is started inside a transaction can run before the commit, and then does not find the new row."""
    with transaction.atomic():
        assert rig.savepoints("demo_too_early.py") == ["SAVEPOINT", "RELEASE SAVEPOINT"]
        rig.same([run.args for run in rig.runs()], ["(98000002,)"], "sent {} before the commit")
        (run,) = rig.finished(WELCOME)
    assert run.exception == "DoesNotExist('EveCorporationInfo matching query does not exist.')"
    assert EveCorporationInfo.objects.get(corporation_id=98000002).corporation_name == "Caldari Miners"


@pytest.mark.broken_by(r"sent before the commit", file="demo_on_commit.py", old=".delay_on_commit(", new=".delay(")
def test_delay_on_commit_sends_the_task_after_the_commit(rig):
    """`.delay_on_commit()` sends the task after the commit, so that it finds the row."""
    with transaction.atomic():
        assert rig.savepoints("demo_on_commit.py") == ["SAVEPOINT", "RELEASE SAVEPOINT"]
        rig.finished(WELCOME, after="demo_too_early.py")
        rig.same([run.args for run in rig.runs()], ["(98000002,)"], "sent before the commit: {}")
    rig.finished(WELCOME, 2)
    assert {run.args: run.state for run in rig.runs()} == {"(98000002,)": "failed", "(98000003,)": "succeeded"}
    assert re.search(r"INFO \[when_to_use\.tasks:\d+\] Welcome, Gallente Traders\n", rig.log_file("extensions.log"))


@pytest.mark.broken_by(r"sent \['", file="demo_on_commit.py", old=".delay_on_commit(", new=".delay(")
def test_after_a_rollback_delay_on_commit_sends_nothing(rig):
    """When the transaction is rolled back, `.delay_on_commit()` sends nothing; a `.delay()` has been sent already."""
    with transaction.atomic():
        rig.demo("demo_on_commit.py")
        rig.demo("demo_too_early.py")
        transaction.set_rollback(True)
    welcome.delay(0)
    rig.finished(WELCOME, 2)
    rig.same([run.args for run in rig.runs() if run.args != "(0,)"], ["(98000002,)"], "sent {}")


@pytest.mark.broken_by(
    r"sent \[\]",
    file="demo_no_transaction.py",
    old="EveCorporationInfo.objects.create(",
    new="__import__('django.db').db.transaction.atomic().__enter__()\nEveCorporationInfo.objects.create(",
)
def test_without_a_transaction_delay_on_commit_sends_at_once(rig):
    """Outside a transaction `.delay_on_commit()` sends the task at once; in either case it returns nothing."""
    with transaction.atomic():
        rig.demo("demo_no_transaction.py")
        assert rig.runs() == [], "sent inside a transaction"
        transaction.set_rollback(True)
    rig.demo("demo_no_transaction.py")
    rig.same([run.args for run in rig.runs()], ["(98000004,)"], "sent {}")
    (run,) = rig.finished(WELCOME)
    assert run.state == "succeeded"
    assert "] Welcome, Minmatar Smiths\n" in rig.log_file("extensions.log")
    assert welcome.delay_on_commit(98000004) is None
    with transaction.atomic():
        assert welcome.delay_on_commit(98000004) is None
    rig.finished(WELCOME, 3)


@pytest.mark.workers
@pytest.mark.broken_by(r"0 messages wait", file="views.py", old="update_members.delay(", new="update_members(")
def test_without_a_worker_the_view_gives_the_same_answer(rig, corporation):
    """A view that starts a task does not notice that no worker runs: it answers the same, and the message waits."""
    response = browser().post(reverse("when_to_use:update_by_task", args=[98000001]))
    assert response.content == b"The update is on its way."
    rig.same(sum(rig.waiting().values()), 1, "{} messages wait")


@pytest.mark.workers
@pytest.mark.broken_by(r"2 tries", conf={"task_publish_retry_policy": {"max_retries": 1, "interval_start": 0}})
def test_when_the_broker_refuses_starting_a_task_raises_after_some_tries(rig, corporation):
    """When the broker refuses, `.delay()` tries four times in half a second or more, and raises `OperationalError`."""
    client = browser()
    with rig.refused(cache=False), connections() as ports:
        began = perf_counter()
        with pytest.raises(OperationalError):
            client.post(reverse("when_to_use:update_by_task", args=[98000001]))
        seconds = perf_counter() - began
        broker = urlsplit(current_app.conf.broker_url).port
    rig.same(ports.count(broker), 4, "{} tries")
    assert seconds >= 0.5, f"raised after {seconds:.2f} s"


@pytest.mark.workers
@pytest.mark.broken_by(
    r"raised kombu",
    file="tasks.py",
    old="logger = get_extension_logger(__name__)\n",
    new="logger = get_extension_logger(__name__)\n"
    "from allianceauth.services.tasks import DjangoBackend\n"
    "DjangoBackend.raise_or_lock = lambda *args, **options: None\n",
)
def test_a_queue_once_task_asks_the_cache_first_and_raises_another_error(rig):
    """A `QueueOnce` task asks the cache for its lock first: where that refuses, it raises `redis.ConnectionError`."""
    once = current_app.task(base=QueueOnce, name="when_to_use.tasks.welcome_once")(welcome.run)
    with rig.refused(cache=True), pytest.raises(Exception, match="refused") as raised:
        once.delay(98000001)
    assert raised.type is redis.ConnectionError, f"raised {raised.type.__module__}.{raised.type.__name__}"


@pytest.mark.workers
@pytest.mark.broken_by(
    r"ports \{6379, 6380\}",
    file="tasks.py",
    old="logger = get_extension_logger(__name__)\n",
    new="logger = get_extension_logger(__name__)\n"
    "import runpy\n"
    "CACHES = {'default': {'LOCATION': 'redis://127.0.0.1:6380/1'}}\n"
    "read = runpy.run_path\n"
    "runpy.run_path = lambda path: read(path) | {'CACHES': CACHES}\n",
)
def test_auths_settings_put_broker_and_cache_on_one_server_and_sessions_into_the_cache(rig):
    """Auth's settings put broker and cache into two databases of one Redis server, and sessions into the cache."""
    auths = runpy.run_path(base.__file__)
    addresses = [urlsplit(auths["BROKER_URL"]), urlsplit(auths["CACHES"]["default"]["LOCATION"])]
    rig.same({address.port for address in addresses}, {6379}, "ports {}")
    assert {address.hostname for address in addresses} == {"localhost", "127.0.0.1"}
    assert [address.path for address in addresses] == ["/0", "/1"]
    assert (auths["SESSION_ENGINE"], settings.SESSION_ENGINE) == ("django.contrib.sessions.backends.cached_db",) * 2


@pytest.mark.workers
@pytest.mark.broken_by(
    r"DID NOT RAISE",
    file="tasks.py",
    old="logger = get_extension_logger(__name__)\n",
    new="logger = get_extension_logger(__name__)\n"
    "from django.conf import settings\n"
    "settings.SESSION_ENGINE = 'django.contrib.sessions.backends.db'\n",
)
def test_a_logged_in_page_raises_before_its_view_where_the_cache_refuses_too(rig, corporation):
    """Auth keeps sessions in the cache: where it refuses too, a page raises `ConnectionError` for who is logged in."""
    client = browser()
    with rig.refused(cache=True):
        with pytest.raises(redis.ConnectionError):
            client.post(reverse("when_to_use:update_inline", args=[98000001]))
        assert Client(SERVER_NAME="127.0.0.1").get("/").status_code == 302
    assert members() == 0


def of_tasks(*lines):
    """Return the arguments of a break that runs `lines` before the tasks are made."""
    first = "logger = get_extension_logger(__name__)\n"
    return {"file": "tasks.py", "old": first, "new": first + "\n".join(lines) + "\n"}


CHANNEL = "from kombu.transport.redis import Channel"


@pytest.mark.server
@pytest.mark.workers
@pytest.mark.broken_by(r"it has raised OperationalError", conf={"broker_transport_options": {"socket_timeout": 0.05}})
def test_where_redis_keeps_silent_a_start_waits_until_it_answers(rig):
    """Where Redis takes connections and keeps silent, `.delay()` waits until it answers, and sends its message then.

    It still waits when a start with a `socket_timeout`, made after it, has raised.
    """
    with ThreadPoolExecutor() as pool, rig.server.silent():
        waits = pool.submit(welcome.delay, 98000001)
        with pytest.raises(OperationalError):
            start(welcome, 98000002, seconds=0.5)
        error = waits.exception() if waits.done() else None
    assert not error, f"it has raised {type(error).__name__}"
    assert waits.result().id
    rig.same(sum(rig.waiting().values()), 1, "{} messages wait")


@pytest.mark.server
@pytest.mark.workers
@pytest.mark.broken_by(
    r"DID NOT RAISE",
    **of_tasks("from django.conf import settings", "settings.SESSION_ENGINE = 'django.contrib.sessions.backends.db'"),
)
@pytest.mark.broken_by(
    r"it waits 3 s",
    **of_tasks(
        "from django.conf import settings", "settings.CACHES['default'].setdefault('OPTIONS', {})['SOCKET_TIMEOUT'] = 3"
    ),
)
def test_where_redis_keeps_silent_a_logged_in_page_raises(rig, monkeypatch, corporation):
    """Where Redis keeps silent, a page raises `TimeoutError` for who is logged in.

    The cache waits five seconds for each answer. Measured with a tenth of a second.
    """
    rig.same(get_redis_connection().connection_pool.make_connection().socket_timeout, 5, "it waits {} s")
    impatient = settings.CACHES["default"]["LOCATION"] + "?socket_timeout=0.1"
    client = browser()
    monkeypatch.setitem(settings.CACHES["default"], "LOCATION", impatient)
    del caches["default"]
    with rig.server.silent(), pytest.raises(redis.TimeoutError):
        client.post(reverse("when_to_use:update_inline", args=[98000001]))
    assert members() == 0


# Settings that sound as if they would end it, as the options of one start and of its connection.
USELESS = {
    "BROKER_CONNECTION_TIMEOUT": ({}, {"connect_timeout": 0.1}),
    "CELERY_TASK_PUBLISH_RETRY": ({"retry": False}, {}),
    "CELERY_TASK_PUBLISH_RETRY_POLICY": ({"retry_policy": {"max_retries": 0}}, {}),
    "socket_connect_timeout": ({}, {"transport_options": {"socket_connect_timeout": 0.1}}),
    "socket_keepalive": ({}, {"transport_options": {"socket_keepalive": True}}),
    "retry_on_timeout": ({}, {"transport_options": {"retry_on_timeout": True}}),
    "health_check_interval": ({}, {"transport_options": {"health_check_interval": 1}}),
}


def start_with(name):
    """Start a task with one of the settings above."""
    of_start, of_connection = USELESS[name]
    with current_app.connection_for_write(**of_connection) as connection:
        return welcome.apply_async([98000001], connection=connection, **of_start)


@pytest.mark.server
@pytest.mark.workers
@pytest.mark.broken_by(r"20 still wait", file="starts.py", old="socket_timeout", new="socket_connect_timeout")
@pytest.mark.broken_by(r"waiting: \{\}", file="starts.py", old="return task.apply_async", new="task.signature")
@pytest.mark.broken_by(r"missing 1 required", file="starts.py", old="(args, ", new="(")
def test_with_a_socket_timeout_a_start_raises_where_redis_keeps_silent(rig):
    """A start on a connection with a `socket_timeout` raises `OperationalError` where Redis keeps silent.

    Nothing is sent then, in twenty of twenty starts; where Redis answers, the start sends its message. Measured with a
    tenth of a second.
    """
    start(welcome, 98000001, seconds=1)
    rig.same(rig.waiting(), {"celery\x06\x165": 1}, "waiting: {}")
    rig.wait(rig.runs, "the sending")
    rig.same([run.args for run in rig.runs()], ["(98000001,)"], "sent {}")
    with ThreadPoolExecutor(20) as pool, rig.server.silent():
        starts = [pool.submit(start, welcome, 98000001, seconds=0.1) for _ in range(20)]
        waiting = wait(starts, timeout=20).not_done
    assert not waiting, f"{len(waiting)} still wait"
    assert {type(each.exception()) for each in starts} == {OperationalError}
    assert sum(rig.waiting().values()) == 1


@pytest.mark.server
@pytest.mark.workers
@pytest.mark.broken_by(
    r"ended: \['socket_connect_timeout'\]",
    **of_tasks(
        CHANNEL,
        "params = Channel._connparams",
        "def either(self, *args, **options):",
        "    found = params(self, *args, **options)",
        "    return found | {'socket_timeout': found['socket_timeout'] or found['socket_connect_timeout']}",
        "Channel._connparams = either",
    ),
)
def test_other_settings_do_not_end_a_start_where_redis_keeps_silent(rig):
    """A limit for connecting, the retry of the publishing, keepalive and health checks don't end a silent start.

    Each such start still waits when one with a `socket_timeout` has raised, and sends its message when Redis answers.
    """
    with ThreadPoolExecutor(20) as pool, rig.server.silent():
        starts = {name: pool.submit(start_with, name) for name in USELESS}
        with pytest.raises(OperationalError):
            start(welcome, 98000002, seconds=0.5)
        ended = [name for name, each in starts.items() if each.done()]
    rig.same(ended, [], "ended: {}")
    assert all(each.result().id for each in starts.values())
    assert sum(rig.waiting().values()) == len(USELESS)


def for_all(monkeypatch):
    """Set a short `socket_timeout` for all connections of this process, and of the workers it starts."""
    options = {**current_app.conf.broker_transport_options, "socket_timeout": 0.3}
    monkeypatch.setitem(current_app.conf, "broker_transport_options", options)


@pytest.mark.server
@pytest.mark.workers
@pytest.mark.broken_by(
    r"2 messages did not happen",
    **of_tasks(
        CHANNEL,
        "put = Channel._put",
        "Channel._put = lambda self, *args, **options: self.client.ping() and put(self, *args, **options)",
    ),
)
def test_a_start_that_raised_on_an_open_connection_may_have_been_sent(rig, monkeypatch):
    """With a `socket_timeout` for all, a start that raised on an open connection may have been sent all the same.

    Here its message is there, once, when Redis answers again.
    """
    for_all(monkeypatch)
    welcome.delay(98000001)
    with rig.server.silent(), pytest.raises(OperationalError):
        welcome.delay(98000002)
    rig.wait(lambda: sum(rig.waiting().values()) == 2, "2 messages")


@pytest.mark.server
@pytest.mark.workers
@pytest.mark.broken_by(
    r"other connections|did not happen",
    **of_tasks(
        CHANNEL,
        "import sys",
        "start = Channel._brpop_start",
        "def ask(self, *args):",
        "    'worker' in sys.argv and self.client.connection.disconnect()",
        "    start(self, *args)",
        "Channel._brpop_start = ask",
    ),
)
def test_a_worker_that_waits_keeps_its_connections_with_a_socket_timeout(rig, monkeypatch, corporation):
    """A worker that waits for tasks keeps its connections, also with a `socket_timeout` shorter than its waits."""

    def asked():
        return rig.redis.info("commandstats")["cmdstat_brpop"]["calls"]

    def open_ones():
        return {each["id"] for each in rig.redis.client_list() if each["cmd"] in ("brpop", "psubscribe")}

    for_all(monkeypatch)
    worker = rig.start_worker()
    before, calls = open_ones(), asked()
    rig.wait(lambda: asked() >= calls + 3, "three more waits")
    welcome.delay(98000001)
    rig.finished(WELCOME)
    rig.same(open_ones() - before, set(), "other connections: {}")
    assert "Connection to broker lost" not in rig.printed(worker), "other connections: it lost its own"


@pytest.mark.workers
@pytest.mark.broken_by(r"celery.beat", conf={"beat_scheduler": "celery.beat:PersistentScheduler"})
def test_auth_itself_uses_beat_for_what_recurs(rig):
    """Auth itself uses beat for what recurs, such as the check of every character's owner each four hours."""
    assert current_app.conf.beat_scheduler == "allianceauth.crontab.schedulers.OffsetDatabaseScheduler"
    entry = settings.CELERYBEAT_SCHEDULE["check_all_character_ownership"]
    assert entry["task"] == "allianceauth.authentication.tasks.check_all_character_ownership"
    assert entry["schedule"].hour == set(range(0, 24, 4))
