"""The heartbeat: a thread in each process of a timed claim's chapter notes how late the machine lets it wake.

It wants to wake fifty times a second. What kept it from that, be it other programs, a signal that stopped the process
or a held interpreter lock, kept the rest of its process from working too: a time that was measured meanwhile tells of
the machine, not of Celery. What it notes is in a file of its own, so that it stays when the process is killed.
"""

import os
import struct
import threading
import time
from pathlib import Path

import psutil

from lab.processes import lives

_HEARTS = "hearts"
_BEAT = 0.02
# Less than this nobody asks for.
_WORTH = 0.005
# A file begins with the last beat's time and the process group; for each late beat follow when it was due and came.
_HEAD = struct.Struct("=dq")
_LATE = struct.Struct("=dd")


def start(folder: Path) -> None:
    """Watch this process, and each that is forked from it or from one of those, if that is not done already."""
    hearts = folder / _HEARTS
    if hearts.exists():
        return
    hearts.mkdir()
    os.register_at_fork(after_in_child=lambda: _watch(hearts))
    _watch(hearts)


def _watch(hearts: Path) -> None:
    threading.Thread(target=_beat, args=(hearts, time.monotonic()), daemon=True, name="heartbeat").start()


def _beat(hearts: Path, due: float) -> None:
    try:
        file = os.open(hearts / str(os.getpid()), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        end = _HEAD.size
        while True:
            now = time.monotonic()
            if now - due > _WORTH:
                end += os.pwrite(file, _LATE.pack(due, now), end)
            os.pwrite(file, _HEAD.pack(now, os.getpgrp()), 0)
            due = now + _BEAT
            time.sleep(_BEAT)
    except OSError:
        # The run is over and its folder gone.
        return


def late(folder: Path, since: float, groups: set[int]) -> float:
    """Return by how many seconds, at most, a process of `groups` was late since the monotonic time `since`.

    A process that is overdue counts as late up to now; one that has ended, for what it noted before.
    """
    now = time.monotonic()
    worst = 0.0
    for path in (folder / _HEARTS).iterdir():
        noted = path.read_bytes()
        if len(noted) < _HEAD.size:
            continue
        last, group = _HEAD.unpack_from(noted)
        if group not in groups:
            continue
        places = range(_HEAD.size, len(noted) - _LATE.size + 1, _LATE.size)
        spans = [_LATE.unpack_from(noted, place) for place in places]
        pid = int(path.name)
        if psutil.pid_exists(pid) and lives(psutil.Process(pid)):
            spans.append((last + _BEAT, now))
        worst = max([worst, *(came - max(due, since) for due, came in spans)])
    return worst
