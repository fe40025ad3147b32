"""Play calls on real parts, as the build's kernel does, and tell of their tasks: `python -m tests.online.real FILE`.

It reads the calls' paths from FILE, JSON, and writes over it what each one's tasks were, as `lab.events.record` has
them. A run that the machine held up tells of the machine: it is played again.
"""

import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from lab import broker, events, heartbeat, run, worker_log
from lab.pages.session import Session
from lab.paths import EXAMPLES, ROOT
from lab.spec import StageSpec
from lab.stage import Stages
from tests.online import compare

# A machine makes a run longer, never shorter: of so many the shortest counts. So late may it be in one that does.
_TIMES = 3
_LATE = 0.1
_VOIDS = 5
_PATIENCE = 60.0


def played(calls: list[str]) -> dict[str, list[dict[str, Any]]]:
    """Return the tasks of each call's run on real parts, in a process of their own: it forks."""
    with tempfile.NamedTemporaryFile("w+", suffix=".json") as file:
        json.dump(calls, file)
        file.flush()
        subprocess.run([sys.executable, "-m", "tests.online.real", file.name], check=True, cwd=ROOT)
        found: dict[str, list[dict[str, Any]]] = json.loads(Path(file.name).read_text())
        return found


def _play(session: Session, folder: Path, call: str) -> list[dict[str, Any]]:
    """Return the tasks of the shortest run that the machine did not hold up; of the shortest, if it held up all."""
    found = []
    for _ in range(_TIMES + _VOIDS):
        began = time.monotonic()
        runs = _once(session, call)
        groups = {os.getpgrp(), *(process.pid for process in session.stage.processes)}
        late = heartbeat.late(folder, began, groups) > _LATE
        found.append((late, compare.summary(runs)["seconds"], runs))
        if [late for late, *_ in found].count(False) == _TIMES:
            break
    return min(found, key=lambda one: one[:2])[2]


def _once(session: Session, call: str) -> list[dict[str, Any]]:
    source = compile((EXAMPLES / call).read_text(), "<call>", "exec")
    session.begin()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(Exception):
        exec(source, {"__name__": "__main__"})
    recorder = session.stage.recorder
    recorder.wait(lambda: not session.left() and session.stage.idle(), _PATIENCE, f"the end of all that {call} sent")
    return events.record(recorder.runs())


def main() -> int:
    """Play them all."""
    file = Path(sys.argv[1])
    with run.standing(broker.own()) as standing, contextlib.closing(Stages(standing)) as stages:
        heartbeat.start(standing.folder)
        worker_log.capture(standing.folder)
        stages.prepare(StageSpec())
        session = Session(stages)
        worker_log.show_here()
        found = {call: _play(session, standing.folder, call) for call in json.loads(file.read_text())}
    file.write_text(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
