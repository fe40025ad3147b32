"""Which kernel a page gets, and when that ends."""

import asyncio
import contextlib
from typing import Any

import psutil
from jupyter_server.services.kernels.kernelmanager import AsyncMappingKernelManager, ServerKernelManager
from tornado.ioloop import IOLoop
from tornado.web import HTTPError

from lab.pages.sockets import Sockets
from lab.processes import lives
from lab.waiting import wait_until

# A kernel that died or did not answer within so many seconds is replaced by another, so many times.
_ANSWERS = 90.0
_TRIES = 3
# A kernel that was handed out is ended where no page has connected to it after so many seconds.
_UNCLAIMED = 20.0
# So long the server's end waits for what its kernels have started.
_LINGER = 20.0
# So long after a page took the spare kernel the next is started: the page's own comes first.
_LATER = 3.0


class LiveManager(Sockets, ServerKernelManager):  # type: ignore[misc]
    """What jupyter-server holds of a kernel."""


class Kernels(AsyncMappingKernelManager):  # type: ignore[misc]
    """A kernel for each page; one is always started ahead, so that a first Run does not wait for Alliance Auth."""

    _spare: asyncio.Task[str] | None = None
    _later: asyncio.TimerHandle | None = None

    async def start_kernel(self, **_kwargs: Any) -> str:
        """Hand out the spare kernel if it lives, else a new one; start the next spare a little later."""
        if self._later:
            self._later.cancel()
        spare, self._spare = self._spare, None
        kernel = await (self._start() if spare is None or _failed(spare) else spare)
        if kernel not in self or not await self.is_alive(kernel):
            kernel = await self._start()
        loop = asyncio.get_running_loop()
        self._later = loop.call_later(_LATER, self.refill)
        # The page may have been left meanwhile.
        loop.call_later(_UNCLAIMED, self._end_if_left, kernel)
        return kernel

    def refill(self) -> None:
        """Start the next spare in the background."""
        self._spare = asyncio.create_task(self._start())
        # What becomes of it is told to the page that takes it.
        self._spare.add_done_callback(_failed)

    async def _start(self) -> str:
        """Start kernels until one answers, and return its id."""
        for _ in range(_TRIES):
            kernel: str = await super().start_kernel()
            client = self.get_kernel(kernel).client()
            client.start_channels()
            try:
                await client.wait_for_ready(timeout=_ANSWERS)
                return kernel
            except RuntimeError:
                await self._end(kernel)
            finally:
                client.stop_channels()
        raise HTTPError(503, "no kernel starts; the terminal with nox -s live shows why")

    def notify_disconnect(self, kernel_id: str) -> None:
        """End the kernel of a page that was left; none ever comes back to its kernel."""
        super().notify_disconnect(kernel_id)
        self._end_if_left(kernel_id)

    def _end_if_left(self, kernel: str) -> None:
        if not self._kernel_connections.get(kernel):
            IOLoop.current().add_callback(self._end, kernel)

    async def _end(self, kernel: str) -> None:
        if kernel in self:
            # It may be busy for ever, and has nothing to save; its guard ends what it has started.
            await self.shutdown_kernel(kernel, now=True)

    async def shutdown_all(self, now: bool = True) -> None:
        """End every kernel at once, and start no more."""
        if self._later:
            self._later.cancel()
        if self._spare:
            self._spare.cancel()
        me = psutil.Process()
        behind = set(me.children(recursive=True)) - set(me.children())
        await super().shutdown_all(now=now)
        # Among them is each kernel's guard, which ends last.
        with contextlib.suppress(TimeoutError):
            wait_until(lambda: not any(map(lives, behind)), _LINGER, "the end of all that kernels had started")


def _failed(start: asyncio.Task[str]) -> bool:
    return start.done() and (start.cancelled() or start.exception() is not None)
