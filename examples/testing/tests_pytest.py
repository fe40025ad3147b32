from collections import Counter

from testing import corporations
from testing.tasks import update_standings

COUNT = "testing.tasks.count_members"


def test_the_count_is_sent_when_a_corporation_is_added(db, sent_tasks, django_capture_on_commit_callbacks):
    with django_capture_on_commit_callbacks(execute=True):
        corporations.add(98000001)
    assert sent_tasks == [(COUNT, (98000001,), {}, 5)]


def test_standings_are_updated_once(sent_tasks):
    update_standings.delay(98000001)
    update_standings.delay(98000001)
    assert len(sent_tasks) == 1


def test_each_of_twenty_is_counted(settle):
    for corporation_id in range(98000001, 98000021):
        corporations.add(corporation_id)
    assert Counter(settle()) == {(COUNT, "SUCCESS"): 20}
