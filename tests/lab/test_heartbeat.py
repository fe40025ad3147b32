"""A measurement is void when the machine was late, whatever its colour, and only then."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from lab.paths import BUILD, ROOT
from tests.bed import Bed, Outcome

TASKS = """from celery import shared_task


@shared_task
def greet():
    return "Hello"
"""
# Each measurement is noted beside the chapter; of those of `late` the machine is late for the first `times`.
HELPERS = '''import os
import subprocess
import sys
from pathlib import Path

import pytest

from late.tasks import greet

NOTED = Path({noted!r})
STOP = "import os, signal, sys, time; pid = int(sys.argv[1]); os.kill(pid, signal.SIGSTOP); time.sleep(0.6); "
STOP += "os.kill(pid, signal.SIGCONT)"


def measure(rig, name, late=0, part="worker"):
    """Do something; while it lasts, stop a part of the lab for a while, at the first `late` measurements."""
    with NOTED.open("a") as noted:
        noted.write(name + "\\n")
    greet.delay()
    if NOTED.read_text().split().count(name) <= late:
        pid = {{"worker": rig.workers[0].pid, "test": os.getpid()}}[part]
        subprocess.run([sys.executable, "-c", STOP, str(pid)], check=True)
    assert len(rig.finished("late.tasks.greet")) == 1
'''


class LateBed(Bed):
    """A checkout of its own with one chapter, `late`, whose tests are given."""

    def __init__(self, tmp: Path) -> None:
        super().__init__(tmp)
        self.root = tmp.parent / "checkout"
        shutil.copytree(ROOT / "lab", self.root / "lab", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", self.root)
        self.chapter = self.root / "examples" / "late"
        self.chapter.mkdir(parents=True)
        (self.root / "examples" / "CHAPTERS").write_text("late\n")
        (self.chapter / "__init__.py").write_text("")
        (self.chapter / "tasks.py").write_text(TASKS)
        (self.root / "build").mkdir()
        # The project for such a chapter is made once.
        (BUILD / "projects").mkdir(parents=True, exist_ok=True)
        (self.root / "build" / "projects").symlink_to(BUILD / "projects")
        self.noted = tmp.parent / "noted"
        del self.env["LAB_EVIDENCE"]

    def prove(self, *tests: str, module: str = "lab") -> Outcome:
        """Run these tests as the chapter's."""
        helpers = HELPERS.format(noted=str(self.noted))
        (self.chapter / "test_late.py").write_text("\n\n".join([helpers, *tests]))
        return self.run("late", module=module)

    def measured(self, name: str) -> int:
        """Return how many times the measurement called `name` was taken."""
        return self.noted.read_text().split().count(name)

    def claims(self) -> dict[str, Any]:
        """Return the evidence's claims by their test's name."""
        evidence = json.loads((self.root / "build" / "evidence.json").read_text())
        return {claim["test"]: claim for claim in evidence["chapters"]["late"]["claims"]}


