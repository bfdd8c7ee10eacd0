"""Requests and streams through several networks at once, at a steady pace, and what comes back.

The sinks are the client library, and the gateway for every fifth request. What they are given goes
into the history as it comes; nothing is judged here.
"""

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import httpx
import numpy as np

from loadtest.faults.contents import DIGITS, Content, Contents
from loadtest.faults.history import Emission, End, History, Sent, digest_of_values
from loadtest.traffic import sample_record
from router.client import ClientError, Deadline, Publisher, PublishFailed, ResultReader
from router.records import Data
from topologies.stages.base import Array

__all__ = ["Pace", "Workload"]

_TIMEOUT_S: Final = 90.0  # of an answer; the progress deadline must have had its say before
_RETRY_S: Final = 0.2
_NOT_ANSWERED: Final = (httpx.TransportError, AttributeError)
"""The second is anyio's, when a connection is reset before it has asked whose it is."""
_MOST_OPEN: Final = 300  # requests; beyond it a client would be told to wait
_BY_GATEWAY: Final = 5  # every so many requests


@dataclass(frozen=True)
class Pace:
    """How much is sent: requests per second, streams at a time per input, records per second."""

    requests: float = 16.0
    streams: int = 4
    records: float = 8.0

    def times(self, load: float) -> "Pace":
        """So many times as much, by more streams and requests."""
        return Pace(self.requests * load, max(1, round(self.streams * load)), self.records)


