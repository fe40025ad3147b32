"""A reader of live pages, in a headless Chromium."""

from typing import Any

from playwright.sync_api import Browser, Locator, Page, expect

from tests.bed import PATIENCE
from tests.live.server import Server


class Reader:
    """One tab on a chapter's page."""

    def __init__(self, browser: Browser, live: Server, chapter: str, **screen: Any) -> None:
        """Come in with the token and wait for the page's kernel; `screen` as Playwright's `new_context` takes it."""
        self.live = live
        self.context = browser.new_context(**screen)
        self.context.set_default_timeout(PATIENCE * 1000)
        self.page: Page = self.context.new_page()
        self.wrong: list[str] = []
        self.page.on("console", lambda told: self.wrong.append(told.text) if told.type == "error" else None)
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("request", lambda asked: self.wrong.append(asked.url) if _foreign(asked.url, live) else None)
        self.page.goto(f"{live.address}?token={live.token}")
        self.page.goto(f"{live.address}{chapter}.html")
        self.state("Ready")

    def state(self, text: str) -> None:
        """Wait until the panel says `text`."""
        try:
            expect(self.page.locator(".live-state")).to_contain_text(text)
        except AssertionError as error:
            raise AssertionError(f"{error}\nThe live server's log:\n{self.live.log.read_text()}") from None

    def block(self, file: str, part: str = "") -> "Block":
        """Return the first block of a file, or of a part of it."""
        found = self.page.locator(f"figure.block[data-file='examples/{file}']")
        return Block((found.filter(has_text=part) if part else found).first)


class Block:
    """A block on the page."""

    def __init__(self, figure: Locator) -> None:
        """Name its parts."""
        self.figure = figure
        self.note = figure.locator(".live-note")
        self.out = figure.locator(".live-output")

    def click(self, name: str) -> None:
        """Press one of its buttons."""
        self.figure.locator(f".live-{name}").click()

    def run(self, told: str = "Done") -> str:
        """Run it to the end and return its output."""
        self.click("run")
        expect(self.note).to_contain_text(told)
        return self.out.inner_text() if self.out.is_visible() else ""

    def edit(self, old: str, new: str) -> None:
        """Replace `old` in the editor by `new`, as typing does."""
        editor = self.figure.locator(".live-editor")
        text = editor.inner_text()
        assert old in text
        editor.focus()
        # As a whole: typed line by line, the editor would indent anew.
        editor.evaluate(
            "(node, text) => { node.textContent = text; node.dispatchEvent(new KeyboardEvent('keyup', {key: 'x'})); }",
            text.replace(old, new),
        )


def _foreign(url: str, live: Server) -> bool:
    return not url.startswith((live.address, live.address.replace("http", "ws"), "data:", "blob:"))


# Prints the process ids of the page's kernel, its worker and its broker.
WHO = """import os
from myauth.celery import app
(stats,) = app.control.inspect().stats().values()
print(os.getpid(), stats["pid"], app.connection().default_channel.client.info()["process_id"])
"""


def pids(call: Block) -> dict[str, int]:
    """Return the process ids behind a call's page."""
    call.edit(call.figure.locator(".live-editor").inner_text(), WHO)
    return dict(zip(("kernel", "worker", "broker"), map(int, call.run().split()), strict=True))
