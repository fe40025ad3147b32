"""Read, edit and run the examples in your browser: build the pages, serve them. `nox -s live` starts it."""

import argparse
import fcntl
import ipaddress
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from lab.errors import LabError
from lab.guard import Guard
from lab.pages.server.app import PAGES, serve
from lab.paths import BUILD, ROOT


def main(argv: list[str]) -> int:
    """Build the pages, start the server, open the site; Ctrl-C ends it."""
    parser = argparse.ArgumentParser(prog="nox -s live --", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="the port; a free one, if none is named")
    parser.add_argument("--ip", default="127.0.0.1", help="the address to listen on")
    parser.add_argument("--let-others-in", action="store_true", help="needed for an address that is not loopback")
    parser.add_argument("--no-browser", action="store_true", help="print the address, open nothing")
    known = parser.parse_args(argv)
    folder = Path(tempfile.mkdtemp(prefix="celery-faq-"))
    guard = Guard(folder)
    try:
        _free_port(known.ip, known.port, known.let_others_in)
        began = time.monotonic()
        _say(began, "Building the pages (no block is run for this; your own Run does that)")
        _build()
        _say(began, "Starting the server, and a broker, Alliance Auth and a worker for the first page")
        serve(
            folder,
            known.ip,
            # Looked for again: from here on nobody else is to take it.
            _free_port(known.ip, known.port, known.let_others_in),
            let_others_in=known.let_others_in,
            open_browser=not known.no_browser,
            ready=lambda address: _say(began, f"Read, edit and run at {address}  (Ctrl-C ends it)"),
        )
    except LabError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        pass
    finally:
        guard.finish()
    return 0


def _say(began: float, text: str) -> None:
    print(f"{time.monotonic() - began:5.1f} s  {text}", flush=True)


def _free_port(ip: str, port: int, others: bool) -> int:
    """Return the port that the server can have now; `LabError` where address or port can't be had."""
    try:
        address = ipaddress.ip_address(ip)
    except ValueError:
        raise LabError(f"--ip {ip} is no address: give 127.0.0.1, or another address of this machine.") from None
    if not address.is_loopback and not others:
        raise LabError(
            f"--ip {ip} would let other machines run code here: add --let-others-in if that is what you want."
        )
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    try:
        with socket.create_server((ip, port), family=family) as probe:
            return int(probe.getsockname()[1])
    except OSError as error:
        why = os.strerror(error.errno or 0)
        raise LabError(f"Port {port} on {ip} can't be had ({why}): name another with --port.") from None


def _build() -> None:
    command = [sys.executable, "-m", "sphinx", "-q", "-j", "auto", "-b", "html", "-t", "live", "-c", str(ROOT)]
    command += ["-d", str(BUILD / "doctrees-live"), str(ROOT / "docs"), str(PAGES)]
    BUILD.mkdir(exist_ok=True)
    # Two servers of one checkout share the pages: one builds them, the other finds them built.
    with (BUILD / "live.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LabError(f"The pages can't be built: {done.stderr.strip().splitlines()[-1] if done.stderr else '?'}")


code = main(sys.argv[1:])
sys.stdout.flush()
# All is ended and saved. Python would take every object apart first, half a second of work that a busy machine
# stretches to many.
os._exit(code)
