"""Doors: what takes input from anybody. Each draws its cases, knocks, and judges what comes of it.

A further door is a class with `name` and `knock`, made by an entry of `DOORS`.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from functools import partial
from itertools import accumulate
from typing import Final, NamedTuple, Protocol

from loadtest.hostile.cases_http import KINDS, HttpCase, Target, draw
from loadtest.hostile.checker import codes_of, fault_of
from loadtest.hostile.knocks import Knock
from loadtest.hostile.records_door import records_door
from loadtest.hostile.store_door import store_door
from router.supervisor import Stack

__all__ = ["DOORS", "Door", "Entry", "HttpDoor", "numbers_of"]

_ANSWER_S: Final = 90.0  # for whatever comes of a case: a request may wait for 60 s
_SOON_S: Final = 0.02  # after which a client that waits for nothing leaves
_MOST_READ: Final = 4 * 1024 * 1024
_STRIDE: Final = 619  # coprime to the sums of shares: doors take turns


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
        self.is_spoiled: Callable[[], bool] = lambda: False  # whether somebody damages the store

    async def knock(self, seed: int, number: int) -> Knock:
        """Send a case over a connection of its own."""
        case = draw(seed, number, self._target, self._kinds)
        answer, ended = await self._send(case)
        codes = codes_of(answer)
        outcome = str(codes[-1]) if codes else ("closed" if ended else "left")
        fault = fault_of(case, answer, ended, is_spoiled=self.is_spoiled())
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


class Entry(NamedTuple):
    """How a door is opened, its share of all inputs, and how many knock at it at once.

    The shares are such that all doors are done at about the same time: a request costs a connection
    and an answer, a record a fraction of that, and damage to the store the time to mend it.
    """

    make: Make
    share: int
    n_clients: int


def _http_door(
    stack: Stack, target: Target, kinds: Sequence[str]
) -> AbstractAsyncContextManager[Door]:
    return nullcontext(HttpDoor(stack, target, kinds))


DOORS: Final[Mapping[str, Entry]] = {
    "http": Entry(_http_door, 100, 32),
    "records": Entry(lambda stack, target, kinds: records_door(stack, kinds), 898, 64),
    "store": Entry(lambda stack, target, kinds: store_door(stack, kinds), 2, 1),
}


def numbers_of(doors: Sequence[str], n_inputs: int) -> dict[str, Iterator[int]]:
    """The numbers below `n_inputs` that each of these doors is given: the same in every run."""
    shares = [DOORS[door].share for door in doors]
    whole, stops = sum(shares), list(accumulate(shares))
    spans = zip([0, *stops], stops, strict=False)
    return {
        door: filter(partial(_is_between, whole, *span), range(n_inputs))
        for door, span in zip(doors, spans, strict=True)
    }


def _is_between(whole: int, lo: int, hi: int, number: int) -> bool:
    return lo <= number * _STRIDE % whole < hi
