import time
from contextlib import contextmanager

from celery import current_app
from celery.contrib.testing.worker import start_worker
from celery.signals import before_task_publish, task_postrun
from django.conf import settings
from redis import Redis


@contextmanager
def own_redis():
    """Begin and end with an empty Redis database, which must be the tests' own."""
    if getattr(settings, "TEST_REDIS", None) != current_app.conf.broker_url:
        raise RuntimeError("These settings name no Redis database for tests: run with the settings for tests.")
    client = Redis.from_url(settings.TEST_REDIS)
    client.flushdb()
    try:
        yield
    finally:
        client.flushdb()


@contextmanager
def sent_tasks():
    """Note which tasks are sent, and with what; none of them runs."""
    sent = []

    def note(sender, body, properties, **_):
        sent.append((sender, *body[:2], properties["priority"]))

    with own_redis():
        # A signal forgets a function that is gone: this one ends with the context.
        before_task_publish.connect(note)
        yield sent


@contextmanager
def worker():
    """Run a worker as supervisor.conf has it, in threads of this process."""
    sent, ended = [], []

    def note_sent(sender, **_):
        sent.append(sender)

    def note_ended(sender, state, **_):
        ended.append((sender.name, state))

    def settle(seconds=10):
        """Wait until all that was sent has ended, and return each task's name and state."""
        deadline = time.monotonic() + seconds
        while len(ended) < len(sent):
            if time.monotonic() > deadline:
                raise TimeoutError(f"of {sent} only {ended} have ended after {seconds} s")
            time.sleep(0.01)
        return ended

    with own_redis():
        before_task_publish.connect(note_sent)
        task_postrun.connect(note_ended)
        with start_worker(current_app, pool="threads", concurrency=5, perform_ping_check=False):
            yield settle
