"""The engine in a browser's Web Worker, asked without the page around it."""

import contextlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
from playwright.sync_api import Page

from lab.paths import BUILD, ROOT
from tests.online.host import serve

_STRICT = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; connect-src 'self'"
# Pyodide's start alone is seconds of work, of which a busy machine makes minutes.
_PATIENCE = 600_000
# A page's own script may not be inline; what Playwright evaluates is not the page's.
_START = """async ([base, pack]) => {
    const worker = window.engine = new Worker(new URL("worker.js", base), {type: "module"});
    window.told = [];
    let done;
    window.ask = (message) => new Promise((resolve, reject) => {
        done = {resolve, reject};
        window.told = [];
        worker.postMessage({asked: 1, ...message});
    });
    worker.onerror = (event) => done.reject(new Error(`the worker: ${event.message}`));
    worker.onmessage = ({data}) => {
        window.told.push(data);
        if (["ready", "defined", "ended"].includes(data.kind)) done.resolve(data.data);
        if (data.kind === "failed") done.reject(new Error(data.data));
    };
    return window.ask({kind: "start", ...pack});
}"""
_RUN = """async (message) => {
    const result = await window.ask(message);
    return {...result, told: window.told.filter((one) => ["stdout", "stderr", "error"].includes(one.kind))};
}"""


class Engine:
    """One engine, in `page`, which has the origin of `base`, the folder of what is loaded."""

    def __init__(self, page: Page, base: str) -> None:
        self.page = page
        self.ready = page.evaluate(_START, [base, {"version": "tested", "total": 1}])

    def run(self, source: str) -> dict[str, Any]:
        """Run a call; `out` is what a reader sees."""
        result: dict[str, Any] = self.page.evaluate(_RUN, {"kind": "run", "source": source})
        printed = [one["data"] if one["kind"] != "error" else json.dumps(one["data"]) for one in result.pop("told")]
        result["out"] = "".join(printed) + "".join(f"[worker] {line}\n" for line in result["lines"])
        return result

    def define(self, module: str, source: str) -> bool:
        """Take over tasks."""
        message = {"kind": "define", "module": module, "source": source}
        return bool(self.page.evaluate("message => window.ask(message)", message))

    def resident(self) -> float:
        """Return the resident memory of the tab's process, in megabytes."""
        processes = psutil.Process().children(recursive=True)
        return float(max(one.memory_info().rss for one in processes if "--type=renderer" in one.cmdline())) / 1e6


@contextlib.contextmanager
def started(page: Page, change: Callable[[Path], None] = lambda _: None) -> Iterator[Engine]:
    """Serve what is loaded as strictly as a host may, after `change` has had the folder; yield an engine of it."""
    page.set_default_timeout(_PATIENCE)
    with tempfile.TemporaryDirectory(dir=BUILD) as scratch:
        folder = Path(scratch) / "pack"
        shutil.copytree(BUILD / "online", folder)
        shutil.copy(ROOT / "docs" / "_online" / "worker.js", folder)
        change(folder)
        (Path(scratch) / "index.html").write_text("<!doctype html><title>Nothing</title>")
        with serve(_STRICT, Path(scratch)) as address:
            page.goto(f"{address}index.html")
            yield Engine(page, f"{address}pack/")
