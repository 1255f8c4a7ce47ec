"""What the server hands to the collector: RSGI's request and answer, as far as the collector uses them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Protocol

from viewmeter.collector.answers import Headers


class RequestHeaders(Protocol):
    """Headers as RSGI gives them; names in lower case. A value that is not ASCII is present, but cannot be read."""

    def __contains__(self, key: str) -> bool:
        """Say whether a header of that name is there."""
        ...

    def get(self, key: str, default: Any = None) -> Any:
        """Return the first header of that name."""
        ...

    def get_all(self, key: str) -> list[Any]:
        """Return all headers of that name."""
        ...


class Scope(Protocol):
    """A request as RSGI describes it."""

    client: str
    method: str
    path: str
    query_string: str

    @property
    def headers(self) -> RequestHeaders:
        """The headers."""
        ...


class Wire(Protocol):
    """The other end of a request: the body in, the answer out."""

    async def __call__(self) -> bytes:
        """Return the whole body."""
        ...

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the body in pieces."""
        ...

    def response_empty(self, status: int, headers: Headers) -> None:
        """Answer without a body."""
        ...

    def response_bytes(self, status: int, headers: Headers, body: bytes) -> None:
        """Answer with a body."""
        ...
