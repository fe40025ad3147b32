"""What a reader copies works in a new project: the folder of an app, and the blocks of a page pasted into an app."""

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urljoin

import pytest
from playwright.sync_api import Browser

from lab.paths import EXAMPLES, ROOT, chapters
from tests.site.conftest import HTML
from tests.site.elsewhere import Elsewhere, Installation, put

# A call and its output, as a page's Markdown has them.
_CALL = re.compile(
    r"^`examples/\w+/(\S+)`:\n\n```python\n(?:(?!```).)*```\n\nOutput:\n\n```text\n(.*?\n)```$", re.M | re.S
)
# A line of a log, and the lines that belong to it.
_LOGGED = re.compile(r"^\[(call|worker)\] (.*)\n(?: {9}.*\n)*", re.M)


@pytest.fixture(scope="session")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """An installation of Alliance Auth."""
    standing = Installation(tmp_path_factory.mktemp("installation"))
    yield standing
    standing.close()


@pytest.mark.parametrize("chapter", chapters())
def test_an_apps_folder_works_in_a_project_where_migrate_is_all_that_was_run(
    installation: Installation, tmp_path: Path, chapter: str
) -> None:
    """Every call of the app's page does there what the page shows, and a worker takes what its other calls send."""
    checks = ("makemigrations --check", "migrate")
    with put(installation, tmp_path, EXAMPLES / chapter, *checks) as there:
        calls = _calls(chapter)
        for file, output in calls.items():
            _compare(there, file, output)
        for path in sorted((EXAMPLES / chapter).glob("demo*.py")):
            if path.name not in calls:
                there.call(path.name, to_the_end=False)


@pytest.mark.parametrize("chapter", chapters())
def test_what_a_page_gives_away_works_in_another_project(
    installation: Installation, browser: Browser, site: str, tmp_path: Path, chapter: str
) -> None:
    """The page's first call does what the page shows where its blocks were pasted into an app of the same name."""
    app = tmp_path / "pasted" / chapter
    for name, text in {"__init__.py": "", **_copy(browser, site, chapter)}.items():
        (app / name).parent.mkdir(parents=True, exist_ok=True)
        (app / name).write_text(text)
    # As for any app of one's own.
    with put(installation, tmp_path, app, f"makemigrations {chapter}", "migrate") as there:
        _compare(there, *next(iter(_calls(chapter).items())))


def _copy(browser: Browser, site: str, chapter: str) -> dict[str, str]:
    """Return what the Copy buttons of a page put on the clipboard, put together: file name to text."""
    listed = {
        block["anchor"]: block
        for block in json.loads((HTML / "evidence.json").read_text())["blocks"]
        if block["page"] == chapter
    }
    context = browser.new_context()
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = context.new_page()
    page.goto(urljoin(site, f"{chapter}.html"), wait_until="networkidle")
    parts: dict[str, set[tuple[int, str]]] = defaultdict(set)
    page.locator("details.whole").evaluate_all("all => all.forEach(one => { one.open = true; })")
    for block in page.locator("figure.block").all():
        entry = listed[block.get_attribute("id")]
        block.get_by_role("button", name="Copy").click()
        text = page.evaluate("navigator.clipboard.readText()").rstrip("\n")
        original = (ROOT / entry["file"]).read_text().splitlines()
        assert text == "\n".join(original[number - 1] for number in entry["lines"]).rstrip("\n")
        _, app, name = entry["file"].split("/", 2)
        # A whole file that is folded away stands beside the parts of it.
        if app == chapter and not entry["anchor"].startswith("whole-"):
            parts[name].add((entry["lines"][0], text))
    context.close()
    # Parts of one file are pasted in the order in which the file has them; a part shown twice is pasted once.
    return {name: "\n\n\n".join(text for _, text in sorted(found)) + "\n" for name, found in parts.items()}


def _calls(chapter: str) -> dict[str, str]:
    """Return the calls of a page in their order: file name to the output of the page's own kernel."""
    blocks = json.loads((HTML / "evidence.json").read_text())["blocks"]
    called = {Path(block["file"]).name for block in blocks if block["page"] == chapter and block["kind"] == "call"}
    shown = _CALL.findall((HTML / f"{chapter}.md").read_text())
    calls = {file: output for file, output in shown if file in called}
    assert calls, "the page has no call"
    return calls


def _compare(there: Elsewhere, file: str, output: str) -> None:
    """Run a call and compare what comes of it with what the page shows."""
    called = there.call(file)
    printed = _LOGGED.sub("", output).removeprefix("(no output)\n")
    assert called.printed == printed, f"{file} printed {called.printed!r}"
    ended = [f"{run.name} {run.state}" for run in called.runs]
    for who, line in _LOGGED.findall(output):
        # Where nothing was logged the page says how each task ended.
        log = called.logged if who == "call" else called.worker
        text = line.partition(" ")[2]
        assert text in log or line in ended, f"{file}: the {who} did not log {text!r} but {log}"
