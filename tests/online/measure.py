"""Measure Run on the built site: `nox -s bench` prints how long a reader waits for output, and what is loaded."""

import gzip
import statistics
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import BrowserContext, sync_playwright

from lab.paths import BUILD
from tests.browser import launch
from tests.online.host import HTML, Handler, policy, serve
from tests.online.tab import PATIENCE, Tab

_PAIRS = 5
# From the click to the first output, in the page's own clock: milliseconds.
_CLICK = """figure => new Promise(done => {
    const began = performance.now();
    new MutationObserver((_, look) => {
        if (!figure.querySelector(".live-output")?.textContent) return;
        look.disconnect();
        done(performance.now() - began);
    }).observe(figure, {childList: true, subtree: true, characterData: true});
    figure.querySelector(".online-bar button").click();
})"""
_BARE = """() => new Promise(done => {
    const began = performance.now();
    new Worker("bare.js", {type: "module"}).onmessage = () => done(performance.now() - began);
})"""
_SCRIPT = """import { loadPyodide } from "./pyodide.mjs";
const python = await loadPyodide();
postMessage(python.runPython("1 + 1"));
"""
# As they are in Pyodide's own package.
_NAMES = {"pyodide.js": "pyodide.mjs", "pyodide.asm.js": "pyodide.asm.mjs", "stdlib.bin": "python_stdlib.zip"}


class Plain(Handler):
    """A host that knows every type."""

    def guess_type(self, path: object) -> str:
        """Tell the two that matter."""
        kinds = {".mjs": "text/javascript", ".wasm": "application/wasm"}
        return kinds.get(Path(str(path)).suffix) or super().guess_type(path)


def bare(folder: Path) -> None:
    """Lay out a page in `folder` that starts Pyodide and nothing else."""
    pack = BUILD / "online"
    for name, own in _NAMES.items():
        (folder / own).write_bytes((pack / name).read_bytes())
    (folder / "pyodide.asm.wasm").write_bytes(gzip.decompress((pack / "pyodide.asm.bin").read_bytes()))
    (folder / "pyodide-lock.json").write_bytes((pack / "lock.json").read_bytes())
    (folder / "bare.js").write_text(_SCRIPT)
    (folder / "index.html").write_text("<!doctype html><title>Pyodide alone</title>")


def _click(context: BrowserContext, base: str) -> float:
    tab = Tab(context, base)
    took: float = tab.block().figure.evaluate(_CLICK)
    tab.page.close()
    return took


def main() -> int:
    """Print the medians of five rounds, each a bare start, a first visit and a second one from the cache."""
    times: dict[str, list[float]] = {"a bare start of Pyodide": [], "click to output": [], "from the cache": []}
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as scratch:
        bare(Path(scratch))
        browser = launch(playwright)
        with serve("", Path(scratch), Plain) as alone, serve(policy()) as base:
            for _ in range(_PAIRS):
                context = browser.new_context()
                context.set_default_timeout(PATIENCE)
                page = context.new_page()
                page.goto(f"{alone}index.html")
                times["a bare start of Pyodide"].append(page.evaluate(_BARE))
                times["click to output"].append(_click(context, base))
                times["from the cache"].append(_click(context, base))
                context.close()
        browser.close()
    first, *others = times
    for name, found in times.items():
        median = statistics.median(found)
        print(f"{f'online: {name}, median of {_PAIRS}':<48}{median:6.0f} ms ({min(found):.0f} to {max(found):.0f})")
    for name in others:
        ratios = [mine / own for mine, own in zip(times[name], times[first], strict=True)]
        print(f"{f'online: {name}, to {first}':<48}{statistics.median(ratios):6.2f}")
    (folder,) = (HTML / "_static").glob("online-*")
    loaded = sum(min(path.stat().st_size, len(gzip.compress(path.read_bytes()))) for path in folder.iterdir())
    print(f"{'online: loaded by the first click, gzip':<48}{loaded / 1e6:6.2f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
