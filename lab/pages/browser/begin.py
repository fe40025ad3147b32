"""What the Web Worker imports first: threads stand in before anything else is imported."""

import json
from pathlib import Path

from js import page
from pyodide.ffi import run_sync

from lab.pages.browser.jspi import Jspi
from lab.pages.browser.standins import collector, threads

threads.install(Jspi())
collector.install()

_PROJECT = Path("/faq/myauth")


def serve() -> None:
    """Start the engine and answer what the page asks, for ever.

    It never returns: Pyodide lays a new stack where the one that returned stood, over stacks that still wait below it.
    """
    from lab.pages.browser.engine import Engine

    engine = Engine(_PROJECT, lambda kind, data: page.tell(kind, json.dumps(data)))
    page.tell("ready", json.dumps(None))
    while True:
        asked = json.loads(run_sync(page.next()))
        if asked["kind"] == "define":
            page.tell("defined", json.dumps(engine.define(asked["module"], asked["source"])))
        else:
            page.tell("ended", json.dumps(engine.run(asked["source"])))
