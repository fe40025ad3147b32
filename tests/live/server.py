"""A live server, started as a reader does."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import requests

from lab.paths import ROOT
from lab.waiting import wait_until
from tests.bed import PATIENCE

_LINE = re.compile(r"(http://127\.0\.0\.1:(\d+)/)\?token=(\w+)")


@dataclass
class Server:
    """A live server that runs: its address, its token, its process, its log, its folder for what is temporary."""

    address: str
    token: str
    process: "subprocess.Popen[str]"
    log: Path
    tmp: Path

    def reader(self) -> requests.Session:
        """Return a session that has come in with the token, as a browser does."""
        session = requests.Session()
        session.get(self.address, params={"token": self.token}, timeout=PATIENCE).raise_for_status()
        return session

    def stop(self) -> None:
        """Press Ctrl-C and see that nothing is left but the log."""
        self.process.send_signal(signal.SIGINT)
        self.process.wait(PATIENCE)
        self.gone()

    def gone(self) -> None:
        """Wait until nothing of the server is left but its log, and remove that."""
        wait_until(lambda: list(self.tmp.iterdir()) == [self.log], PATIENCE, "the removal of every folder")
        shutil.rmtree(self.tmp)


def start(*argv: str, root: Path = ROOT, under: Path | None = None) -> Server:
    """Start a live server of the checkout `root` and wait until it says where it is.

    Its folder for what is temporary is made in `under`; without, in the system's, whose path is short as a reader's is.
    """
    tmp = Path(tempfile.mkdtemp(prefix="live-", dir=under))
    log = tmp / "live.log"
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "lab.pages.server", "--no-browser", *argv],
            cwd=root,
            stdout=out,
            stderr=out,
            text=True,
            start_new_session=True,
            env={**os.environ, "TMPDIR": str(tmp)},
        )
    wait_until(lambda: _LINE.search(log.read_text()) or process.poll() is not None, PATIENCE, "its address")
    found = _LINE.search(log.read_text())
    assert found, log.read_text()
    return Server(found[1], found[3], process, log, tmp)
