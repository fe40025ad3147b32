"""What stands in for parts that a browser does not have: threads, a Redis server, SQLite's waiting, users, HTTP.

Nothing of Alliance Auth, Celery, celery-once or kombu is replaced. Each module says why it is there and refuses what it
does not know; `tests/online/test_contracts.py` holds it against the real thing.
"""
