"""What the tests of the built site share: its pages, and a plain static server."""

import http.server
import threading
from collections.abc import Iterator
from functools import partial

import pytest

from lab.paths import BUILD, chapters
from tests.online.host import policy, serve

HTML = BUILD / "html"
PAGES = sorted(path.relative_to(HTML).as_posix() for path in HTML.rglob("*.html"))
# Why the site was built without Run.
WITHOUT = BUILD / "online" / "without.txt"
CHAPTERS = [f"{name}.html" for name in chapters()]


class _Server(http.server.ThreadingHTTPServer):
    """A server that takes it well when a browser leaves before all has been sent."""

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: a page that misses something fails its own test."""


class _Handler(http.server.SimpleHTTPRequestHandler):
    """A plain static server, with gzip as any static host has it."""

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer with the site's own 404 page."""
        if code == 404 and (HTML / "404.html").exists():
            body = (HTML / "404.html").read_bytes()
            self.send_response(404)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            return
        super().send_error(code, message, explain)


@pytest.fixture(scope="session")
def site() -> Iterator[str]:
    """Serve the built site and return its address."""
    assert PAGES, "build/html is empty: run nox -s docs first"
    server = _Server(("127.0.0.1", 0), partial(_Handler, directory=str(HTML)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


@pytest.fixture(scope="session")
def strict() -> Iterator[str]:
    """Serve the built site as strictly as a host may, and return its address."""
    assert not WITHOUT.exists(), WITHOUT.read_text()
    assert (HTML / "_static" / "online.js").exists(), "build/html has no Run: run nox -s docs first"
    with serve(policy()) as base:
        yield base
