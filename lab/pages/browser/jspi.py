"""Switches stacks in the browser: WebAssembly's JavaScript Promise Integration (JSPI)."""

from collections.abc import Callable
from typing import Any

from js import clock
from pyodide.ffi import create_proxy, run_sync


class Jspi:
    """An `Engine` for the stacks; a gate is a promise with its resolvers."""

    def skip(self, seconds: float) -> None:
        """Let all clocks of this Web Worker jump."""
        clock.skip(seconds * 1000)

    def gate(self) -> Any:
        """Return a promise that is open to be resolved."""
        return clock.gate()

    def open(self, gate: Any) -> None:
        """Resolve it."""
        gate.resolve()

    def wait(self, gate: Any) -> None:
        """Suspend this stack until it is resolved."""
        run_sync(gate.promise)

    def spawn(self, function: Callable[[], None]) -> None:
        """Call `function` on a new stack."""
        clock.spawn(create_proxy(function))
