"""Our settings, laid over those that `allianceauth start` wrote: a database, the broker and the example apps.

What a chapter asks its reader to add to `local.py` stands in the chapter's own `local.py` and runs here last.
"""

import os
from pathlib import Path

from myauth.settings.local import *  # noqa: F403

from lab import database, lines
from lab.address import for_celery
from lab.paths import EXAMPLES, chapters

DEBUG = True
SITE_URL = "http://127.0.0.1"
ALLOWED_HOSTS = ["127.0.0.1"]
ESI_USER_CONTACT_EMAIL = "lab@example.com"
# The analytics client reports to a third party; nothing here does.
ANALYTICS_DISABLED = True
SECRET_KEY = os.environ["LAB_SECRET_KEY"]

DATABASES = {"default": database.settings(Path(os.environ["LAB_DATABASE"]))}
BROKER_URL = for_celery(os.environ["LAB_BROKER_URL"])
CACHES["default"]["LOCATION"] = os.environ["LAB_BROKER_URL"]  # noqa: F405

# Celery's own event stream is what claims and figures are made from.
CELERY_SEND_EVENTS = True
CELERY_SEND_TASK_SENT_EVENT = True

for _chapter in chapters():
    _app = EXAMPLES / _chapter
    if not _app.is_dir():
        continue
    INSTALLED_APPS.append(_chapter)  # noqa: F405
    if (_app / "local.py").exists():
        lines.run(_app / "local.py", globals())
