"""What the Web Worker imports first: threads stand in before anything else is imported."""

import json
from pathlib import Path
from typing import Any

from js import page

from lab.pages.browser.jspi import Jspi
from lab.pages.browser.standins import threads

threads.install(Jspi())

_PROJECT = Path("/faq/myauth")


class Served:
    """An engine that speaks JSON."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine

    def run(self, source: str) -> str:
        """Run a call."""
        return json.dumps(self._engine.run(source))

    def define(self, module: str, source: str) -> str:
        """Take over tasks; true where that worked."""
        return json.dumps(self._engine.define(module, source))


def begin() -> Served:
    """Start the engine."""
    from lab.pages.browser.engine import Engine

    return Served(Engine(_PROJECT, lambda kind, data: page.tell(kind, json.dumps(data))))
