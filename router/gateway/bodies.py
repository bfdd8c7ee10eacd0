"""Bodies of requests: how many bytes of them may be held at once, and how long one may take.

A body costs what has come of it, not what its length claims; but one whose claim can never fit is
refused before it is read, and so is one that comes too slowly or goes on for ever.
"""

import asyncio
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Final, Self

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from router.gateway.errors import BodyTooLarge, BodyTooSlow, TooBusy

__all__ = ["Body", "BodyRoom", "Unread"]

_SMALL: Final = 16 * 1024  # bytes of a body that always has room: connections bound their number
_WAIT_S: Final = 1  # a body is read and parsed in about so long
_CLOSE: Final = (b"connection", b"close")


class BodyRoom:
    """Bytes of bodies that are held: being read, or being parsed."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.n_bytes = 0

    def check(self, n_bytes: int) -> None:
        """Raises TooBusy unless so many more fit. What is larger than everything fits alone."""
        if n_bytes > _SMALL and self.n_bytes and self.n_bytes + n_bytes > self.max_bytes:
            raise TooBusy(
                f"Bodies of {self.n_bytes} bytes are being read; the most are {self.max_bytes}: "
                f"try again in {_WAIT_S} s.",
                _WAIT_S,
            )


class Body:
    """One body; a context that gives its room back, if `forget` has not. `declared` is the length
    that the request claims, None if it claims none."""

    def __init__(
        self,
        room: BodyRoom,
        chunks: AsyncIterator[bytes],
        declared: int | None,
        limit: int,
        timeout_s: float,
    ) -> None:
        self._room = room
        self._chunks = chunks
        self._declared = declared
        self._limit = limit
        self._timeout_s = timeout_s
        self._held = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.forget()

    def check(self) -> None:
        """Raises BodyTooLarge and TooBusy for what the request claims."""
        if self._declared is not None:
            self._check(self._declared)
            self._room.check(self._declared)

    async def read(self) -> bytes:
        """The whole body. Raises BodyTooLarge, BodyTooSlow, and TooBusy if others fill the room."""
        self.check()
        chunks: list[bytes] = []
        try:
            async with asyncio.timeout(self._timeout_s):
                async for chunk in self._chunks:
                    self._hold(len(chunk))
                    chunks.append(chunk)
        except TimeoutError as error:
            raise BodyTooSlow(
                f"The body did not come within {self._timeout_s:g} s; {self._held} bytes did."
            ) from error
        return b"".join(chunks)

    def forget(self) -> None:
        """Nobody holds the body any more."""
        self._room.n_bytes -= self._held
        self._held = 0

    def _hold(self, n_bytes: int) -> None:
        self._check(self._held + n_bytes)
        self._room.n_bytes -= self._held
        try:
            self._room.check(self._held + n_bytes)
            self._held += n_bytes
        finally:
            self._room.n_bytes += self._held

    def _check(self, n_bytes: int) -> None:
        if n_bytes > self._limit:
            raise BodyTooLarge(f"The body is too large; the most are {self._limit} bytes.")


class Unread:
    """ASGI middleware: who is answered before the body was read is told that nobody will read it.

    Else the server would go on to take in what the client goes on to send.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http" or not _has_body(scope):
            await self._app(scope, receive, send)
            return
        unread = True

        async def received() -> Message:
            nonlocal unread
            message = await receive()
            if message["type"] != "http.request" or not message.get("more_body", False):
                unread = False
            return message

        async def sent(message: Message) -> None:
            if unread and message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), _CLOSE]}
            await send(message)

        await self._app(scope, received, sent)


def _has_body(scope: Scope) -> bool:
    """Whether a body was announced that is not surely at hand."""
    headers = dict(scope["headers"])
    length = headers.get(b"content-length", b"0")
    return b"transfer-encoding" in headers or not (length.isdigit() and int(length) <= _SMALL)
