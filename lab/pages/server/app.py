"""jupyter-server as the live pages need it: the site at its root, kernels, the token, and nothing else."""

import logging
import os
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jupyter_server.base.handlers import JupyterHandler
from jupyter_server.serverapp import ServerApp
from jupyter_server.services.contents.largefilemanager import AsyncLargeFileManager
from tornado.web import StaticFileHandler, authenticated, url
from traitlets.config import Config

from lab.pages import kernelspec
from lab.pages.server.kernels import Kernels
from lab.paths import BUILD

PAGES = BUILD / "live"


class Page(JupyterHandler, StaticFileHandler):  # type: ignore[misc]
    """A file of the built site, for those who hold the token."""

    @property
    def content_security_policy(self) -> str:
        """Let a page speak with its own origin alone."""
        return (
            "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
            "img-src 'self' data:; frame-ancestors 'none'; base-uri 'self'; form-action 'self'"
        )

    @authenticated  # type: ignore[untyped-decorator]
    async def get(self, path: str, include_body: bool = True) -> None:
        """Send the file; the XSRF cookie goes with it, as the page's script needs it."""
        _ = self.xsrf_token
        await StaticFileHandler.get(self, path, include_body)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Answer a wrong address with the site's own page."""
        page = PAGES / "404.html"
        own = status_code == 404 and page.exists()
        self.set_header("Content-Type", f"text/{'html' if own else 'plain'}; charset=UTF-8")
        self.finish(page.read_bytes() if own else f"{status_code}: {self._reason}\n")

    def set_extra_headers(self, path: str) -> None:
        """Let the browser ask each time: pages of two starts share an address."""
        self.set_header("Cache-Control", "no-cache")


class _NoFiles(AsyncLargeFileManager):  # type: ignore[misc]
    """A contents manager that serves nothing: the site has no notebooks and no files but its own."""

    def get_extra_handlers(self) -> list[Any]:
        """Leave out the addresses under /files."""
        return []


class LiveServer(ServerApp):  # type: ignore[misc]
    """jupyter-server with the site at its root and, of its own services, only the kernels and the token's."""

    default_services = ("auth", "kernels", "security")

    def init_webapp(self) -> None:
        """Serve the pages behind jupyter-server's own handlers."""
        super().init_webapp()
        rules = self.web_app.wildcard_router.rules
        rules.insert(len(rules) - 1, url(r"/(.*)", Page, {"path": str(PAGES), "default_filename": "index.html"}))

    def init_signal(self) -> None:
        """End at the first Ctrl-C, without a question."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: self.stop(from_signal=True))


def serve(
    folder: Path, ip: str, port: int, *, let_others_in: bool, open_browser: bool, ready: Callable[[str], None]
) -> None:
    """Serve the site until Ctrl-C, with all that is temporary in `folder`; `ready` gets the address with the token."""
    _settle(folder)
    kernelspec.write(folder / "jupyter", "live")
    server = LiveServer(
        config=Config(
            {
                # A page whose kernel died takes the spare one; a restarted kernel would have no page.
                "KernelRestarter": {"restart_limit": 0},
                "Kernels": {
                    "default_kernel_name": kernelspec.NAME,
                    "kernel_manager_class": "lab.pages.server.kernels.LiveManager",
                    # Nothing is kept for a page that was left.
                    "buffer_offline_messages": False,
                },
            }
        ),
        ip=ip,
        port=port,
        port_retries=0,
        root_dir=tempfile.mkdtemp(),
        open_browser=open_browser,
        allow_root=True,
        allow_remote_access=let_others_in,
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

    async def begin() -> None:
        server.kernel_manager.refill()
        ready(f"http://{ip}:{server.port}/?token={server.identity_provider.token}")

    server.io_loop.add_callback(begin)
    server.start()


def _settle(folder: Path) -> None:
    """Let this process, and what it starts, read and write nothing of the user's own Jupyter, and end with it."""
    jupyter = str(folder / "jupyter")
    os.environ.update(
        JUPYTER_CONFIG_DIR=jupyter,
        JUPYTER_DATA_DIR=jupyter,
        JUPYTER_RUNTIME_DIR=jupyter,
        JUPYTER_PATH=jupyter,
        # For this a process of Jupyter makes a folder that it never removes; this one makes it in ours.
        JUPYTER_NO_CONFIG="1",
        IPYTHONDIR=str(folder / "ipython"),
        LAB_PARENT=str(os.getpid()),
    )
    tempfile.tempdir = str(folder)
