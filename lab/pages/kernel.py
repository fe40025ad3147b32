"""IPython's kernel as the roles share it. Imported late, by its name: its threads start when all forks are made."""

from typing import Any

from ipykernel.ipkernel import IPythonKernel

from lab.pages.session import Session


class PageKernel(IPythonKernel):  # type: ignore[misc]
    """Runs cells in `page_session`, which is set before the first."""

    page_session: Session

    def failed(self, reply: dict[str, Any], name: str, text: str) -> dict[str, Any]:
        """Tell the page of an error that no cell raised, and return the reply that says so."""
        told = {"ename": name, "evalue": text, "traceback": [text]}
        self.send_response(self.iopub_socket, "error", told)
        return {"execution_count": 0, "user_expressions": {}, "payload": [], **reply, **told, "status": "error"}
