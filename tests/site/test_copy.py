"""What a reader copies works elsewhere: pasted through the clipboard into a new project outside this repository."""

import json
import os
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urljoin

import pytest
from celery import Celery
from playwright.sync_api import Browser

from lab import broker, project
from lab.events import Recorder
from lab.guard import Guard
from lab.paths import ROOT
from tests.bed import until
from tests.site.conftest import CHAPTERS, HTML

# All on one worker of the test run: the project is made once.
pytestmark = pytest.mark.xdist_group("copy")

SETTINGS = """
INSTALLED_APPS += {apps}
DEBUG = True
ALLOWED_HOSTS = ["127.0.0.1"]
SITE_URL = "http://127.0.0.1"
ESI_USER_CONTACT_EMAIL = "copy@example.com"
DATABASES["default"] = {{
    "ENGINE": "django.db.backends.sqlite3",
    "NAME": "{folder}/copy.sqlite3",
    "OPTIONS": {{"timeout": 20, "transaction_mode": "IMMEDIATE", "init_command": "PRAGMA journal_mode=WAL;"}},
}}
BROKER_URL = "{url}"
CACHES["default"]["LOCATION"] = BROKER_URL
"""


@dataclass
class Copied:
    """One chapter as its page gives it away: file name to text, put together from what was on the clipboard."""

    chapter: str
    files: dict[str, str]


def _copy(browser: Browser, site: str, page_name: str) -> Copied:
    chapter = page_name.removesuffix(".html")
    listed = {
        block["anchor"]: block
        for block in json.loads((HTML / "evidence.json").read_text())["blocks"]
        if block["page"] == chapter
    }
    context = browser.new_context()
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = context.new_page()
    page.goto(urljoin(site, page_name), wait_until="networkidle")
    parts: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for block in page.locator("figure.block").all():
        entry = listed[block.get_attribute("id")]
        block.get_by_role("button", name="Copy").click()
        text = page.evaluate("navigator.clipboard.readText()")
        shown = _lines(entry)
        original = (ROOT / entry["file"]).read_text().splitlines()
        assert text.rstrip("\n") == "\n".join(original[number - 1] for number in shown).rstrip("\n")
        if entry["file"].split("/")[1] == chapter:
            parts[entry["file"].split("/", 2)[2]].append((shown[0], text.rstrip("\n")))
    context.close()
    # Parts of one file are pasted in the order in which the file has them; a part shown twice is pasted once.
    return Copied(
        chapter, {name: "\n\n\n".join(t for _, t in sorted(set(found))) + "\n" for name, found in parts.items()}
    )


def _lines(entry: dict[str, object]) -> list[int]:
    lines = entry["lines"]
    assert isinstance(lines, list)
    return [int(line) for line in lines]


@dataclass
class Elsewhere:
    """A new project with every chapter pasted in, and its worker."""

    folder: Path
    recorder: Recorder

    def manage(self, *words: str, text: str = "") -> str:
        """Run manage.py and return what it printed."""
        done = subprocess.run(
            [sys.executable, "manage.py", *words],
            cwd=self.folder,
            input=text,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr


@pytest.fixture(scope="module")
def copied(browser: Browser, site: str) -> dict[str, Copied]:
    """Copy every block of every chapter."""
    return {page.removesuffix(".html"): _copy(browser, site, page) for page in CHAPTERS}


@pytest.fixture(scope="module")
def elsewhere(copied: dict[str, Copied], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Elsewhere]:
    """Paste what was copied into apps of a new project, and start its worker as supervisor.conf does."""
    base = tmp_path_factory.mktemp("elsewhere")
    guard_folder = base / "guarded"
    guard_folder.mkdir()
    guard = Guard(guard_folder)
    server = broker.start("embedded", guard)
    subprocess.run(
        [Path(sys.executable).parent / "allianceauth", "start", "myauth"], cwd=base, check=True, capture_output=True
    )
    folder = base / "myauth"
    extra = ""
    for chapter in copied.values():
        app = folder / chapter.chapter
        for name, text in {"__init__.py": "", **chapter.files}.items():
            if name == "local.py":
                extra += f"\n{text}"
                continue
            (app / name).parent.mkdir(parents=True, exist_ok=True)
            (app / name).write_text(text)
    settings = SETTINGS.format(apps=list(copied), folder=folder, url=server.database(0))
    with (folder / "myauth" / "settings" / "local.py").open("a") as local:
        local.write(settings + extra)
    app = Celery("elsewhere", broker=server.database(0))
    there = Elsewhere(folder, Recorder(app, server.database(0)))
    there.manage("makemigrations", *copied)
    there.manage("migrate")
    words = [part.replace("%(process_num)02d", "00") for part in project.command(folder, "worker")]
    output = folder / "log" / "worker.log"
    with output.open("wb") as log:
        worker = subprocess.Popen(
            [sys.executable, "-m", *words],
            cwd=folder,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": str(folder)},
        )
    guard.register(worker.pid)
    until(lambda: app.control.ping(timeout=0.5) or worker.poll() is not None, 60, "the worker's start")
    assert worker.poll() is None, output.read_text()[-3000:]
    app.control.enable_events(reply=True)
    yield there
    there.recorder.close()
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    server.stop()
    guard.finish()


@pytest.mark.parametrize("chapter", [page.removesuffix(".html") for page in CHAPTERS])
def test_what_a_page_gives_away_works_in_another_project(
    elsewhere: Elsewhere, copied: dict[str, Copied], chapter: str
) -> None:
    """The chapter's call, pasted into a shell there, makes that project's worker run the chapter's task."""
    there = elsewhere.recorder
    there.begin()
    elsewhere.manage("shell", text=copied[chapter].files["demo.py"])

    def ran() -> bool:
        return any(run.name.startswith(f"{chapter}.") and run.state == "succeeded" for run in there.runs())

    there.wait(ran, 30, f"the success of a task of {chapter}")
