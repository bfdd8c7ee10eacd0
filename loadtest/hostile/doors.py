"""Doors: what takes input from anybody. Each draws its cases, knocks, and judges what comes of it.

A further door is a class with `name` and `knock`, made by an entry of `DOORS`.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from typing import Final, Protocol

from loadtest.hostile.cases_http import KINDS, HttpCase, Target, draw
from loadtest.hostile.checker import codes_of, fault_of
from loadtest.hostile.knocks import Knock
from loadtest.hostile.records_door import records_door
from router.supervisor import Stack

__all__ = ["DOORS", "Door", "HttpDoor"]

_ANSWER_S: Final = 90.0  # for whatever comes of a case: a request may wait for 60 s
_SOON_S: Final = 0.02  # after which a client that waits for nothing leaves
_MOST_READ: Final = 4 * 1024 * 1024


class Door(Protocol):
    """What takes input; `knock` may be called by many at once."""

    name: str

    async def knock(self, seed: int, number: int) -> Knock:
        """Give case `number` of a seed."""


class HttpDoor:
    """The gateway's port."""

    name = "http"

    def __init__(self, stack: Stack, target: Target, kinds: Sequence[str] = ()) -> None:
        self._host = stack.settings.gateway_host
        self._port = stack.settings.gateway_port
        self._target = target
        self._kinds = tuple(kind for kind in kinds if kind in KINDS)

    async def knock(self, seed: int, number: int) -> Knock:
        """Send a case over a connection of its own."""
        case = draw(seed, number, self._target, self._kinds)
        answer, ended = await self._send(case)
        codes = codes_of(answer)
        outcome = str(codes[-1]) if codes else ("closed" if ended else "left")
        fault = fault_of(case, answer, ended)
        return Knock(case.kind, outcome, f"{fault} (number {number})" if fault else "")

    async def _send(self, case: HttpCase) -> tuple[bytes, bool]:
        """What was answered, and whether the server came to an end."""
        answer = bytearray()
        try:
            async with asyncio.timeout(_ANSWER_S if case.waits else _SOON_S):
                reader, writer = await asyncio.open_connection(self._host, self._port)
                try:
                    writing = asyncio.create_task(_write(writer, case))
                    while len(answer) < _MOST_READ and (more := await reader.read(65_536)):
                        answer += more
                finally:
                    writing.cancel()
                    writer.transport.abort()
        except TimeoutError:
            return bytes(answer), False
        except OSError:
            return bytes(answer), True
        return bytes(answer), True


async def _write(writer: asyncio.StreamWriter, case: HttpCase) -> None:
    """Send, as far as the server takes it: it may answer before it has read all."""
    with suppress(OSError):
        for part in case.parts:
            writer.write(part)
            await writer.drain()


Make = Callable[[Stack, Target, Sequence[str]], AbstractAsyncContextManager[Door]]
"""Opens a door of a stack that serves a network; the kinds of cases wanted, none for all."""

DOORS: Final[Mapping[str, Make]] = {
    "http": lambda stack, target, kinds: nullcontext(HttpDoor(stack, target, kinds)),
    "records": lambda stack, target, kinds: records_door(stack, kinds),
}