@pytest.fixture
def late(tmp_path: Path) -> LateBed:
    """A bed for one chapter."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    return LateBed(folder)


def claim(name: str, body: str, tolerance: float | None = 0.3) -> str:
    mark = f"@pytest.mark.timed({tolerance})\n" if tolerance else ""
    return f'{mark}def test_{name}(rig):\n    """A claim."""\n    {body}\n'


@pytest.mark.parametrize("part", ["worker", "test"])
def test_a_measurement_is_void_when_the_machine_was_late_green_or_red_alike(late: LateBed, part: str) -> None:
    done = late.prove(
        claim("green", f'measure(rig, "green", late=1, part="{part}")'),
        claim("red", f'measure(rig, "red", late=1, part="{part}"); assert late_for("red") == 2, "too early"'),
        claim("always_red", f'measure(rig, "always_red", late=1, part="{part}"); assert False, "never true"'),
        "def late_for(name):\n    return NOTED.read_text().split().count(name)\n",
    )
    assert {name: late.measured(name) for name in ("green", "red", "always_red")} == dict.fromkeys(
        ("green", "red", "always_red"), 2
    ), done.out
    claims = late.claims()
    assert {test: found["outcome"] for test, found in claims.items()} == {
        "test_green": "passed",
        "test_red": "passed",
        "test_always_red": "failed",
    }
    # What is kept is the second measurement, as if the first had not been.
    for found in claims.values():
        ((seconds,), runs) = found["void"], found["runs"]
        assert 0.3 < seconds < 30, found
        assert len(runs) == 1, runs
    assert re.search(r"^late +3 +\S+ +\S+ +3$", done.out, re.MULTILINE), done.out
    assert done.out.count("0.3 s; measured again") == 3, done.out


def test_a_measurement_that_was_on_time_is_taken_once_whatever_its_outcome(late: LateBed) -> None:
    done = late.prove(
        claim("green", 'measure(rig, "green")'),
        claim("red", 'measure(rig, "red"); assert False, "never true"'),
        claim("untimed", 'measure(rig, "untimed", late=1)', tolerance=None),
    )
    assert {name: late.measured(name) for name in ("green", "red", "untimed")} == {"green": 1, "red": 1, "untimed": 1}
    found = {test: (found["outcome"], found["void"]) for test, found in late.claims().items()}
    assert found == {"test_green": ("passed", []), "test_red": ("failed", []), "test_untimed": ("passed", [])}, done.out
    assert "never true" in done.out


def test_a_claim_that_is_void_twice_fails_the_run_with_that_reason_though_it_was_green(late: LateBed) -> None:
    done = late.prove(claim("green", 'measure(rig, "green", late=9)'))
    assert done.code != 0
    assert late.measured("green") == 2
    (found,) = late.claims().values()
    assert found["outcome"] == "void"
    assert len(found["void"]) == 2
    reason = r"test_green was not measured: the machine was \d+\.\d\d s late, the claim tolerates 0\.3 s; "
    assert re.search(reason + r"it was measured twice\. End what else keeps this machine busy", done.out), done.out
    assert re.search(r"^all +1 +\S+ +\S+ +2$", done.out, re.MULTILINE), done.out


def test_a_fourth_void_measurement_fails_the_run_with_that_reason(late: LateBed) -> None:
    names = ["first", "second", "third", "fourth", "fifth"]
    done = late.prove(*[claim(name, f'measure(rig, "{name}", late={int(name != "fifth")})') for name in names])
    assert done.code != 0
    assert [late.measured(name) for name in names] == [2, 2, 2, 1, 1], done.out
    assert [found["outcome"] for found in late.claims().values()] == ["passed", "passed", "passed", "void", "passed"]
    assert "a run may have 3 void measurements, this is number 4. End" in done.out


def test_a_break_whose_measurement_is_void_is_measured_again_and_twice_void_is_neither_caught_nor_missed(
    late: LateBed,
) -> None:
    # The control is on time: only with the break in it does the claim make the machine late.
    broken = '@pytest.mark.broken_by("no Hello", "tasks.py", old="Hello", new="Bye")\n'
    done = late.prove(
        "def broken():\n    return greet() == 'Bye'\n",
        # Both run side by side, so each counts its own.
        "def own(claim):\n    return f'{claim}-broken' if broken() else claim\n",
        broken + claim("again", 'measure(rig, own("again"), late=broken()); assert greet() == "Hello", "no Hello"'),
        broken + claim("never", 'measure(rig, own("never"), late=9 * broken()); assert greet() == "Hello", "no Hello"'),
        module="lab.falsify",
    )
    assert done.code != 0
    assert [late.measured(name) for name in ("again", "never")] == [1, 1], done.out
    assert [late.measured(f"{name}-broken") for name in ("again", "never")] == [2, 2], done.out
    assert re.search(r"✓ late: again\n", done.out), done.out
    assert re.search(r"✗ late: never\n.*neither caught nor not caught: test_never was not measured", done.out), done.out
    assert "1 of 2 breaks caught" in done.out
