"""Lines are noted for the claim that executed them, also in processes that were there before it and are killed."""

import multiprocessing
import os
import signal
from multiprocessing.connection import Connection
from pathlib import Path

import coverage

from lab.lines import Lines
from lab.waiting import wait_until

_WORK = """
def first():
    return 1


def second():
    return 2
"""
_WANTED = {
    2: ["worker"],
    3: ["worker|chapter/test_one", "worker|chapter/test_two"],
    6: ["worker"],
    7: ["worker|chapter/test_two"],
}
_fork = multiprocessing.get_context("fork")


def _worker(folder: Path, line: Connection) -> None:
    """Do as a worker does: import, then take up what comes, and never end by itself."""
    from celery.signals import task_postrun, task_prerun

    lines = Lines("worker", folder)
    lines.listen()
    names: dict[str, object] = {}
    path = folder / "work.py"
    exec(compile(path.read_text(), str(path), "exec"), names)
    while True:
        name = line.recv()
        task_prerun.send(sender=name)
        names[name]()  # type: ignore[operator]
        task_postrun.send(sender=name)
        line.send("done")


def _noted(file: Path) -> dict[int, list[str]]:
    """Return which contexts a file of lines has for each line of the worker's work."""
    data = coverage.CoverageData(str(file))
    data.read()
    (path,) = data.measured_files() or [""]
    return {line: sorted(contexts) for line, contexts in data.contexts_by_lineno(path).items()}


def _run(folder: Path) -> None:
    """Run two claims on one worker, which is killed at the end."""
    lines = Lines("test", folder)
    ours, theirs = _fork.Pipe()
    worker = _fork.Process(target=_worker, args=(folder, theirs))
    worker.start()
    for claim, name in (("chapter/test_one", "first"), ("chapter/test_two", "second"), ("chapter/test_two", "first")):
        with lines.claim(claim):
            ours.send(name)
            ours.recv()
    wait_until(lambda: _noted(next((folder / "lines").glob("worker*"))) == _WANTED, 10, "the lines of the last task")
    assert worker.pid
    os.kill(worker.pid, signal.SIGKILL)
    worker.join()
    lines.end()


def test_a_worker_that_was_there_before_the_claims_and_is_killed_tells_which_ran_what(tmp_path: Path) -> None:
    (tmp_path / "lines").mkdir()
    (tmp_path / "work.py").write_text(_WORK)
    run = _fork.Process(target=_run, args=(tmp_path,))
    run.start()
    run.join()
    assert run.exitcode == 0
    (kept,) = (tmp_path / "lines").glob("worker*")
    assert _noted(kept) == _WANTED
