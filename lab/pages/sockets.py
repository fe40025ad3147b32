"""How Jupyter speaks to a kernel: through sockets in its runtime folder.

Jupyter's own way is to look for free ports and to name them to the kernel, which listens on them when it is ready:
seconds later, when another program may have them.
"""

import os
import secrets
from pathlib import Path

import zmq
from jupyter_client.connect import ConnectionFileMixin
from jupyter_client.localinterfaces import localhost
from jupyter_client.manager import AsyncKernelManager
from traitlets import default


class Sockets(ConnectionFileMixin):  # type: ignore[misc]
    """What a kernel's manager needs to use sockets."""

    @default("transport")
    def _sockets_where_they_can_be(self) -> str:
        # A system takes about a hundred characters for a socket's path.
        return "ipc" if len(_path()) + len("-5") <= zmq.IPC_PATH_MAX_LEN else "tcp"

    @default("ip")
    def _place(self) -> str:
        return _path() if self.transport == "ipc" else localhost()


def _path() -> str:
    return str(Path(os.environ["JUPYTER_RUNTIME_DIR"]) / secrets.token_hex(4))


class BuildManager(Sockets, AsyncKernelManager):  # type: ignore[misc]
    """Starts the kernel of a page that is built."""
