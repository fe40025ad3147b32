import pytest



@pytest.mark.broken_by(r"waits", file="demo.py", old="greet.delay(", new="greet(")
@pytest.mark.workers()
def test_without_a_worker_the_message_waits_in_the_list_of_priority_five(lab):
    """Without a worker the message waits in the Redis list of priority 5."""
    lab.demo()
    assert lab.waiting() == {"celery\x06\x165": 1}, "nothing waits"


def test_delay_hands_the_task_to_a_worker(lab):
    """`delay()` hands the task to a worker."""
    lab.demo()
    (run,) = lab.finished("first_task.tasks.greet")
    assert run.state == "succeeded"
    assert "Hello Ada" in lab.log_file("extensions.log")


def test_second(lab):
    """`delay()` hands the task to a worker, twice."""
    lab.demo()
    lab.demo()
    lab.finished("first_task.tasks.greet", 2)
    assert lab.log_file("extensions.log").count("Hello Ada") == 2
