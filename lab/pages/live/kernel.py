"""What a live page gets beside Jupyter's own messages: `display_data` of four kinds.

`LOG`, lines of the worker as they come; `WAIT`, how many tasks have not ended where nothing happens any more; `RUN`,
when a cell and all that it sent has ended, its lines in order and a timeline of its tasks; `BROKER`, what the broker
holds, whenever that changes.
"""

import sys
import threading
import time
from typing import Any

import redis
from kombu.exceptions import OperationalError
from redis.backoff import NoBackoff
from redis.retry import Retry

from lab import order
from lab.errors import LabError
from lab.pages.kernel import PageKernel
from lab.pages.live.session import LiveSession
from lab.pages.live.shown import held, timeline

LOG = "application/vnd.celery-faq.log+json"
WAIT = "application/vnd.celery-faq.wait+json"
RUN = "application/vnd.celery-faq.run+json"
BROKER = "application/vnd.celery-faq.broker+json"
_TICK = 0.03
_LOOK = 0.25


class LiveKernel(PageKernel):
    """Runs a cell, tells what comes of it while it lasts, and sees it through to the end of all that it sent."""

    page_session: LiveSession
    _parent: dict[str, Any] | None = None
    _count = 0

    def start(self) -> None:
        """Take cells, and watch the session; `%%tasks chains.tasks` defines that module's tasks anew."""
        super().start()
        self.shell.register_magic_function(self.page_session.define, "cell", "tasks")
        threading.Thread(target=self.watch, daemon=True).start()
        # What the page's first Run would otherwise spend on first imports.
        self.page_session.database.reset()

    def publish(self, kind: str, data: object) -> None:
        """Send the page something of ours; from any thread."""
        shown = {"data": {kind: data}, "metadata": {}, "transient": {}}
        self.session.send(self.iopub_socket, "display_data", shown, parent=self._parent)

    def watch(self) -> None:
        """Send log lines and the broker's state as they come, for as long as the process lives."""
        # Without a retry: that the broker is gone is told at once, not after redis-py's four seconds.
        client = redis.Redis.from_url(self.page_session.stage.url, retry=Retry(NoBackoff(), 0))
        last: object = None
        look = 0.0
        while True:
            time.sleep(_TICK)
            self.stream()
            if time.monotonic() < look:
                continue
            look = time.monotonic() + _LOOK
            try:
                now = {"broker": "up", **held(client)}
            except redis.RedisError:
                now = {"broker": "gone"}
            now["worker"] = "up" if self.page_session.worker_alive() else "gone"
            if now != last:
                last = now
                self.publish(BROKER, now)

    def stream(self) -> None:
        """Send the worker's new lines."""
        if new := self.page_session.log.read():
            self.publish(LOG, order.lines(new, []))

    async def do_execute(self, code: str, silent: bool, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Run a cell; see it through to the end of all that it sent."""
        self._parent = self.get_parent()
        began = time.monotonic()
        reply, stopped = await self._through(code, silent, *args, **kwargs)
        # What the cell printed comes before the message that ends it.
        sys.stdout.flush()
        sys.stderr.flush()
        self.stream()
        seconds = time.monotonic() - began
        self._count += 1
        self.publish(
            RUN,
            {
                "lines": self.page_session.report(),
                "figure": timeline(self.page_session.stage.recorder.runs(), f"live-{self._count}", seconds),
                "seconds": round(seconds, 3),
                "stopped": stopped,
            },
        )
        return reply

    async def _through(self, code: str, silent: bool, *args: Any, **kwargs: Any) -> tuple[dict[str, Any], bool]:
        """Return the cell's reply, and whether it was stopped, when all that it sent has ended."""
        reply: dict[str, Any] = {}
        try:
            if not self.page_session.worker_alive():
                self.publish(LOG, ["The worker had ended; a new one starts."])
                self.page_session.replace_worker()
            self.page_session.begin()
            reply = await super().do_execute(code, silent, *args, **kwargs)
            stopped = reply.get("ename") == "KeyboardInterrupt" or self._stopped_while_it_waits()
            if stopped:
                self.page_session.replace_worker()
            return reply, stopped
        except (LabError, TimeoutError) as error:
            reply = self.failed(reply, "WorkerGone", str(error))
        except (redis.RedisError, OperationalError, OSError):
            reply = self.failed(reply, "BrokerGone", "the broker ended; Run starts it anew")
        return reply, False

    def _stopped_while_it_waits(self) -> bool:
        """Wait for the end of all that the cell sent, and return whether the reader pressed Stop meanwhile."""
        told = 0
        try:
            while self.page_session.running():
                if self.page_session.waits_for() != told:
                    told = self.page_session.waits_for()
                    self.publish(WAIT, told)
                if not self.page_session.worker_alive():
                    raise LabError("the worker ended while tasks were left; run again")
        except KeyboardInterrupt:
            return True
        return False
