import pytest

from testing import helpers


@pytest.fixture
def sent_tasks():
    with helpers.sent_tasks() as sent:
        yield sent


@pytest.fixture
def settle(transactional_db):
    with helpers.worker() as settle:
        yield settle
