"""A way to run the lab as a user does."""

import contextlib
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from lab.paths import ROOT


@dataclass
class Outcome:
    """What a finished run of the lab left."""

    code: int
    out: str
    err: str
    seconds: float

    @property
    def sentence(self) -> str:
        """The one line on standard error."""
        lines = [line for line in self.err.splitlines() if line.strip()]
        assert len(lines) == 1, f"not one sentence but {len(lines)} lines: {self.err}"
        return lines[0]


# Only what is broken takes so long: a busy machine may take its time.
PATIENCE = 120.0


def slowness() -> float:
    """Return how many times longer work takes on this machine, now, than if it had nothing else to do."""
    before = os.times()
    subprocess.run([sys.executable, "-c", "sum(number % 7 for number in range(5_000_000))"], check=True)
    after = os.times()
    given = after.children_user + after.children_system - before.children_user - before.children_system
    return max(1.0, (after.elapsed - before.elapsed) / given)


class Bed:
    """Runs `python -m lab` with a temporary folder of its own."""

    def __init__(self, tmp: Path) -> None:
        self.tmp = tmp
        self.root = ROOT
        self.env = {**os.environ, "TMPDIR": str(tmp), "LAB_EVIDENCE": str(tmp.parent / "evidence.json")}
        self.env.pop("REDIS_URL", None)
        self.env.pop("LAB_PARENT", None)

    def run(self, *argv: str, module: str = "lab", **env: str) -> Outcome:
        """Run to the end."""
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", module, *argv],
            cwd=self.root,
            env={**self.env, **env},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        return Outcome(done.returncode, done.stdout, done.stderr, time.monotonic() - began)

    def refused(self, *argv: str, words: str, **env: str) -> Outcome:
        """Run, and demand one sentence with `words` in it, as soon as an idle machine gives it, and nothing left."""
        done = self.run(*argv, **env)
        assert done.code != 0
        assert words in done.sentence
        assert done.seconds / slowness() < 10
        assert not self.folders()
        return done

    def start(self, *argv: str, **env: str) -> subprocess.Popen[bytes]:
        """Start and return at once; what it says is in `told()`."""
        with (self.tmp.parent / "told").open("ab") as told:
            return subprocess.Popen(
                [sys.executable, "-m", "lab", *argv],
                cwd=self.root,
                env={**self.env, **env},
                stdout=told,
                stderr=told,
                start_new_session=True,
            )

    def told(self) -> str:
        """Return what the started runs have said so far."""
        return (self.tmp.parent / "told").read_text(errors="replace")

    def folders(self) -> list[Path]:
        """Return the runs' folders that are there."""
        return list(self.tmp.glob("celery-faq-*"))

    def registered(self) -> list[psutil.Process]:
        """Return the processes that the runs have registered with their guards, and the guards, as far as alive."""
        found = []
        for registry in self.tmp.glob("celery-faq-*/processes"):
            with contextlib.suppress(OSError):
                for line in registry.read_text().splitlines():
                    with contextlib.suppress(psutil.NoSuchProcess):
                        found.append(psutil.Process(int(line.split()[0])))
        for process in psutil.process_iter(["cmdline"]):
            words = process.info["cmdline"] or []
            if any(word.startswith(str(self.tmp)) for word in words):
                found.append(process)
        return found
