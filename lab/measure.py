"""Measure a run of the examples: `nox -s bench`."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from pathlib import Path

import psutil

from lab import address, broker, evidence, project
from lab.errors import LabError, told
from lab.guard import Guard
from lab.paths import ROOT
from lab.waiting import wait_until

_SAMPLE = 0.25
_PATIENCE = 60.0


def cold_start() -> float:
    """Return the seconds from nothing to a worker that answers, each part started from the shell as on a server.

    Broker, a copy of the kept project, then supervisor.conf's own worker command in a new interpreter.
    """
    folder = Path(tempfile.mkdtemp(prefix="celery-faq-"))
    began = time.monotonic()
    guard = Guard(folder)
    server = broker.start(None, guard)
    copy = project.copy(folder)
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "lab.settings",
        "LAB_BROKER_URL": server.database(0),
        "LAB_DATABASE": str(copy / "lab.sqlite3"),
        "LAB_SECRET_KEY": "cold",
        "PYTHONPATH": os.pathsep.join([str(copy), str(ROOT / "examples"), str(ROOT)]),
    }
    (_, *arguments) = [part.replace("%(process_num)02d", "00") for part in project.command(copy, "worker")]
    with (folder / "worker.log").open("wb") as log:
        worker = subprocess.Popen(
            [sys.executable, "-m", "celery", *arguments],
            cwd=copy,
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    guard.register(worker.pid)
    try:
        from celery import Celery

        app = Celery(broker=address.for_celery(server.database(0)))
        wait_until(lambda: app.control.ping(timeout=0.2, limit=1) or worker.poll() is not None, _PATIENCE, "a pong")
        if worker.poll() is not None:
            raise LabError(f"The worker did not start; it printed:\n{(folder / 'worker.log').read_text()[-2000:]}")
        return time.monotonic() - began
    finally:
        worker.send_signal(signal.SIGKILL)
        worker.wait()
        server.stop()
        guard.finish()


class _Memory(threading.Thread):
    """Samples the proportional set size of a process and its children: shared pages are counted once."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._root = psutil.Process(pid)
        self.peak_each: dict[str, int] = defaultdict(int)
        self.peak_all = 0

    def run(self) -> None:
        while self._root.is_running():
            total = 0
            try:
                family = [self._root, *self._root.children(recursive=True)]
            except psutil.Error:
                return
            for process in family:
                try:
                    full = process.memory_full_info()
                    size = getattr(full, "pss", full.uss)
                    total += size
                    name = _role(process)
                    self.peak_each[name] = max(self.peak_each[name], size)
                except psutil.Error:
                    continue
            self.peak_all = max(self.peak_all, total)
            time.sleep(_SAMPLE)


def _role(process: psutil.Process) -> str:
    words = " ".join(process.cmdline())
    if "-server" in words:
        return "broker"
    if "guard.py" in words:
        return "guard"
    parent = process.parent()
    inside = parent is not None and "-m lab" in " ".join(parent.cmdline())
    # A forked worker keeps the command line of the process it was forked from.
    return "largest worker, beat or web server" if inside else "the run itself"


def main(argv: list[str]) -> int:
    """Run the examples once, in the environment that is there, and print ratio, shares and memory."""
    cold = cold_start()
    began = time.monotonic()
    run = subprocess.Popen([sys.executable, "-m", "lab", *argv], cwd=ROOT, env=os.environ)
    memory = _Memory(run.pid)
    memory.start()
    if run.wait():
        return run.returncode
    wall = time.monotonic() - began
    chapters = evidence.load()["chapters"].values()
    waiting = sum(chapter["waiting"] for chapter in chapters)
    inside = sum(chapter["seconds"] for chapter in chapters)
    print()
    for name, seconds in (
        ("the run, from command to prompt", wall),
        ("the subject’s own waiting", waiting),
        ("the rest of the tests", inside - waiting),
        ("start, workers not ready yet, evidence, end", wall - inside),
        ("one cold start of Alliance Auth", cold),
    ):
        print(f"{name:<42}{seconds:6.1f} s")
    print(f"{'ratio: run / (waiting + cold start)':<42}{wall / (waiting + cold):6.2f}")
    print("\npeak memory (proportional set size)")
    for name, size in sorted(memory.peak_each.items(), key=lambda pair: -pair[1]):
        print(f"{name:<42}{size / 2**20:6.0f} MB")
    print(f"{'all together at one time':<42}{memory.peak_all / 2**20:6.0f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(told(main))
