"""The Alliance Auth project: made by `allianceauth start`, migrated once, kept, and copied for each run."""

import configparser
import hashlib
import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from importlib.metadata import distributions, version
from pathlib import Path
from typing import Any

from lab.address import for_celery
from lab.database import Database, put
from lab.database import settings as settings_of
from lab.errors import LabError
from lab.paths import EXAMPLES, PROJECTS, ROOT, chapters

NAME = "myauth"


@cache
def kept() -> Path:
    """Return the folder of the kept project, making it first where it is missing.

    It is kept under a key of all that decides what `allianceauth start` and `migrate` make: the packages that are
    installed, our settings, and the example apps' settings, models and migrations.
    """
    parts = [sys.version, *sorted(f"{package.name} {package.version}" for package in distributions())]
    parts += [(ROOT / "lab" / name).read_text() for name in ("settings.py", "project.py", "database.py", "tables.py")]
    parts += chapters()
    for pattern in ("*/local.py", "*/models.py", "*/migrations/*.py"):
        parts += [f"{path.relative_to(EXAMPLES)}\n{path.read_text()}" for path in sorted(EXAMPLES.glob(pattern))]
    key = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
    folder = PROJECTS / key
    if folder.exists():
        return folder
    PROJECTS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=PROJECTS) as scratch:
        command = Path(sys.executable).parent / "allianceauth"
        # It looks for celery on the PATH, as with an environment that is activated.
        found = {**os.environ, "PATH": f"{command.parent}{os.pathsep}{os.environ['PATH']}"}
        made = subprocess.run(
            [command, "start", NAME], cwd=scratch, capture_output=True, text=True, check=False, env=found
        )
        if made.returncode or not (Path(scratch) / NAME).exists():
            raise LabError(f"allianceauth start failed: {made.stderr.strip() or made.stdout.strip()}")
        put(Path(scratch) / NAME, folder)
    return folder


def copy(folder: Path, pool: str | None = None) -> Path:
    """Copy the kept project into `folder` and return the copy's path; its supervisor.conf names `pool`, if given."""
    project = folder / NAME
    shutil.copytree(kept(), project)
    if pool:
        programs = project / "supervisor.conf"
        programs.write_text(re.sub(r"--pool=\w+", f"--pool={pool}", programs.read_text()))
    return project


def enter(project: Path, broker_url: str, database: Database) -> None:
    """Make `project` the Django project of this process: import path, settings, `django.setup()`, tables."""
    sys.path[:0] = [str(project), str(EXAMPLES), str(ROOT)]
    os.environ.update(
        DJANGO_SETTINGS_MODULE="lab.settings",
        LAB_BROKER_URL=broker_url,
        LAB_DATABASE=str(database.place(project)),
        LAB_SECRET_KEY=secrets.token_urlsafe(48),
    )
    import django

    os.chdir(project)
    django.setup()
    database.lay_out(kept())
    # Some time or ten megabytes each, which every process that is forked from here on would spend anew.
    import allianceauth.authentication.views
    import allianceauth.middleware  # noqa: F401
    import celery.bin.celery  # noqa: F401


def move(folder: Path, database: Database, seat: int) -> None:
    """Give this process, a lane in this seat, a database and log files of its own, in `folder`."""
    from django.conf import settings
    from django.db import connection

    (folder / "log").mkdir()
    connection.close()
    place = database.move(folder, seat)
    use({"NAME": settings_of(place)["NAME"]})
    os.environ["LAB_DATABASE"] = str(place)
    for handler in settings.LOGGING["handlers"].values():
        if "filename" in handler:
            handler["filename"] = str(folder / "log" / Path(handler["filename"]).name)


def use(database: dict[str, Any]) -> dict[str, Any]:
    """Point this process's Django at a database with these settings; return those that it had."""
    from django.conf import settings
    from django.db import connection

    connection.close()
    before = dict(settings.DATABASES["default"])
    for known in (settings.DATABASES["default"], connection.settings_dict):
        known.update(database)
    return before


def log_folder() -> Path:
    """Return the folder of Alliance Auth's log files."""
    from django.conf import settings

    return Path(settings.LOGGING["handlers"]["extension_file"]["filename"]).parent


def point(broker_url: str, cache_url: str | None = None) -> None:
    """Point this process's Celery app and Django cache at another database of the broker, or each at one of its own."""
    from allianceauth.authentication.task_statistics import counters
    from allianceauth.utils.cache import get_redis_client
    from django.conf import settings
    from django.core.cache import caches
    from kombu import pools
    from myauth.celery import app

    settings.CACHES["default"]["LOCATION"] = caches.settings["default"]["LOCATION"] = cache_url or broker_url
    if hasattr(caches._connections, "default"):
        del caches["default"]
    # Alliance Auth's task statistics keep the client of the cache they were imported with.
    for series in (counters.succeeded_tasks, counters.retried_tasks, counters.failed_tasks):
        series._redis = get_redis_client()
    app.conf.broker_url = for_celery(broker_url)
    # What is open leads to the old place, and a fork would share it: a reply that somebody still waits for on it would
    # hang the child. The second line is what Celery does after a fork.
    pools.reset()  # type: ignore[no-untyped-call]
    app._after_fork()
    # A worker reads the queues that its app has chosen: a fork must not inherit what a claim has done to them.
    for name in ("_event_dispatcher", "queues", "router"):
        app.amqp.__dict__.pop(name, None)


def command(project: Path, program: str) -> list[str]:
    """Return the command line of `program` (`worker`, `beat`, …) from the supervisor.conf of the project.

    `LabError` where it has none: not every release has each of them.
    """
    parser = configparser.ConfigParser(interpolation=None, inline_comment_prefixes=(";",))
    parser.read(project / "supervisor.conf")
    if f"program:{program}" not in parser:
        raise LabError(f"The supervisor.conf of Alliance Auth {version('allianceauth')} has no program {program}.")
    line = parser[f"program:{program}"]["command"]
    for name, value in {
        "ENV_AA_COMMAND_CELERY": "celery",
        "ENV_AA_PROJECT_NAME": NAME,
        "program_name": program,
    }.items():
        line = line.replace(f"%({name})s", value)
    # Some releases write the path of the program out.
    first, *others = line.split()
    return [Path(first).name, *others]
