from allianceauth.eveonline.models import EveCorporationInfo
from celery import chain, chord, current_app
from celery.contrib.testing.worker import start_worker
from celery.exceptions import Retry
from django.db import Error
from django.test import SimpleTestCase, TestCase, override_settings
from kombu.exceptions import EncodeError

from testing import corporations
from testing.helpers import sent_tasks, worker
from testing.tasks import count_members, find_ceo, note, update_standings


@override_settings(CELERY_TASK_ALWAYS_EAGER=True)
class MisnamedTests(SimpleTestCase):
    def test_the_task_does_not_run_here(self):
        note.delay(1)


@override_settings(CELERY_ALWAYS_EAGER=True)
class EagerTests(SimpleTestCase):
    def test_there_is_a_result(self):
        self.assertEqual(note.delay(1).get(), 1)

    def test_there_are_chords(self):
        chord([note.si(1), note.si(2)], note.s()).delay()

    def test_a_countdown_is_over_at_once(self):
        note.apply_async((1,), countdown=24 * 60 * 60).get()

    def test_what_has_expired_runs(self):
        note.apply_async((1,), expires=0).get()

    def test_a_chain_takes_any_object(self):
        corporation = EveCorporationInfo(corporation_id=98000001)
        with self.assertRaises(EncodeError):
            note.delay(corporation)
        chain(note.si(corporation), note.si(1)).delay()

    def test_a_second_start_is_not_rejected(self):
        update_standings.delay(98000001).get()
        self.assertTrue(update_standings.delay(98000001).id)

    def test_what_is_sent_by_name_does_not_run_here(self):
        current_app.send_task("testing.tasks.note", (1,))


def test_the_settings_of_pytest_django(settings):
    settings.CELERY_ALWAYS_EAGER = True
    assert note.delay(1).get() == 1


@override_settings(CELERY_ALWAYS_EAGER=True)
class EagerRowTests(TestCase):
    def test_the_row_is_there_before_the_commit(self):
        corporations.add_too_early(98000001)
        self.assertEqual(EveCorporationInfo.objects.get().member_count, 0)

    def test_a_failure_goes_unnoticed(self):
        count_members.delay(98000001)

    @override_settings(CELERY_EAGER_PROPAGATES_EXCEPTIONS=True)
    def test_a_retry_is_raised_instead_of_made(self):
        with self.assertRaises(Retry), self.assertLogs("extensions.testing") as logs:
            find_ceo.delay(98000001)
        self.assertEqual(len(logs.records), 1)


class SharedRedisTests(TestCase):
    def test_the_task_goes_to_the_project(self):
        with self.captureOnCommitCallbacks(execute=True):
            corporations.add(98000001)


class LockTests(SimpleTestCase):
    def test_a_lock_is_left(self):
        self.assertTrue(update_standings.delay(98000001).id)

    def test_a_lock_was_left_by_the_test_before(self):
        self.assertIsNone(update_standings.delay(98000001).id)


@override_settings(CACHES={"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}})
class LocalCacheTests(SimpleTestCase):
    def test_a_rejected_start_raises(self):
        update_standings.delay(98000001)
        with self.assertRaises(AttributeError):
            update_standings.delay(98000001)


class NeverSentTests(TestCase):
    def test_nothing_is_sent(self):
        with sent_tasks() as sent:
            corporations.add(98000001)
        self.assertEqual(sent, [])

    def test_a_worker_closes_the_connection_of_the_test(self):
        with worker(), self.assertRaises(Error):
            corporations.add(98000001)


class PingTests(SimpleTestCase):
    def test_a_ping_is_in_the_way(self):
        with self.assertRaises(AssertionError), start_worker(current_app):
            pass
        # Makes the ping known.
        import celery.contrib.testing.tasks  # noqa: F401

        with self.assertRaises(NotImplementedError), start_worker(current_app):
            pass
