"""Requests and one long stream through a deployed network, at a steady pace, and what comes back.

Open loop: the pace does not slow down when answers stay out, as sensors and users do not either.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from router.client import ClientError, Deadline, Publisher, ResultReader, request
from router.records import Data
from topologies.compiled import CompiledNetwork
from topologies.stages.base import Array

__all__ = ["Traffic", "sample_record"]

_BURST: Final = 8
"""Requests that are sent at once: a burst lets several be under way at any time."""


def sample_record(name: str, sample: Array, *, request: bool = False, seq: int | None = None,
                  end: bool = False) -> Data:  # fmt: skip
    """A native record that carries one sample, (*shape) uint8 or float32."""
    little = sample.astype(sample.dtype.newbyteorder("<"), copy=False)
    return Data(
        name=name, request=request, payload=little.tobytes(), dtype=sample.dtype.name,
        shape=sample.shape, seq=seq, end=end,
    )  # fmt: skip


@dataclass
class Traffic:
    """Sends `images` (B, *shape) as requests and `stream` (S, *shape) as windows of one stream.

    `outputs` fills with the emissions (K, n) of each stream that ended. `arrivals` are the times
    of the long stream's emissions, on the event loop's clock. `changed` is called when there is
    news. A stream that failed is in `errors`.
    """

    network: CompiledNetwork
    publisher: Publisher
    reader: ResultReader
    images: Array
    stream: Array
    seconds: float
    prefix: str = ""
    timeout_s: float = 60.0
    changed: Callable[[], None] = lambda: None
    outputs: dict[str, Array] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    arrivals: list[float] = field(default_factory=list)
    n_requests: int = 0
    n_windows: int = 0

    @property
    def stream_name(self) -> str:
        """The name of the long stream."""
        return f"{self.prefix}stream"

    def image_name(self, index: int) -> str:
        """The name of a request."""
        return f"{self.prefix}image-{index:03d}"

    def plain_name(self, name: str) -> str:
        """A stream's name without the prefix."""
        return name.removeprefix(self.prefix)

    @property
    def names(self) -> Sequence[str]:
        """The names of all streams there are to be."""
        return [self.stream_name, *map(self.image_name, range(len(self.images)))]

    @property
    def requests_in_flight(self) -> int:
        """Requests that are sent and not answered."""
        over = len(self.outputs) + len(self.errors)
        return self.n_requests - over + self.is_over(self.stream_name)

    def is_over(self, name: str) -> bool:
        """Whether a stream has ended, well or not."""
        return name in self.outputs or name in self.errors

    @property
    def windows_in_flight(self) -> int:
        """Windows of the long stream that are sent and without a result."""
        return self.n_windows - len(self.arrivals)

    @property
    def progress(self) -> float:
        """The part of everything that is sent, 0 to 1."""
        return (self.n_requests + self.n_windows) / (len(self.images) + len(self.stream))

    async def run(self) -> None:
        """Send everything, and wait until every stream has ended."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._send_requests(group))
            group.create_task(self._send_stream())
            group.create_task(self._read_stream())

    async def _send_requests(self, group: asyncio.TaskGroup) -> None:
        deadline = Deadline.after(self.timeout_s)
        began = asyncio.get_running_loop().time()
        for index in range(len(self.images)):
            if index % _BURST == 0:
                await _until(began + self.seconds * index / len(self.images))
            self.n_requests += 1
            group.create_task(self._request(index, deadline))

    async def _request(self, index: int, deadline: Deadline) -> None:
        record = sample_record(self.image_name(index), self.images[index], request=True)
        name = self.network.name
        try:
            result = await request(
                self.publisher, self.reader, name, record, deadline, input=self.network.input.name
            )
        except ClientError as error:
            self.errors[record.name] = str(error)
        else:
            self.outputs[record.name] = result.values
        self.changed()

    async def _send_stream(self) -> None:
        began = asyncio.get_running_loop().time()
        n = len(self.stream)
        for index, sample in enumerate(self.stream):
            await _until(began + self.seconds * index / n)
            record = sample_record(self.stream_name, sample, seq=index, end=index == n - 1)
            await self.publisher.publish(self.network.input.name, record)
            self.n_windows += 1
        await self.publisher.flush()

    async def _read_stream(self) -> None:
        loop = asyncio.get_running_loop()
        deadline = Deadline.after(self.timeout_s)
        network = self.network.name
        try:
            async for _ in self.reader.results(self.stream_name, deadline, network=network):
                self.arrivals.append(loop.time())
                self.changed()
            result = await self.reader.result(self.stream_name, deadline, network=network)
        except ClientError as error:
            self.errors[self.stream_name] = str(error)
        else:
            self.outputs[self.stream_name] = result.values

    def longest_silence_ms(self) -> float:
        """The longest time between two results of the long stream."""
        gaps = (b - a for a, b in zip(self.arrivals, self.arrivals[1:], strict=False))
        return 1000 * max(gaps, default=0.0)


async def _until(at: float) -> None:
    await asyncio.sleep(max(0.0, at - asyncio.get_running_loop().time()))
