"""What a reader does on a live page, in a headless Chromium."""

import os
import signal
from collections.abc import Iterator

import psutil
import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.bed import until
from tests.live.conftest import Server

SECONDS = 5000
START = 60000
DONE = 30000


class Reader:
    """One tab on a chapter's page."""

    def __init__(self, browser: Browser, live: Server, chapter: str) -> None:
        """Come in with the token and wait for the page's kernel."""
        self.context = browser.new_context()
        self.page: Page = self.context.new_page()
        self.wrong: list[str] = []
        self.page.on("console", lambda told: self.wrong.append(told.text) if told.type == "error" else None)
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("request", lambda asked: self.wrong.append(asked.url) if _foreign(asked.url, live) else None)
        self.page.goto(f"{live.address}?token={live.token}")
        self.page.goto(f"{live.address}{chapter}.html")
        self.state("Ready")

    def state(self, text: str, timeout: int = START) -> None:
        """Wait until the panel says `text`."""
        expect(self.page.locator(".live-state")).to_contain_text(text, timeout=timeout)

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
        expect(self.note).to_contain_text(told, timeout=DONE)
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


@pytest.fixture
def chains(browser: Browser, live: Server) -> Iterator[Reader]:
    """A reader of the page on chains."""
    reader = Reader(browser, live, "chains")
    yield reader
    assert reader.wrong == []
    reader.context.close()


# Prints the process ids of the page's kernel, its worker and its broker.
WHO = """import os
from myauth.celery import app
(stats,) = app.control.inspect().stats().values()
print(os.getpid(), stats["pid"], app.connection().default_channel.client.info()["process_id"])
"""


def test_a_call_runs_as_it_stands_and_draws_its_timeline(chains: Reader) -> None:
    call = chains.block("chains/demo.py")
    lines = call.run().strip().splitlines()
    assert lines == [f"[worker] INFO Updated corporation {number}" for number in range(98000001, 98000007)]
    expect(call.figure.locator(".live-timeline svg")).to_be_visible()
    expect(call.note).to_contain_text("chains/tasks.py")


def test_an_edited_task_is_what_the_worker_runs_next(chains: Reader) -> None:
    task = chains.block("chains/tasks.py", "pages=1")
    task.edit("Updated corporation", "Visited corporation")
    call = chains.block("chains/demo.py")
    assert "Visited corporation 98000006" in call.run()
    expect(call.note).to_contain_text("as you edited")
    task.click("reset")
    assert "Updated corporation 98000006" in call.run()


def test_an_edited_call_changes_what_happens_and_reset_restores(chains: Reader) -> None:
    call = chains.block("chains/demo.py")
    before = call.figure.locator(".live-editor").inner_text()
    call.edit("98000006", "98000042")
    assert "Updated corporation 98000042" in call.run()
    call.click("reset")
    assert call.figure.locator(".live-editor").inner_text().strip() == before.strip()
    expect(call.out).to_be_hidden()


def test_stop_ends_a_busy_loop(chains: Reader) -> None:
    call = chains.block("chains/demo.py")
    call.edit("from chains", "while True:\n    pass\nfrom chains")
    call.click("run")
    chains.page.wait_for_timeout(500)
    call.click("stop")
    expect(call.note).to_contain_text("Stopped", timeout=DONE)
    call.click("reset")
    assert "98000006" in call.run()


def test_stop_ends_a_flood_of_tasks(chains: Reader) -> None:
    call = chains.block("chains/demo.py")
    call.edit("98000006]", "98000006] * 500")
    call.click("run")
    chains.page.wait_for_timeout(1500)
    call.click("stop")
    expect(call.note).to_contain_text("Stopped", timeout=DONE)
    call.click("reset")
    assert len(call.run().strip().splitlines()) == 6


@pytest.mark.parametrize("victim", ["kernel", "worker", "broker"])
def test_a_killed_part_is_told_and_recovered_by_run(chains: Reader, victim: str) -> None:
    call = chains.block("chains/demo.py")
    os.kill(pids(call)[victim], signal.SIGKILL)
    chains.state("has ended", SECONDS)
    call.click("reset")
    assert "98000006" in call.run()
    chains.state("Ready")


def pids(call: Block) -> dict[str, int]:
    """Return the process ids behind a call's page."""
    call.edit(call.figure.locator(".live-editor").inner_text(), WHO)
    return dict(zip(("kernel", "worker", "broker"), map(int, call.run().split()), strict=True))


def test_two_tabs_do_not_see_each_others_tasks(chains: Reader, browser: Browser, live: Server) -> None:
    other = Reader(browser, live, "chains")
    task = chains.block("chains/tasks.py", "pages=1")
    task.edit("Updated corporation", "Visited corporation")
    assert "Visited corporation" in chains.block("chains/demo.py").run()
    assert "Visited corporation" not in other.block("chains/demo.py").run()
    mine, others = pids(chains.block("chains/demo.py")), pids(other.block("chains/demo.py"))
    assert not set(mine.values()) & set(others.values())
    other.context.close()


def test_leaving_the_page_frees_everything(browser: Browser, live: Server) -> None:
    reader = Reader(browser, live, "chains")
    behind = pids(reader.block("chains/demo.py"))
    reader.page.goto(f"{live.address}index.html")
    until(lambda: not any(psutil.pid_exists(pid) for pid in behind.values()), 15, "the end of the page's processes")
    reader.context.close()


def test_tab_indents_and_after_escape_moves_on(chains: Reader) -> None:
    call = chains.block("chains/demo.py")
    editor = call.figure.locator(".live-editor")
    editor.focus()
    editor.press("Escape")
    editor.press("Tab")
    expect(editor).not_to_be_focused()
