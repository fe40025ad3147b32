"""A live server, started as a reader does."""

import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import requests

from lab.paths import ROOT
from tests.bed import until

_LINE = re.compile(r"(http://127\.0\.0\.1:(\d+)/)\?token=(\w+)")


@dataclass
class Server:
    """A live server that runs: its address, its token, its process."""

    address: str
    token: str
    process: "subprocess.Popen[str]"
    log: Path

    def reader(self) -> requests.Session:
        """Return a session that has come in with the token, as a browser does."""
        session = requests.Session()
        session.get(self.address, params={"token": self.token}, timeout=20).raise_for_status()
        return session

    def stop(self) -> None:
        """Press Ctrl-C."""
        self.process.send_signal(signal.SIGINT)
        self.process.wait(20)


def start(tmp: Path, *argv: str, root: Path = ROOT) -> Server:
    """Start a live server of the checkout `root` and wait until it says where it is."""
    tmp.mkdir(exist_ok=True)
    log = tmp / "live.log"
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "lab.live", "--no-browser", *argv],
            cwd=root,
            stdout=out,
            stderr=out,
            text=True,
            start_new_session=True,
            env={**os.environ, "TMPDIR": str(tmp)},
        )
    until(lambda: _LINE.search(log.read_text()) or process.poll() is not None, 90, "the live server's address")
    found = _LINE.search(log.read_text())
    assert found, log.read_text()
    return Server(found[1], found[3], process, log)
