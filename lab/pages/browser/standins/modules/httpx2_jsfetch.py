"""In place of httpx2's client for browsers: nothing that runs here may leave the page."""

from typing import Any, NoReturn

from httpx2._transports.base import AsyncBaseTransport, BaseTransport

_WHY = "there is no network in this page"


class JavascriptFetchTransport(BaseTransport):
    """Refuses."""

    def __init__(self, *_args: Any, **_kwargs: Any) -> None: ...

    def handle_request(self, request: Any) -> NoReturn:
        """Refuse."""
        raise OSError(_WHY)


class AsyncJavascriptFetchTransport(AsyncBaseTransport):
    """Refuses."""

    def __init__(self, *_args: Any, **_kwargs: Any) -> None: ...

    async def handle_async_request(self, request: Any) -> NoReturn:
        """Refuse."""
        raise OSError(_WHY)
