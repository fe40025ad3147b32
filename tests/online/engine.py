"""The engine in a browser's Web Worker, asked without the page around it."""

import json
from typing import Any

from playwright.sync_api import Page

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
    const began = performance.now();
    const result = await window.ask(message);
    const told = window.told.filter((one) => ["stdout", "stderr", "error"].includes(one.kind));
    return {...result, told, took: performance.now() - began};
}"""


class Engine:
    """One engine, in `page`, which has the origin of `base`, the folder of what is loaded."""

    def __init__(self, page: Page, base: str, pack: dict[str, Any]) -> None:
        self.page = page
        self.ready = page.evaluate(_START, [base, pack])

    def run(self, source: str) -> dict[str, Any]:
        """Run a call; `out` is what a reader sees."""
        result: dict[str, Any] = self.page.evaluate(_RUN, {"kind": "run", "source": source})
        printed = [one["data"] if one["kind"] != "error" else json.dumps(one["data"]) for one in result.pop("told")]
        result["out"] = "".join(printed) + "".join(f"[worker] {line}\n" for line in result["lines"])
        return result

    def define(self, module: str, source: str) -> bool:
        """Take over tasks."""
        return bool(
            self.page.evaluate("message => window.ask(message)", {"kind": "define", "module": module, "source": source})
        )
