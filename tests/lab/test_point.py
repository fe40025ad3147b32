"""What `lab.project.point()` reaches into is where it was: these tests name what a new release has moved."""

from typing import Any

import pytest
from allianceauth.authentication.task_statistics.event_series import EventSeries
from celery import Celery
from django.utils.connection import BaseConnectionHandler
from kombu import pools

MOVED = "{} moved {}, which lab/project.py point() uses"


@pytest.fixture
def app() -> Celery:
    """An app with a broker that needs no server."""
    return Celery(broker="memory://", set_as_current=False)


def test_django_keeps_its_caches_where_point_drops_one() -> None:
    class Handler(BaseConnectionHandler):  # type: ignore[misc]
        def create_connection(self, alias: str) -> object:
            return object()

    caches = Handler({"default": {}})
    first = caches["default"]
    assert getattr(getattr(caches, "_connections", None), "default", None) is first, MOVED.format(
        "Django", "caches._connections"
    )
    del caches["default"]
    assert caches["default"] is not first, MOVED.format("Django", "del caches[…]")
    assert caches.settings == {"default": {}}, MOVED.format("Django", "caches.settings")


def test_auths_task_statistics_keep_their_redis_client_where_point_replaces_it() -> None:
    class Client:
        def __getattr__(self, name: str) -> Any:
            return lambda *_args, **_options: None

    client = Client()
    series = EventSeries("lab", redis=client)
    assert vars(series).get("_redis") is client, MOVED.format("Alliance Auth", "EventSeries._redis")


def test_kombus_pools_are_emptied_by_reset(app: Celery) -> None:
    connection = app.connection_for_write()
    first = pools.connections[connection]
    pools.reset()  # type: ignore[no-untyped-call]
    assert pools.connections[connection] is not first, MOVED.format("kombu", "pools.reset()")


def test_celery_forgets_its_connections_in_what_it_does_after_a_fork(app: Celery) -> None:
    before = app.pool
    assert hasattr(app, "_after_fork"), MOVED.format("Celery", "app._after_fork")
    app._after_fork()
    pools.reset()  # type: ignore[no-untyped-call]
    assert app.pool is not before, MOVED.format("Celery", "app._after_fork")


def test_celery_keeps_the_dispatcher_of_its_sent_events_where_point_drops_it(app: Celery) -> None:
    first = getattr(app.amqp, "_event_dispatcher", None)
    assert app.amqp.__dict__.pop("_event_dispatcher", None) is first is not None, MOVED.format(
        "Celery", "app.amqp._event_dispatcher"
    )


def test_celery_makes_its_queues_anew_where_point_drops_them(app: Celery) -> None:
    app.amqp.queues.select_add("services")
    assert app.amqp.router.queues is app.amqp.queues, MOVED.format("Celery", "app.amqp.router")
    for name in ("queues", "router"):
        app.amqp.__dict__.pop(name)
    assert set(app.amqp.queues.consume_from) == {"celery"}, MOVED.format("Celery", "app.amqp.queues")
