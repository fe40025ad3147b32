"""Play every call of the pages in Chromium, and write what was proven: `python -m tests.online.record`.

A call is proven where it prints what its real run printed, after the calls above it and after those below it, and where
its tasks, their ends, concurrency and duration equal those of a run on real parts. Of all others it is told why not.
"""

import json
import re
import sys
from datetime import date
from typing import Any

from playwright.sync_api import sync_playwright

from lab.paths import BUILD, EVIDENCE, EXAMPLES, ROOT
from tests.browser import launch
from tests.online import compare, real
from tests.online.engine import Engine, started
from tests.online.reasons import reason, sends_others

sys.path.append(str(ROOT / "docs"))
from _ext import online

_OUTPUT = re.compile(
    r"^`examples/([^`]+)`:\n\n```python\n(?:(?!```).*\n)*```\n\nOutput:\n\n```text\n((?:(?!```).*\n)*)```$", re.M
)
_CALLED = re.compile(r"^```\{call\} (\S+)$", re.M)
_SOURCE = "it prints lines of libraries' source, which is not loaded"
_ROWS = "its real run had other rows in its database"
_ENDLESS = "what it sends never ends"
_RACE = "it races with its worker, and the real one may win"
_BESIDE = "its output was recorded beside other tasks"
_OTHER = "it does not do there what it did in reality"


def printed() -> dict[str, str]:
    """Return what each call of the built site printed in reality."""
    pages = [path.read_text() for path in sorted((BUILD / "html").glob("*.md"))]
    found = {call: output for page in pages for call, output in _OUTPUT.findall(page)}
    return {call: output.replace("(no output)", "").strip() for call, output in found.items()}


def _tried(calls: list[str]) -> list[str]:
    """Return the calls that a page's own kernel played, and those of claims that did no more than to play them."""
    pages = "".join(path.read_text() for path in (ROOT / "docs").glob("*.md"))
    return [call for call in calls if call in _CALLED.findall(pages) or not reason(call)]


def difference(result: dict[str, Any], wanted: str, task_runs: dict[str, Any]) -> str:
    """Return what is not as in reality in a call's run; nothing where all is.

    A call that printed something else in one of its runs was not played on real parts: it has no `task_runs`.
    """
    if result["out"].strip() != wanted:
        return f"it printed {result['out'].strip()!r} and not {wanted!r}"
    return compare.difference(task_runs, compare.summary(result["runs"])) if task_runs else ""


def _why(call: str, result: dict[str, Any], wanted: str, task_runs: dict[str, Any]) -> str:
    """Return in half a sentence why a call has no Run."""
    if why := reason(call):
        return why
    if result["spent"]:
        return _ENDLESS
    out = result["out"].strip()
    if out != wanted and re.sub(r"\bpk \d+", "", out) == re.sub(r"\bpk \d+", "", wanted):
        return _ROWS
    # It prints what the page shows, and on real parts its tasks end in another way now.
    if out == wanted and compare.summary(result["runs"])["tasks"] != task_runs["tasks"]:
        return _RACE
    if re.search(r'File "(?!\w+/tasks)[\w/]+\.py", line', wanted):
        return _SOURCE
    return _BESIDE if sends_others(call) else _OTHER


def _played(engine: Engine, calls: list[str]) -> dict[str, list[dict[str, Any]]]:
    """Play the calls in order and in reverse order."""
    found: dict[str, list[dict[str, Any]]] = {call: [] for call in calls}
    for call in [*calls, *reversed(calls)]:
        found[call].append(engine.run((EXAMPLES / call).read_text()))
    return found


def main() -> int:
    """Write docs/recorded/online.json; 0 where each refused call has a reason of its own."""
    calls, wanted = online.calls(), printed()
    if missing := [call for call in calls if call not in wanted]:
        print(f"build/html has no output of {', '.join(missing)}: run nox -s docs first.", file=sys.stderr)
        return 1
    with sync_playwright() as playwright:
        browser = launch(playwright)
        with started(browser.new_page()) as engine:
            results = _played(engine, _tried(calls))
            versions = {"browser's python": engine.ready["python"], "chromium": browser.version}
        browser.close()
    same = [call for call, found in results.items() if all(one["out"].strip() == wanted[call] for one in found)]
    tasks = {call: compare.summary(runs) for call, runs in real.played(same).items()}
    proven, refused = {}, {call: reason(call) for call in calls if call not in results}
    for call, found in results.items():
        told = [difference(one, wanted[call], tasks.get(call, {})) for one in found]
        if different := next(filter(None, told), ""):
            refused[call] = _why(call, found[0], wanted[call], tasks.get(call, {"tasks": []}))
            print(f"{call}: {refused[call]} ({different})")
        else:
            proven[call] = online.marks(call)
    versions |= next(iter(json.loads(EVIDENCE.read_text())["chapters"].values()))["versions"]
    record = {"recorded": date.today().isoformat(), "versions": versions, "calls": proven, "refused": refused}
    record["tasks"] = {call: tasks[call] for call in proven}
    online.PROVEN.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")
    print(f"{len(proven)} of {len(calls)} calls are proven in a browser: {online.PROVEN.relative_to(ROOT)}")
    return int(_OTHER in refused.values())


if __name__ == "__main__":
    sys.exit(main())
