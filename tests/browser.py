"""The browser that tests read pages in. `python -m tests.browser` sees that there is one."""

import shutil
import subprocess
import sys

from playwright.sync_api import Browser, BrowserType, Error, Playwright, expect, sync_playwright

from tests.bed import PATIENCE

_FLAGS = ["--no-sandbox", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
_NAMES = ("chromium", "chromium-browser", "google-chrome")


def launch(playwright: Playwright) -> Browser:
    """Start the Chromium on PATH, else the one that Playwright has fetched; raises Playwright's Error without any."""
    expect.set_options(timeout=PATIENCE * 1000)
    return another(playwright.chromium)


def another(kind: BrowserType, *flags: str) -> Browser:
    """Start one more, with `flags` of Chromium's own."""
    found = next(filter(None, map(shutil.which, _NAMES)), None)
    return kind.launch(executable_path=found, args=[*_FLAGS, *flags])


def _starts() -> str:
    """Return why no browser starts; nothing if one does."""
    with sync_playwright() as playwright:
        try:
            launch(playwright).close()
        except Error as error:
            return error.message.splitlines()[0]
    return ""


def main() -> int:
    """Have Playwright fetch a Chromium if none starts; say in one sentence what to do if that does not help."""
    why = _starts()
    if not why:
        return 0
    print("There is no Chromium on PATH: Playwright fetches one (about 110 MB, once).", flush=True)
    command = [sys.executable, "-m", "playwright", "install", "--only-shell", "chromium"]
    fetched = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    why = _starts()
    if not why:
        return 0
    why = next((line for line in fetched.stderr.splitlines() if "rror" in line), why).strip().rstrip(".")
    print(f"No browser can be started ({why}): install chromium, for example with apt install chromium.")
    return 1


if __name__ == "__main__":
    sys.exit(main())
