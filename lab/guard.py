"""The guard: a small process that outlives the run and leaves nothing behind.

A run that is killed with -9 can't clean up after itself. The guard is started first, in a session of its own, with
nothing but the standard library. It watches the run; when the run is gone, or says that it is done, the guard ends
every process the run has registered, removes the run's folder and, from what is lent to it, what the run has put there.
"""

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, cast

_POLL = 0.3
_GRACE = 3.0
_BORROWED = "borrowed-"


class Guard:
    """The run's side: start the guard, register processes, say that the run is done."""

    def __init__(self, folder: Path) -> None:
        """Start a guard over `folder`, which it removes in the end."""
        self.folder = folder
        (folder / "processes").touch()
        # The parent is watched too where one is named: nox killed with -9 must not leave the run behind.
        parent = os.environ.get("LAB_PARENT", "0")
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(folder), str(os.getpid()), parent],
            stdin=subprocess.PIPE,
            start_new_session=True,
            cwd="/",
        )

    def register(self, pid: int) -> None:
        """Hand process group `pid` to the guard."""
        with (self.folder / "processes").open("a") as registry:
            registry.write(f"{pid} {_started(pid)}\n")

    def part(self, parent: int) -> None:
        """Part this process, a fork of `parent`, from it: registered, in a session of its own."""
        self.register(os.getpid())
        os.setsid()
        if os.getppid() != parent:
            # The run was killed meanwhile, and the guard may have looked already.
            os._exit(1)

    def borrow(self, module: str, what: str) -> None:
        """Hand what is lent to the guard: in the end it runs `python -m module` on a file that holds `what`."""
        path = self.folder / f"{_BORROWED}{module}"
        path.touch(mode=0o600)
        path.write_text(what)

    def finish(self) -> bool:
        """Let the guard end what is left and wait until it has; return whether what was borrowed is given back."""
        with contextlib.suppress(OSError), cast(IO[bytes], self._process.stdin) as line:
            line.write(b"done")
        return self._process.wait() == 0


def _started(pid: int) -> str:
    """Return a mark that tells process `pid` from a later one with the same number; empty if it is gone."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    if Path("/proc/self").exists():
        # It is gone. To ask ps as well, for each of the thousands that a run of mutants has started, takes minutes.
        return ""
    listed = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return listed.stdout.strip().replace(" ", "_")


def _runs(pid: int, mark: str) -> bool:
    """Return whether process `pid` is the one with this mark, and more than a zombie."""
    with contextlib.suppress(OSError):
        if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            return False
    return bool(mark) and _started(pid) == mark


def _end(folder: Path) -> None:
    until = time.monotonic() + _GRACE
    # What is still there when the run is gone has nothing left to save. One that ends may have forked another.
    while any([_killed(group) for group in _groups(folder)]) and time.monotonic() < until:
        time.sleep(0.05)


def _groups(folder: Path) -> list[int]:
    lines = [line.partition(" ") for line in (folder / "processes").read_text().splitlines()]
    # A group outlives its leader where children were left behind; a number taken by another is not ours.
    return [int(pid) for pid, _, mark in lines if _started(int(pid)) in ("", mark)]


def _killed(group: int) -> bool:
    """Kill a group, or the process that is about to lead it; return whether there was any."""
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(group, signal.SIGKILL)
            return True
    return False


def _main(folder: Path, run: int, parent: int) -> int:
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    run_mark, parent_mark = _started(run), _started(parent) if parent else ""
    while True:
        readable, _, _ = select.select([sys.stdin], [], [], _POLL)
        if readable or not _runs(run, run_mark):
            break
        if parent and not _runs(parent, parent_mark):
            with contextlib.suppress(ProcessLookupError):
                os.kill(run, signal.SIGKILL)
            break
    _end(folder)
    code = 0
    for borrowed in sorted(folder.glob(f"{_BORROWED}*")):
        module = borrowed.name.removeprefix(_BORROWED)
        root = Path(__file__).resolve().parent.parent
        code |= subprocess.run([sys.executable, "-m", module, str(borrowed)], cwd=root, check=False).returncode
    shutil.rmtree(folder, ignore_errors=True)
    return code


if __name__ == "__main__":
    sys.exit(_main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
