"""A static host as strict as one may be: the site below a path, no special types, a Content-Security-Policy."""

import base64
import contextlib
import hashlib
import http.server
import re
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from lab.paths import BUILD

HTML = BUILD / "html"
BELOW = "/en/latest/"
# What every host knows; all else is bytes.
_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}


def policy() -> str:
    """Return the policy, with the hash of the pages' one inline script, which sets the colours."""
    (inline,) = set(re.findall(r"<script>(.*?)</script>", (HTML / "index.html").read_text(), re.S))
    mark = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
    return (
        f"default-src 'none'; script-src 'self' 'wasm-unsafe-eval' 'sha256-{mark}'; worker-src 'self'; "
        "connect-src 'self'; style-src 'self'; img-src 'self' data:"
    )


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves the site."""

    policy = ""

    def translate_path(self, path: str) -> str:
        """Serve nothing outside the folder."""
        return super().translate_path("/" + path.removeprefix(BELOW)) if path.startswith(BELOW) else "/nowhere"

    def guess_type(self, path: object) -> str:
        """Know few types."""
        return _TYPES.get(Path(str(path)).suffix, "application/octet-stream")

    def end_headers(self) -> None:
        """Add the policy."""
        self.send_header("Content-Security-Policy", self.policy)
        super().end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def serve(policy: str, folder: Path = HTML, by: type[Handler] = Handler) -> Iterator[str]:
    """Serve `folder` and yield its address."""
    handler = type("Strict", (by,), {"policy": policy})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}{BELOW}"
    finally:
        server.shutdown()
        server.server_close()
