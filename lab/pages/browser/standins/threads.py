"""In place of threads, which Python has not in a browser: stacks that take turns, in virtual time.

One stack runs at a time. It gives way where a thread would wait: for time, a lock, a message, a thread's end. The clock
then jumps to whoever is due first. `install` comes before any other import, as modules keep what they import; from then
on `threading`, `queue` and `concurrent.futures` are Python's own on these locks and stacks.

Not the same: a stack that computes is never interrupted, and context variables belong to the whole process.
"""

import _thread
import heapq
import itertools
import sys
import threading
import time
import types
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol


class Engine(Protocol):
    """What switches stacks: the browser's JSPI in `lab.pages.browser.jspi`; tests bring another."""

    def skip(self, seconds: float) -> None:
        """Let the clock jump."""

    def gate(self) -> Any:
        """Return something that `wait` waits for and `open` opens."""

    def open(self, gate: Any) -> None:
        """Let the stack go on that waits at `gate`, once the running one has given way."""

    def wait(self, gate: Any) -> None:
        """Give way until `gate` is open."""

    def spawn(self, function: Callable[[], None]) -> None:
        """Run `function` on a stack of its own, once the running one has given way."""


class Stack:
    """What runs in the place of a thread."""

    def __init__(self, ident: int) -> None:
        self.ident = ident
        # Counts its turns: an appointment of an earlier turn is void, and so is a second one of the same.
        self.turn = 0
        self.resume: Callable[[], None] = lambda: None


class Scheduler:
    """Lets the stacks take turns."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.current = Stack(_thread.get_ident())
        self._idents = itertools.count(self.current.ident + 1)
        self._order = itertools.count()
        self._due: list[tuple[float, int, Stack, int]] = []
        # Called by each stack that takes over.
        self.taken_over: Callable[[], None] = lambda: None

    def park(self, until: float | None = None) -> None:
        """Give way until somebody calls `wake`, at most until the clock shows `until`."""
        me = self.current
        me.turn += 1
        if until is not None:
            self._appoint(me, until)
        following = self._next()
        if following is me:
            return
        gate = self.engine.gate()
        me.resume = lambda: self.engine.open(gate)
        following.resume()
        self.engine.wait(gate)
        self.current = me
        self.taken_over()

    def stand_back(self, turns: int) -> None:
        """Give way until nobody else can go on, at most for `turns` of their turns, however long each computes."""
        for _ in range(turns):
            if (at := self._soonest()) is None or at > time.monotonic():
                return
            # Behind who is due at the same time.
            self.park(at)

    def wake(self, stack: Stack) -> None:
        """Let `stack` go on as soon as this one gives way."""
        self._appoint(stack, time.monotonic())

    def spawn(self, function: Callable[[], None]) -> Stack:
        """Start `function` on a new stack as soon as this one gives way."""
        stack = Stack(next(self._idents))

        def body() -> None:
            self.current = stack
            self.taken_over()
            try:
                function()
            finally:
                stack.turn = -1
                self._next().resume()

        stack.resume = lambda: self.engine.spawn(body)
        self.wake(stack)
        return stack

    def _appoint(self, stack: Stack, at: float) -> None:
        heapq.heappush(self._due, (at, next(self._order), stack, stack.turn))

    def _soonest(self) -> float | None:
        while self._due and self._due[0][3] != self._due[0][2].turn:
            heapq.heappop(self._due)
        return self._due[0][0] if self._due else None

    def _next(self) -> Stack:
        if (at := self._soonest()) is None:
            raise RuntimeError("every thread waits for another one: nothing can go on any more")
        stack = heapq.heappop(self._due)[2]
        self.engine.skip(max(0.0, at - time.monotonic()))
        stack.turn += 1
        return stack


SCHEDULER: Scheduler


class Lock:
    """`threading.Lock` between stacks."""

    def __init__(self) -> None:
        self._held = False
        self._waiting: deque[Stack] = deque()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take it; wait where another stack has it."""
        if not blocking and timeout != -1:
            raise ValueError("can't specify a timeout for a non-blocking call")
        until = None if timeout < 0 else time.monotonic() + timeout
        while self._held:
            if not blocking or (until is not None and time.monotonic() >= until):
                return False
            me = SCHEDULER.current
            self._waiting.append(me)
            SCHEDULER.park(until)
            if me in self._waiting:
                self._waiting.remove(me)
        self._held = True
        return True

    def release(self) -> None:
        """Give it back; who has waited longest is next."""
        if not self._held:
            raise RuntimeError("release unlocked lock")
        self._held = False
        if self._waiting:
            SCHEDULER.wake(self._waiting.popleft())

    def locked(self) -> bool:
        """Whether a stack has it."""
        return self._held

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()

    def _at_fork_reinit(self) -> None:
        self.__init__()  # type: ignore[misc]


class _Handle:
    """What `threading.Thread` holds of its thread."""

    def __init__(self) -> None:
        self.ident = 0
        self._ended = Lock()
        self._ended.acquire()

    def is_done(self) -> bool:
        return not self._ended.locked()

    def join(self, timeout: float | None = None) -> None:
        if self._ended.acquire(timeout=-1 if timeout is None else max(0.0, timeout)):
            self._ended.release()

    def _set_done(self) -> None:
        if self._ended.locked():
            self._ended.release()


def _start(function: types.MethodType, *, handle: _Handle, daemon: bool = True) -> None:
    """`_thread.start_joinable_thread` for `threading.Thread`, the only one that calls it."""
    # A context can be left by the stack that entered it last only.
    function.__self__._context = types.SimpleNamespace(run=lambda run: run())  # type: ignore[attr-defined]

    def body() -> None:
        try:
            function()
        except BaseException:
            sys.excepthook(*sys.exc_info())
            raise
        finally:
            handle._set_done()

    handle.ident = SCHEDULER.spawn(body).ident


def _refuse(*_: object, **__: object) -> None:
    raise NotImplementedError("only threading.Thread starts threads here")


def sleep(seconds: float) -> None:
    """`time.sleep` in virtual time."""
    if seconds < 0:
        raise ValueError("sleep length must be non-negative")
    SCHEDULER.park(time.monotonic() + seconds)


def main() -> bool:
    """Whether the stack that runs is Python's main thread: the call."""
    return ident() == threading.main_thread().ident


def ident() -> int:
    """`threading.get_ident`: the number of the stack that runs."""
    return SCHEDULER.current.ident


def install(engine: Engine) -> None:
    """Put the stacks in the place of threads, in this whole process."""
    global SCHEDULER
    SCHEDULER = Scheduler(engine)
    both: dict[str, Any] = {"get_ident": ident, "_ThreadHandle": _Handle}
    low = {"allocate_lock": Lock, "lock": Lock, "LockType": Lock, "start_joinable_thread": _start}
    high = {"Lock": Lock, "_allocate_lock": Lock, "_LockType": Lock, "_CRLock": None, "_start_joinable_thread": _start}
    for module, values in ((_thread, both | low | {"start_new_thread": _refuse}), (threading, both | high)):
        for name, value in values.items():
            setattr(module, name, value)
    _thread.RLock = threading._PyRLock  # type: ignore[attr-defined, misc]
    # Python's own substitute, by `current_thread`; C's is by the only real thread.
    import _threading_local

    threading.local = _threading_local.local  # type: ignore[assignment]
    _thread._local = _threading_local.local  # type: ignore[misc, assignment]
    import queue

    queue.SimpleQueue = queue._PySimpleQueue  # type: ignore[attr-defined, misc]
    time.sleep = sleep  # type: ignore[assignment]
