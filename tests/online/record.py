"""Play every call of the pages in Chromium, and write what was proven: `python -m tests.online.record`.

A call is proven where it prints what the real run printed, after the calls above it and after those below it, and where
its tasks, their ends, concurrency and duration equal those of every claim that plays it and can be compared.
"""

import contextlib
import json
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import psutil
from playwright.sync_api import Page, sync_playwright

from lab.paths import BUILD, EVIDENCE, EXAMPLES, ROOT
from tests.browser import launch
from tests.online import compare
from tests.online.engine import Engine
from tests.online.host import serve

sys.path.append(str(ROOT / "docs"))
from _ext import online

_STRICT = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; connect-src 'self'"
_OUTPUT = re.compile(
    r"^`examples/([^`]+)`:\n\n```python\n(?:(?!```).*\n)*```\n\nOutput:\n\n```text\n((?:(?!```).*\n)*)```$", re.M
)


def recorded() -> dict[str, str]:
    """Return what each call printed when the site was built."""
    pages = [path.read_text() for path in sorted((BUILD / "html").glob("*.md"))]
    return {call: output for page in pages for call, output in _OUTPUT.findall(page)}


@contextlib.contextmanager
def started(page: Page) -> Iterator[Engine]:
    """Serve what is loaded, as strictly as a host may, and yield an engine of it."""
    with tempfile.TemporaryDirectory(dir=BUILD) as scratch:
        folder = Path(scratch) / "pack"
        shutil.copytree(BUILD / "online", folder)
        shutil.copy(ROOT / "docs" / "_online" / "worker.js", folder)
        (Path(scratch) / "index.html").write_text("<!doctype html><title>Nothing</title>")
        with serve(_STRICT, Path(scratch)) as address:
            page.goto(f"{address}index.html")
            yield Engine(page, f"{address}pack/", {"version": "recorded", "total": 1})


def differences(engine: Engine) -> dict[str, str]:
    """Return for each call what is not as in reality; nothing where all is."""
    wanted = recorded()
    found = dict.fromkeys(online.calls(), "")
    for call in [*found, *reversed(found)]:
        result = engine.run((EXAMPLES / call).read_text())
        want = wanted[call].replace("(no output)", "")
        if result["out"].strip() != want.strip():
            found[call] = found[call] or f"printed {result['out']!r} and not {want!r}"
    plays = list(compare.plays())
    equal = 0
    for play in plays:
        result = engine.run((EXAMPLES / play.call).read_text())
        different = compare.difference(play.events, result["runs"])
        equal += not different
        if different:
            print(f"{play.claim}: {different}")
            if play.call in found:
                found[play.call] = found[play.call] or f"{play.claim}: {different}"
    print(f"{equal} of {len(plays)} claims that can be compared have equal events")
    return found


def _resident() -> float:
    """Return the largest renderer's resident memory, in megabytes."""
    processes = psutil.Process().children(recursive=True)
    return float(max(one.memory_info().rss for one in processes if "--type=renderer" in one.cmdline())) / 1e6


def main() -> int:
    """Write docs/recorded/online.json; 0 where every call is proven."""
    with sync_playwright() as playwright:
        browser = launch(playwright)
        page = browser.new_page()
        with started(page) as engine:
            found = differences(engine)
            print(f"heap {engine.ready['heap'] >> 20} MiB at the start, Chromium {browser.version}")
            print(f"resident memory of the tab: {_resident():.0f} MB")
            versions: dict[str, Any] = {"python": engine.ready["python"], "chromium": browser.version}
        browser.close()
    for call, different in found.items():
        if different:
            print(f"{call}: {different}")
    versions |= next(iter(json.loads(EVIDENCE.read_text())["chapters"].values()))["versions"]
    proven = {call: online.marks(call) for call, different in found.items() if not different}
    record = {"recorded": date.today().isoformat(), "versions": versions, "calls": proven}
    online.PROVEN.parent.mkdir(exist_ok=True)
    online.PROVEN.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")
    print(f"{len(proven)} of {len(found)} calls are proven in a browser: {online.PROVEN.relative_to(ROOT)}")
    return int(len(proven) < len(found))


if __name__ == "__main__":
    sys.exit(main())
