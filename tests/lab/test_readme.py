"""The README's commands do what it says, as they are printed."""

import os
import re
import shutil
import subprocess
from pathlib import Path

from lab.paths import ROOT

README = (ROOT / "README.md").read_text()


def test_the_first_command_installs_all_and_runs_examples_on_a_fresh_clone(tmp_path: Path) -> None:
    command = re.findall(r"^```sh\n(.+?)\n```", README, re.MULTILINE | re.DOTALL)[0]
    assert "\n" not in command
    # One chapter; the job that is called so runs them all.
    command += " -- first_task"
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
    environment = {name: value for name, value in os.environ.items() if name not in ("LAB_PARENT", "REDIS_URL")}
    done = subprocess.run(
        command, shell=True, cwd=clone, env=environment, capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert re.search(r"^all +\d+ ", done.stdout + done.stderr, re.MULTILINE)
    assert (clone / "build" / "evidence.json").exists()
    shutil.rmtree(clone)


def test_every_job_that_is_named_is_there() -> None:
    named = set(re.findall(r"nox -s (\w+)", README + (ROOT / "CONTRIBUTING.md").read_text()))
    there = set(re.findall(r"^def (\w+)\(session", (ROOT / "noxfile.py").read_text(), re.MULTILINE))
    assert named <= there
    assert named
