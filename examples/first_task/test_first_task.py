import pytest

from first_task import demo


@pytest.mark.broken_by(r"waits", file="demo.py", old="greet.delay(", new="greet(")
@pytest.mark.workers()
def test_without_a_worker_the_message_waits_in_the_list_of_priority_five(lab):
    """Without a worker the message waits in the Redis list of priority 5."""
    demo.greet_later()
    assert lab.waiting() == {"celery\x06\x165": 1}, "nothing waits"


def test_delay_hands_the_task_to_a_worker(lab):
    """`delay()` hands the task to a worker."""
    demo.greet_later()
    (run,) = lab.finished("first_task.tasks.greet")
    assert run.state == "succeeded"
    assert "Hello Ada" in lab.log_file("extensions.log")


def test_second(lab):
    """`delay()` hands the task to a worker, twice."""
    demo.greet_later()
    demo.greet_later()
    lab.finished("first_task.tasks.greet", 2)
    assert lab.log_file("extensions.log").count("Hello Ada") == 2
