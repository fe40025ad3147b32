"""A stand-in that is broken on purpose turns the proof red."""

import zipfile
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Error

from lab.paths import ROOT
from tests.online.engine import started
from tests.online.proof import CHECKS

_FOLDER = "lab/pages/browser/standins"
# What is broken, in which file, and how.
BREAKS = {
    "priorities in reverse": ("broker.py", "in channel.priority_steps", "in reversed(channel.priority_steps)"),
    "no giving way after a send": ("memory.py", "threads.SCHEDULER.stand_back(_HEAD_START)", "pass"),
    "a head start by the clock": (
        "memory.py",
        "threads.SCHEDULER.stand_back(_HEAD_START)",
        "threads.SCHEDULER.park(time.monotonic() + 0.005)",
    ),
    "a lock that locks nothing": ("threads.py", "while self._held:", "while False:"),
    "no waiting for the database": ("database.py", "return tried", "return function"),
    "a clock that stands": ("threads.py", "self.engine.skip(max(0.0, at - time.monotonic()))", "pass"),
}


def _broken(pack: Path, name: str, old: str, new: str) -> None:
    text = (ROOT / _FOLDER / name).read_text()
    assert old in text
    with zipfile.ZipFile(pack / "project.bin", "a") as packed:
        # A source is preferred to what was compiled.
        packed.writestr(f"faq/{_FOLDER}/{name}", text.replace(old, new))


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_stand_in_turns_the_proof_red(browser: Browser, name: str) -> None:
    page = browser.new_page()
    try:
        with started(page, lambda pack: _broken(pack, *BREAKS[name])) as engine:
            told = next(filter(None, (check(engine) for check in CHECKS)), "")
    except Error as error:
        told = error.message
    finally:
        page.close()
    print(f"{name}: {told[:200]}")
    assert told