@dataclass
class Workload:
    """Sends what a seed draws from the contents, until `stop`; `run` returns when all is over.

    `http` is the gateway's base URL; "" for none.
    """

    contents: Contents
    history: History
    publisher: Publisher
    reader: ResultReader
    http: str
    pace: Pace
    seed: int
    prefix: str = ""
    stopping: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self._names = itertools.count()
        self._dice = random.Random(self.seed)
        self._loop = asyncio.get_running_loop()
        self._n_open = 0
        self._open: dict[str, None] = {}
        self._group: asyncio.TaskGroup | None = None

    @property
    def open_names(self) -> list[str]:
        """Names of streams that are being sent now, in the order in which they began."""
        return list(self._open)

    def adopt(self, name: str, content: Content) -> None:
        """Await an answer as well that somebody else has sent the request for, just now."""
        at = self._loop.time()
        self.history.sent.append(Sent(name, content.name, content.networks, 0, last=True, at=at))
        for network in content.networks:
            if self._group is not None:
                deadline = Deadline.after(_TIMEOUT_S)
                self._group.create_task(self._follow(name, network, deadline))

    def stop(self) -> None:
        """Begin nothing new."""
        self.stopping.set()

    async def run(self) -> None:
        """Send until stopped, and wait for every answer."""
        for network in self.contents.networks.values():
            every = network.outputs.every
            await self.reader.follow(network.name, network.input.name, every)
        walks: dict[str, list[Content]] = {}
        for content in self.contents.walks:
            walks.setdefault(content.input, []).append(content)
        timeout = httpx.Timeout(_TIMEOUT_S, connect=2.0)
        async with (
            httpx.AsyncClient(timeout=timeout, trust_env=False, verify=False) as client,
            asyncio.TaskGroup() as group,
        ):
            self._group = group
            group.create_task(self._requests(group, client))
            for lane, mine in enumerate(walks.values()):
                for number in range(self.pace.streams):
                    group.create_task(self._streams(mine, lane + number / self.pace.streams))

    # ---- requests -----------------------------------------------------------------------------

    async def _requests(self, group: asyncio.TaskGroup, client: httpx.AsyncClient) -> None:
        async for number in self._ticks(self.pace.requests):
            if self._n_open >= _MOST_OPEN:
                continue
            content = self._dice.choice(self.contents.requests)
            name = self._name(content)
            if self.http and number % _BY_GATEWAY == 0 and content.input == DIGITS:
                group.create_task(self._by_gateway(client, name, content))
            else:
                group.create_task(self._request(name, content))

    async def _request(self, name: str, content: Content) -> None:
        """One request, for all networks of its input at once."""
        record = sample_record(name, content.samples[0], request=True)
        self._n_open += 1
        deadline = Deadline.after(_TIMEOUT_S)
        if await self._publish(content, record, 0, deadline):
            await asyncio.gather(*(self._follow(name, n, deadline) for n in content.networks))
        self._n_open -= 1

    async def _by_gateway(self, client: httpx.AsyncClient, name: str, content: Content) -> None:
        """A request over HTTP for one network; asked again, under its id, until it is answered."""
        network = content.networks[0]
        sample = content.samples[:1]
        tensor = {
            "name": content.input, "shape": list(sample.shape), "datatype": "UINT8",
            "data": sample.reshape(-1).tolist(),
        }  # fmt: skip
        url, body = f"{self.http}/v2/models/{network}/infer", {"id": name, "inputs": [tensor]}
        self.history.sent.append(
            Sent(name, content.name, (network,), 0, last=True, at=self._loop.time())
        )
        deadline = Deadline.after(_TIMEOUT_S)
        while not deadline.is_over:
            try:
                reply = await client.post(url, json=body)
            except _NOT_ANSWERED:
                await asyncio.sleep(_RETRY_S)
                continue
            if reply.status_code == httpx.codes.OK:
                output = reply.json()["outputs"][0]
                values = np.array(output["data"], np.float32).reshape(output["shape"][1:])
                self._emitted(network, name, 0, values.reshape(-1))
                self._ended(network, name, "")
                return
            if reply.status_code == httpx.codes.INTERNAL_SERVER_ERROR:
                self._ended(network, name, reply.json()["error"])
                return
            await asyncio.sleep(_RETRY_S)

    # ---- streams ------------------------------------------------------------------------------

    async def _streams(self, walks: Sequence[Content], phase: float) -> None:
        """One stream after the other, as sensors that never rest."""
        await asyncio.sleep(phase / self.pace.records)
        while not self.stopping.is_set():
            content = self._dice.choice(walks)
            name = self._name(content)
            self._open[name] = None
            async with asyncio.TaskGroup() as group:
                sending = group.create_task(self._stream(name, content))
                for network in content.networks:
                    group.create_task(self._read(name, network, sending))
            del self._open[name]

    async def _stream(self, name: str, content: Content) -> None:
        n = len(content.samples)
        began = self._loop.time()
        for ordinal, sample in enumerate(content.samples):
            await asyncio.sleep(began + ordinal / self.pace.records - self._loop.time())
            record = sample_record(name, sample, seq=ordinal, end=ordinal == n - 1)
            await self._publish(content, record, ordinal, Deadline.after(_TIMEOUT_S))

    async def _read(self, name: str, network: str, sending: "asyncio.Task[None]") -> None:
        reading = asyncio.create_task(self._follow(name, network, None))
        await asyncio.wait([sending])
        await asyncio.wait([reading], timeout=_TIMEOUT_S)
        reading.cancel()

    async def _follow(self, name: str, network: str, deadline: Deadline | None) -> None:
        """Note every emission of a stream, and its end."""
        try:
            async for emission in self.reader.results(name, deadline, network=network):
                self._emitted(network, name, emission.index, emission.values)
        except TimeoutError:
            return  # nothing was heard of its end: it is lost
        except ClientError as error:
            self._ended(network, name, str(error))
        else:
            self._ended(network, name, "")

    # ---- both ---------------------------------------------------------------------------------

    async def _publish(
        self, content: Content, record: Data, ordinal: int, deadline: Deadline
    ) -> bool:
        """Publish until it is acknowledged; a repeat does no harm. False when time is over."""
        is_last, at = record.request or record.end, self._loop.time()
        sent = Sent(record.name, content.name, content.networks, ordinal, is_last, at)
        while not deadline.is_over:
            try:
                await (await self.publisher.publish(content.input, record))
            except PublishFailed:
                await asyncio.sleep(_RETRY_S)
                continue
            self.history.sent.append(sent)
            return True
        self.history.unsent.append(sent)
        return False

    def _name(self, content: Content) -> str:
        return f"{self.prefix}{next(self._names)}-{content.name}"

    def _emitted(self, network: str, name: str, ordinal: int, values: Array) -> None:
        digest, at = digest_of_values(values), self._loop.time()
        self.history.emissions.append(Emission(network, name, ordinal, digest, at))

    def _ended(self, network: str, name: str, error: str) -> None:
        self.history.ends.append(End(network, name, error, self._loop.time()))

    async def _ticks(self, per_second: float) -> AsyncIterator[int]:
        """0, 1, 2, ... at a steady pace, until stopped."""
        began = self._loop.time()
        for number in itertools.count():
            left = began + number / per_second - self._loop.time()
            if left > 0:
                try:
                    async with asyncio.timeout(left):
                        await self.stopping.wait()
                except TimeoutError:
                    pass
            if self.stopping.is_set():
                return
            yield number
