"""The live server: the site and its kernels on one origin, behind a token. `nox -s live` starts it."""

import argparse
import asyncio
import contextlib
import fcntl
import ipaddress
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
from jupyter_server.base.handlers import JupyterHandler
from jupyter_server.serverapp import ServerApp
from jupyter_server.services.contents.largefilemanager import AsyncLargeFileManager
from jupyter_server.services.kernels.kernelmanager import AsyncMappingKernelManager, ServerKernelManager
from tornado.web import HTTPError, StaticFileHandler, authenticated, url
from traitlets.config import Config

from lab.errors import LabError
from lab.guard import Guard
from lab.kernel import NAME
from lab.paths import BUILD, ROOT
from lab.processes import lives, wait_until
from lab.sockets import Sockets

PAGES = BUILD / "live"
# A kernel that died or did not answer within so many seconds is replaced by another, so many times.
_ANSWERS = 90.0
_TRIES = 3
# A kernel that was handed out is ended where no page has connected to it after so many seconds.
_UNCLAIMED = 20.0
# So long the server's end waits for what its kernels have started.
_LINGER = 20.0
# So long after a page took the spare kernel the next is started: the page's own comes first.
_LATER = 3.0


class Page(JupyterHandler, StaticFileHandler):  # type: ignore[misc]
    """A file of the built site, for those who hold the token."""

    @property
    def content_security_policy(self) -> str:
        """Let a page speak with its own origin alone."""
        return (
            "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
            "img-src 'self' data:; frame-ancestors 'none'; base-uri 'self'; form-action 'self'"
        )

    def compute_etag(self) -> str | None:
        """Let the browser ask whether a page has changed."""
        return StaticFileHandler.compute_etag(self)  # type: ignore[no-any-return]

    @authenticated  # type: ignore[untyped-decorator]
    async def get(self, path: str, include_body: bool = True) -> None:
        """Send the file; the XSRF cookie goes with it, as the page's script needs it."""
        _ = self.xsrf_token
        await StaticFileHandler.get(self, path, include_body)

    @authenticated  # type: ignore[untyped-decorator]
    async def head(self, path: str) -> None:
        """Send the headers."""
        await self.get(path, include_body=False)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Answer a wrong address with the site's own page."""
        missing = PAGES / "404.html"
        if status_code == 404 and missing.exists():
            self.set_header("Content-Type", "text/html; charset=UTF-8")
            self.finish(missing.read_bytes())
            return
        self.set_header("Content-Type", "text/plain; charset=UTF-8")
        self.finish(f"{status_code}: {self._reason}\n")

    def set_extra_headers(self, path: str) -> None:
        """Let the browser ask each time: pages of two starts share an address."""
        self.set_header("Cache-Control", "no-cache")


class Kernel(Sockets, ServerKernelManager):  # type: ignore[misc]
    """What jupyter-server holds of a kernel."""


class Kernels(AsyncMappingKernelManager):  # type: ignore[misc]
    """A kernel for each page; one is always started ahead, so that a first Run does not wait for Alliance Auth."""

    _spare: asyncio.Task[str] | None = None
    _later: asyncio.TimerHandle | None = None
    _ending: set[asyncio.Task[None]]

    def __init__(self, **kwargs: Any) -> None:
        """Hold no kernel yet."""
        super().__init__(**kwargs)
        self._ending = set()

    async def start_kernel(self, **_kwargs: Any) -> str:
        """Hand out the spare kernel if it lives, else a new one; start the next spare a little later."""
        if self._later:
            self._later.cancel()
        if self._spare is None or _failed(self._spare):
            self.refill()
        assert self._spare
        taken, self._spare = self._spare, None
        kernel = await taken
        if kernel not in self or not await self.is_alive(kernel):
            kernel = await self._start()
        loop = asyncio.get_running_loop()
        self._later = loop.call_later(_LATER, self.refill)
        # The page may have been left meanwhile.
        loop.call_later(_UNCLAIMED, self._end_if_left, kernel)
        return kernel

    def refill(self) -> None:
        """Start the next spare in the background."""
        self._spare = asyncio.create_task(self._start())
        # What becomes of it is told to the page that takes it.
        self._spare.add_done_callback(_failed)

    async def _start(self) -> str:
        """Start kernels until one answers, and return its id."""
        for _ in range(_TRIES):
            kernel: str = await super().start_kernel(kernel_name=NAME)
            client = self.get_kernel(kernel).client()
            client.start_channels()
            try:
                await client.wait_for_ready(timeout=_ANSWERS)
                return kernel
            except RuntimeError:
                await self._end(kernel)
            finally:
                client.stop_channels()
        raise HTTPError(503, "no kernel starts; the terminal with nox -s live shows why")

    def notify_disconnect(self, kernel_id: str) -> None:
        """End the kernel of a page that was left; none ever comes back to its kernel."""
        super().notify_disconnect(kernel_id)
        self._end_if_left(kernel_id)

    def _end_if_left(self, kernel: str) -> None:
        if not self._kernel_connections.get(kernel):
            ending = asyncio.create_task(self._end(kernel))
            self._ending.add(ending)
            ending.add_done_callback(self._ending.discard)

    async def _end(self, kernel: str) -> None:
        if kernel in self:
            # It may be busy for ever, and has nothing to save; its guard ends what it has started.
            await self.shutdown_kernel(kernel, now=True)

    async def shutdown_all(self, now: bool = True) -> None:
        """End every kernel at once, and start no more."""
        if self._later:
            self._later.cancel()
        if self._spare:
            self._spare.cancel()
        me = psutil.Process()
        behind = set(me.children(recursive=True)) - set(me.children())
        await super().shutdown_all(now=now)
        # Among them is each kernel's guard, which ends last.
        with contextlib.suppress(TimeoutError):
            wait_until(lambda: not any(map(lives, behind)), _LINGER, "the end of all that kernels had started")


