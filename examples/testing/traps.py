from allianceauth.eveonline.models import EveCorporationInfo
from celery import chain, chord, current_app
from celery.contrib.testing.worker import start_worker, test_worker_started
from django.conf import settings
from django.test import SimpleTestCase, TestCase, override_settings

from testing import corporations
from testing.helpers import sent_tasks, worker
from testing.tasks import find_ceo, note, tell, update_standings


@override_settings(CELERY_TASK_ALWAYS_EAGER=True)
class MisnamedTests(SimpleTestCase):
    def test_green_but_sent(self):
        self.assertTrue(settings.CELERY_TASK_ALWAYS_EAGER)
        note.delay(98000001)


@override_settings(CELERY_ALWAYS_EAGER=True)
class EagerTests(SimpleTestCase):
    def test_green_with_a_result(self):
        self.assertEqual(note.delay(98000001).get(), 98000001)

    def test_green_with_a_chord(self):
        chord([note.si(98000001), note.si(98000002)], note.s()).apply_async()

    def test_green_before_its_time(self):
        note.apply_async((98000001,), countdown=1_000_000)

    def test_green_after_its_time(self):
        note.apply_async((98000001,), expires=-1_000_000)

    def test_red_with_an_object(self):
        note.delay(EveCorporationInfo(corporation_id=98000001))

    def test_green_with_an_object_in_a_chain(self):
        chain(note.si(EveCorporationInfo(corporation_id=98000001)), note.si(98000002)).apply_async()

    def test_green_with_a_second_start(self):
        self.assertTrue(update_standings.delay(98000001).id)
        self.assertTrue(update_standings.delay(98000001).id)

    def test_green_with_a_task_that_can_tell(self):
        tell.delay()

    def test_green_but_sent_by_name(self):
        current_app.send_task("testing.tasks.note", (98000001,))


def test_green_in_eager_mode(settings):
    settings.CELERY_ALWAYS_EAGER = True
    assert note.delay(98000001).get() == 98000001


@override_settings(CELERY_ALWAYS_EAGER=True)
class EagerRowTests(TestCase):
    def test_green_before_the_commit(self):
        corporations.add_too_early(98000001)

    def test_green_though_it_fails(self):
        find_ceo.delay(98000001)

    @override_settings(CELERY_EAGER_PROPAGATES_EXCEPTIONS=True)
    def test_red_with_the_first_retry(self):
        find_ceo.delay(98000001)


class SharedRedisTests(TestCase):
    def test_green_but_sent_to_the_project(self):
        with self.captureOnCommitCallbacks(execute=True):
            corporations.add(98000001)


class LockTests(SimpleTestCase):
    def test_first_green(self):
        self.assertTrue(update_standings.delay(98000001).id)

    def test_then_red(self):
        self.assertTrue(update_standings.delay(98000001).id)


@override_settings(CACHES={"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}})
class LocalCacheTests(SimpleTestCase):
    def test_red_with_a_second_start(self):
        self.assertTrue(update_standings.delay(98000001).id)
        self.assertFalse(update_standings.delay(98000001).id)


class UncommittedTests(TestCase):
    def test_red_as_nothing_is_sent(self):
        with sent_tasks() as sent:
            corporations.add(98000001)
        self.assertEqual(len(sent), EveCorporationInfo.objects.count())

    def test_red_with_a_worker(self):
        with worker():
            corporations.add(98000001)


class WorkerTests(SimpleTestCase):
    def test_red_as_the_ping_is_unknown(self):
        self.enterContext(start_worker(current_app))

    def test_red_as_the_ping_has_no_result(self):
        import celery.contrib.testing.tasks  # noqa: F401

        self.enterContext(start_worker(current_app))

    def test_red_with_what_has_not_ended(self):
        with worker() as settle:
            note.apply_async((98000001,), countdown=1_000_000)
            settle(seconds=0.1)

    def test_green_with_five_threads(self):
        def tell_threads(worker, **_):
            print(worker.pool_cls, worker.concurrency)

        test_worker_started.connect(tell_threads)
        with worker():
            pass
