"""Lines are noted for the claim that executed them, also in processes that were there before it and are killed."""

import multiprocessing
import os
import signal
from multiprocessing.connection import Connection
from pathlib import Path

from lab import lines

_fork = multiprocessing.get_context("fork")


def _worker(folder: Path, path: Path, line: Connection) -> None:
    """Do as a worker does: take up what comes, and never end by itself."""
    from celery.signals import task_prerun, task_revoked

    lines.Lines("worker", folder)
    names = lines.run(path, {})
    while True:
        name = line.recv()
        if name == "thrown_away":
            task_revoked.send(sender=name)
        else:
            task_prerun.send(sender=name)
            names[name]()
        line.send("done")


_CLAIMS = (("chapter/test_one", "first"), ("chapter/test_two", "second"), ("chapter/test_two", "first"))


def _run(folder: Path, path: Path, claims: tuple[tuple[str, str], ...]) -> None:
    """Run claims on one worker, which is killed at the end."""
    noting = lines.Lines("test", folder)
    ours, theirs = _fork.Pipe()
    worker = _fork.Process(target=_worker, args=(folder, path, theirs))
    worker.start()
    for claim, name in claims:
        with noting.claim(claim):
            ours.send(name)
            ours.recv()
    assert worker.pid
    os.kill(worker.pid, signal.SIGKILL)
    worker.join()


def _noted(folder: Path, text: str, claims: tuple[tuple[str, str], ...] = _CLAIMS) -> dict[int, set[str]]:
    (folder / "lines").mkdir()
    path = folder / "work.py"
    path.write_text(text)
    run = _fork.Process(target=_run, args=(folder, path, claims))
    run.start()
    run.join()
    assert run.exitcode == 0
    return lines.read(folder)[str(path)]


def test_a_worker_that_was_there_before_the_claims_and_is_killed_tells_which_ran_what(tmp_path: Path) -> None:
    text = "def first():\n    return 1\n\n\ndef second():\n    return 2\n"
    assert _noted(tmp_path, text) == {
        1: {"worker|"},
        2: {"worker|chapter/test_one", "worker|chapter/test_two"},
        5: {"worker|"},
        6: {"worker|chapter/test_two"},
    }


def test_what_answers_the_end_of_a_task_that_never_began_is_noted_for_its_claim(tmp_path: Path) -> None:
    text = "from celery.signals import task_revoked\n\n\n@task_revoked.connect\ndef thrown_away(**_):\n    return 1\n"
    assert _noted(tmp_path, text, (("chapter/test_one", "thrown_away"),))[6] == {"worker|chapter/test_one"}


_BRANCHES = """\
from __future__ import annotations

def first():
    "Says nothing."
    if not second:
        return 1
    elif second:
        for _ in range(2):
            pass
        else:
            x = 1
    try:
        x.none
    except KeyError:
        x = 2
    except AttributeError:
        x = 3
    finally:
        x = 4

second = first
"""


def test_only_the_branches_that_were_taken_are_noted(tmp_path: Path) -> None:
    ran = {line for line, contexts in _noted(tmp_path, _BRANCHES).items() if "worker|chapter/test_one" in contexts}
    assert ran == {5, 7, 8, 9, 11, 12, 13, 16, 17, 19}


def test_a_line_that_a_killed_process_left_torn_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "lines").mkdir()
    (tmp_path / "lines" / "worker-1").write_text("chapter/test_one\t/tasks.py\t3\nchapter/test_o")
    assert lines.read(tmp_path) == {"/tasks.py": {3: {"worker|chapter/test_one"}}}
