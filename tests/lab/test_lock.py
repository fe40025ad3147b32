"""What `nox -s lock` tells of two texts of a lock."""

from lab.lock import moved

BEFORE = "amqp==5.3.1 \\\n    --hash=sha256:aa\ncelery==5.6.3 ; python_version < '4' \\\nvine==5.1.0 \\\n"


def test_pins_that_came_went_or_changed_are_told() -> None:
    after = "amqp==5.3.1 \\\n    --hash=sha256:ff\ncelery==5.7.0 \\\n    --hash=sha256:cc\nzlib-ng==1.0 \\\n"
    assert moved(BEFORE, after) == ["zlib-ng 1.0, which is new", "vine 5.1.0 is gone", "celery 5.6.3 → 5.7.0"]


def test_of_the_same_pins_nothing_is_told() -> None:
    assert moved(BEFORE, BEFORE) == []
