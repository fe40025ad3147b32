import os


def apart(settings):
    """Give the tests a Redis database of their own, and SQLite a file, which a worker's threads can share."""
    url = os.environ.get("TEST_REDIS", "redis://localhost:6379/15")
    settings["TEST_REDIS"] = settings["BROKER_URL"] = url
    settings["CACHES"] = {"default": settings["CACHES"]["default"] | {"LOCATION": url}}
    database = settings["DATABASES"]["default"]
    if "sqlite3" in database["ENGINE"]:
        test = database.get("TEST", {}) | {"NAME": "test.sqlite3"}
        settings["DATABASES"] = settings["DATABASES"] | {"default": database | {"TEST": test}}
