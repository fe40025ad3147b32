"""A reader of the built site on a strict host, and a host that goes away."""

from pathlib import Path
from typing import Any

from playwright.sync_api import BrowserContext, Page, expect

from tests.live.reader import Block
from tests.online.host import Handler

# Pyodide's start alone is seconds of work, of which a busy machine makes minutes.
PATIENCE = 300_000.0
CALL = "chains/demo.py"


class Tab:
    """A tab on a page of the strict host; notes what is asked, and what goes wrong."""

    def __init__(self, context: BrowserContext, base: str, name: str = "chains.html") -> None:
        context.set_default_timeout(PATIENCE)
        self.page: Page = context.new_page()
        self.asked: list[str] = []
        self.wrong: list[str] = []
        self.page.on("request", lambda request: self.asked.append(request.url.removeprefix(base)))
        self.page.on("console", lambda told: self.wrong.append(told.text) if told.type == "error" else None)
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.goto(base + name, wait_until="networkidle")

    def block(self, file: str = CALL, part: str = "") -> Block:
        """Return the first block of a file, or of a part of it."""
        found = self.page.locator(f"figure.block[data-file='examples/{file}']")
        return Block((found.filter(has_text=part) if part else found).first)

    def offer(self, file: str = CALL) -> Any:
        """Return the button that a call has before anything was loaded."""
        return self.block(file).figure.locator(".online-bar button")

    def start(self, file: str = CALL) -> Block:
        """Press Run of a page that has loaded nothing yet, and wait for the end of the call."""
        self.offer(file).click()
        block = self.block(file)
        expect(block.note).to_contain_text("Done", timeout=PATIENCE)
        return block

    def loaded(self) -> list[str]:
        """Return what was asked of what Run loads."""
        return [path for path in self.asked if "/online-" in path]


class Stumbling(Handler):
    """A host that goes away in the middle of the largest file."""

    def copyfile(self, source: Any, outputfile: Any) -> None:
        """Send the beginning of it."""
        if Path(self.path).name == "project.bin":
            outputfile.write(source.read(3_000_000))
            self.close_connection = True
        else:
            super().copyfile(source, outputfile)