def _failed(start: asyncio.Task[str]) -> bool:
    return start.done() and (start.cancelled() or start.exception() is not None)


class _NoFiles(AsyncLargeFileManager):  # type: ignore[misc]
    """A contents manager that serves nothing: the site has no notebooks and no files but its own."""

    def get_extra_handlers(self) -> list[Any]:
        """Leave out the addresses under /files."""
        return []


class Live(ServerApp):  # type: ignore[misc]
    """jupyter-server with the site at its root and, of its own services, only the kernels and the token's."""

    default_services = ("auth", "kernels", "security")

    def init_webapp(self) -> None:
        """Serve the pages behind jupyter-server's own handlers."""
        super().init_webapp()
        rules = self.web_app.wildcard_router.rules
        rules.insert(len(rules) - 1, url(r"/(.*)", Page, {"path": str(PAGES), "default_filename": "index.html"}))


def _say(began: float, text: str) -> None:
    print(f"{time.monotonic() - began:5.1f} s  {text}", flush=True)


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
        _check(known.ip, known.port, known.let_others_in)
        began = time.monotonic()
        _say(began, "Building the pages (no block is run for this; your own Run does that)")
        _build()
        _say(began, "Starting the server, and a broker, Alliance Auth and a worker for the first page")
        _serve(known, folder, began)
    except LabError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        pass
    finally:
        guard.finish()
    return 0


def _check(ip: str, port: int, others: bool) -> int:
    """Return the port that the server can have now; `LabError` where address or port can't be had."""
    try:
        address = ipaddress.ip_address(ip)
    except ValueError:
        raise LabError(f"--ip {ip} is no address: give 127.0.0.1, or another address of this machine.") from None
    if not address.is_loopback and not others:
        raise LabError(
            f"--ip {ip} would let other machines run code here: add --let-others-in if that is what you want."
        )
    with socket.socket(socket.AF_INET6 if address.version == 6 else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((ip, port))
            chosen: int = probe.getsockname()[1]
        except OSError as error:
            raise LabError(f"Port {port} on {ip} can't be had ({error.strerror}): name another with --port.") from None
    return chosen


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


def _serve(known: argparse.Namespace, folder: Path, began: float) -> None:
    spec = folder / "jupyter" / "kernels" / NAME
    spec.mkdir(parents=True)
    (spec / "kernel.json").write_text(
        json.dumps(
            {
                "argv": [sys.executable, "-m", "lab.livekernel", "-f", "{connection_file}", "--log-level=ERROR"],
                "display_name": "Celery FAQ",
                "language": "python",
                "env": {"PYTHONPATH": str(ROOT), "LAB_PARENT": str(os.getpid())},
            }
        )
    )
    # Nothing of the user's own Jupyter is read or written.
    for name in ("CONFIG_DIR", "DATA_DIR", "RUNTIME_DIR"):
        os.environ[f"JUPYTER_{name}"] = str(folder / "jupyter")
    os.environ["JUPYTER_PATH"] = str(folder / "jupyter")
    # For this a process of Jupyter makes a folder that it never removes; this one makes it in ours.
    os.environ["JUPYTER_NO_CONFIG"] = "1"
    tempfile.tempdir = str(folder)
    os.environ["IPYTHONDIR"] = str(folder / "ipython")
    root = folder / "nothing"
    root.mkdir()
    # A free one is looked for now, not before the pages were built: nobody else is to take it meanwhile.
    port = _check(known.ip, known.port, known.let_others_in)
    server = Live(
        # A page whose kernel died takes the spare one; a restarted kernel would have no page.
        config=Config({"KernelRestarter": {"restart_limit": 0}}),
        ip=known.ip,
        port=port,
        port_retries=0,
        root_dir=str(root),
        open_browser=not known.no_browser,
        allow_root=True,
        allow_remote_access=known.let_others_in,
        allow_unauthenticated_access=False,
        kernel_manager_class=Kernels,
        contents_manager_class=_NoFiles,
        cookie_secret=os.urandom(32),
        jpserver_extensions={},
        log_level="ERROR",
        quit_button=False,
        default_url="/index.html",
        local_hostnames=["127.0.0.1", "localhost"],
    )
    server.initialize(argv=[], find_extensions=False)
    del os.environ["JUPYTER_NO_CONFIG"]
    # Its own greeting, with an address in a file, would hide ours.
    server.log.setLevel(logging.CRITICAL + 1)
    kernels = server.kernel_manager
    assert isinstance(kernels, Kernels)
    kernels.default_kernel_name = NAME
    kernels.kernel_manager_class = "lab.live.Kernel"
    # Nothing is kept for a page that was left.
    kernels.buffer_offline_messages = False
    with contextlib.suppress(ValueError):
        signal.signal(signal.SIGINT, lambda *_: server.stop(from_signal=True))
        signal.signal(signal.SIGTERM, lambda *_: server.stop(from_signal=True))

    async def ready() -> None:
        kernels.refill()
        address = f"http://{known.ip}:{server.port}/?token={server.identity_provider.token}"
        _say(began, f"Read, edit and run at {address}  (Ctrl-C ends it)")

    server.io_loop.add_callback(ready)
    server.start()


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    # All is ended and saved. Python would take every object apart first, half a second of work that a busy machine
    # stretches to many.
    os._exit(code)
