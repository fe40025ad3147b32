from collections import Counter

from django.db import transaction
from django.test import TestCase, TransactionTestCase

from testing import corporations
from testing.helpers import sent_tasks, worker
from testing.tasks import count_members, update_standings

COUNT = "testing.tasks.count_members"


class SentTests(TestCase):
    def test_the_count_is_sent_when_a_corporation_is_added(self):
        with sent_tasks() as sent, self.captureOnCommitCallbacks(execute=True):
            corporations.add(98000001)
        self.assertEqual(sent, [(COUNT, (98000001,), {}, 5)])

    def test_the_count(self):
        corporations.add(98000001)
        self.assertEqual(count_members(98000001), 0)

    def test_standings_are_updated_once(self):
        with sent_tasks() as sent:
            update_standings.delay(98000001)
            update_standings.delay(98000001)
        self.assertEqual(len(sent), 1)


class WorkerTests(TransactionTestCase):
    def test_each_of_twenty_is_counted(self):
        with worker() as settle:
            for corporation_id in range(98000001, 98000021):
                corporations.add(corporation_id)
            self.assertEqual(Counter(settle()), {(COUNT, "SUCCESS"): 20})

    def test_nothing_runs_before_the_commit(self):
        with worker() as settle:
            with transaction.atomic():
                corporations.add(98000001)
                self.assertEqual(settle(), [])
            self.assertEqual(settle(), [(COUNT, "SUCCESS")])
