"""In place of the poller of kombu's Redis transport: it waits at sockets, of which there are none.

The channel, which speaks Redis, is kombu's own.
"""

from collections.abc import Callable
from queue import Empty
from typing import Any

import kombu.transport
from kombu.transport import redis as transport
from kombu.transport import virtual
from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import loads

from lab.pages.browser.standins import memory


class Poller(transport.MultiChannelPoller):
    """kombu's own, for connections that can be asked at once."""

    def __init__(self) -> None:
        self._channels: set[Any] = set()
        self._fd_to_chan: dict[int, Any] = {}
        self._chan_to_sock: dict[Any, Any] = {}
        self._paused_brpop: dict[int, Any] = {}
        # Nothing is registered with it.
        self.poller = None
        self.after_read: set[Callable[[], None]] = set()

    def get(self, _callback: Callable[..., Any], timeout: float | None = None) -> None:
        """Deliver one message; wait up to `timeout` seconds for it, then raise `Empty`."""
        self._in_protected_read = True
        try:
            self.maybe_refresh_binding_expiry()
            if self._deliver():
                return
            memory.wait(timeout or 1.0)
            if self._deliver():
                return
            self.maybe_restore_messages()
            raise Empty
        finally:
            self._in_protected_read = False
            while self.after_read:
                self.after_read.pop()()

    def _deliver(self) -> bool:
        return any(self._listen(channel) or self._pop(channel) for channel in list(self._channels))

    def _listen(self, channel: Any) -> bool:
        if not channel.active_fanout_queues:
            return False
        listener = channel.subclient
        if listener.connection is None:
            listener.connection = listener.connection_pool.get_connection()
        if not channel._in_listen:
            channel._subscribe()
        while listener.connection.can_read(timeout=0):
            if channel._receive_one(listener):
                return True
        return False

    def _pop(self, channel: Any) -> bool:
        if not channel.active_queues or not channel.qos.can_consume():
            return False
        # As BRPOP is asked: every priority step, in each every queue.
        queues = channel._queue_cycle.consume(len(channel.active_queues))
        for step in channel.priority_steps:
            for queue in queues:
                item = channel.client.rpop(channel._q_for_pri(queue, step))
                if item:
                    channel._queue_cycle.rotate(queue)
                    channel.connection._deliver(loads(bytes_to_str(item)), queue)
                    return True
        return False


class Channel(transport.Channel):
    """kombu's own, on the Redis in memory."""

    connection_class = memory.Connection


class Transport(transport.Transport):
    """kombu's own, with the other poller."""

    Channel = Channel
    # Celery then runs its loop for transports that block.
    implements = transport.Transport.implements.extend(asynchronous=False)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        virtual.Transport.__init__(self, *args, **kwargs)
        self.cycle = Poller()  # type: ignore[assignment]


def install() -> None:
    """Let `redis://` mean this transport."""
    kombu.transport.TRANSPORT_ALIASES["redis"] = f"{__name__}:Transport"
