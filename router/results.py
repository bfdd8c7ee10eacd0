"""What the results topics have said of each stream: a table fed with batches, bounded in memory.

Pure: time comes in as a number, waiting is the business of `router.client`. The rules (PROTOCOL 8
and 16), as the table keeps them:

1. Within (network, partition, name), windows are taken in order; one that was taken is a repeat.
2. The first END or ABORT is final; what comes after it for that stream is a repeat. An ABORT may
   name any window: ingest, which knows of none, says 0.
3. A greater stream id under the same name is a new stream and takes the place of the old one; a
   lesser one is a repeat from an era that is over.
4. Repeats are dropped and counted. They carry equal bits, so which of them came first is no matter.
5. The streams least recently heard of are forgotten first, by count, bytes and age; those that
   somebody waits for are kept. Of an endless stream only the latest emissions are kept.
6. Of a request with an id of its client's that is forgotten with its result, it stays known that
   ingest had it, for as long as ingest takes an equal one for a repeat, which it drops.
"""

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import ClassVar, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from router.payload import PayloadError, unpack_result
from router.wire import Batch, Kind, StreamId
from topologies.errors import SpikeRouterError

__all__ = [
    "MARK",
    "REMEMBERED_NAMES",
    "Chunk",
    "Emission",
    "Result",
    "ResultTable",
    "ResultsLost",
    "Stream",
    "Tally",
    "stem",
]

MARK: Final = "@"
"""Stands between a request's id and the digest of its body in the name of a stream."""

_STREAM_COST = 400  # bytes that an entry takes beside its payloads, about
_KEPT_PER_STREAM = 1024 * 1024  # bytes of emissions kept of one endless stream
REMEMBERED_NAMES: Final = 16_384
"""Streams of a partition, the latest, whose names an ingest takes for repeats."""
_MOST_ANSWERED: Final = 100_000  # forgotten requests that are known to have been answered
_NO_RESULT: Final = np.zeros((0, 0), np.int32)


class ResultsLost(SpikeRouterError, RuntimeError):
    """Emissions that were asked for are no longer kept, or were never read."""

    retryable: ClassVar[bool] = False


@dataclass(frozen=True, slots=True, eq=False)
class Emission:
    """One emission of a readout, over steps [start, stop).

    `values` has shape (n,): int32 for a count, float32 for a mean or a membrane.
    """

    index: int
    start: int
    stop: int
    values: NDArray[np.int32] | NDArray[np.float32]


class Chunk(NamedTuple):
    """The emissions of one window, packed; `first` is the index of the first of them."""

    first: int
    start: int
    stop: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Result:
    """A stream that has ended. `error` is empty unless it was aborted.

    `complete` is False when some of its emissions were not read or not kept.
    """

    network: str
    partition: int
    name: str
    stream: StreamId
    steps: int
    """The number of steps that the stream had."""
    error: str
    complete: bool
    payloads: tuple[bytes, ...]

    @property
    def values(self) -> NDArray[np.int32] | NDArray[np.float32]:
        """All emissions, (K, n), int32 for a count, float32 for a mean or a membrane.

        Raises PayloadError for bytes that are no result.
        """
        if len(self.payloads) == 1:
            return unpack_result(self.payloads[0])
        if not self.payloads:
            return _NO_RESULT
        return np.concatenate([unpack_result(payload) for payload in self.payloads])


@dataclass(slots=True)
class Tally:
    """What the table has done, counted since it began."""

    finals: int = 0
    repeats: int = 0
    gaps: int = 0
    forgotten: int = 0
    trimmed: int = 0
    """Emissions of endless streams that were dropped to keep the latest."""
    spread: int = 0
    """Streams whose name another partition had too: their records were sent to several."""


@dataclass(slots=True)
class Stream:
    """What is known of one stream in the results of one network. Only the table changes it."""

    network: str
    partition: int
    name: str
    stream: StreamId
    every: int | None
    at: float
    window: int = 0
    """The next window expected."""
    steps: int = 0
    index: int = 0
    """The index of the next emission."""
    final: bool = False
    error: str = ""
    complete: bool = True
    n_bytes: int = _STREAM_COST
    chunks: list[Chunk] = field(default_factory=list)

    def result(self) -> Result:
        """The stream as a result; call it when `final`."""
        payloads = tuple(chunk.payload for chunk in self.chunks)
        return Result(
            self.network,
            self.partition,
            self.name,
            self.stream,
            self.steps,
            self.error,
            self.complete,
            payloads,
        )

    def emissions(self, index: int) -> Iterator[Emission]:
        """The emissions that are known, from `index` on, without a gap.

        Raises ResultsLost when that one is known to have been and is not kept.
        """
        told = self.index
        for chunk in self.chunks[max(0, bisect_right(self.chunks, index, key=_first) - 1) :]:
            if chunk.first > index:
                raise self._lost(index, chunk.first)
            for row in unpack_result(chunk.payload)[index - chunk.first :]:
                yield self._emission(index, chunk, row)
                index += 1
        if index < told:
            raise self._lost(index, told)

    def _lost(self, index: int, kept: int) -> ResultsLost:
        return ResultsLost(
            f"Emission {index} of stream {self.name!r} was not read or is no longer kept; the next "
            f"one is {kept}: ask from there."
        )

    def _emission(
        self, index: int, chunk: Chunk, values: NDArray[np.int32] | NDArray[np.float32]
    ) -> Emission:
        if self.every is None:
            return Emission(index, 0, chunk.stop, values)
        start = index * self.every
        return Emission(index, start, min(start + self.every, chunk.stop), values)


def _was_taken(stream: Stream, batch: Batch) -> bool:
    """Rules 1 and 2, of a stream that is not final."""
    return batch.kind is Kind.SPIKES and batch.window < stream.window


def _first(chunk: Chunk) -> int:
    return chunk.first


def stem(name: str) -> str:
    """What stands before the last MARK of a stream's name; "" when there is none."""
    return name.rpartition(MARK)[0]


class ResultTable:
    """The streams of the followed networks, as far as they are remembered.

    `n_partitions` is the number of partitions of every topic; `max_streams`, `max_bytes` and
    `keep_s` bound what is remembered (`keep_s` None: any age).
    """

    def __init__(
        self,
        n_partitions: int,
        *,
        max_streams: int = 100_000,
        max_bytes: int = 64 * 1024 * 1024,
        keep_s: float | None = None,
        stream_bytes: int = _KEPT_PER_STREAM,
    ) -> None:
        self.tally = Tally()
        self._n_partitions = n_partitions
        self._max_streams = max_streams
        self._max_bytes = max_bytes
        self._keep_s = keep_s
        self._stream_bytes = stream_bytes
        self._every: dict[str, int | None] = {}
        self._streams: OrderedDict[tuple[str, int, str], Stream] = OrderedDict()
        self._stems: dict[tuple[str, str], dict[str, int]] = {}
        self._pins: dict[tuple[str, str], int] = {}
        self._n_bytes = 0
        self._newest: dict[tuple[str, int], StreamId] = {}
        self._answered: dict[int, StreamId] = {}  # by hash of the key; the oldest first

    def __len__(self) -> int:
        return len(self._streams)

    @property
    def n_bytes(self) -> int:
        """Bytes that the remembered streams take, about."""
        return self._n_bytes

    def follow(self, network: str, every: int | None) -> None:
        """Take batches of this network, whose readout emits each `every` steps (None: at END)."""
        self._every[network] = every

    @contextmanager
    def pinned(self, network: str, name: str) -> Iterator[None]:
        """Somebody waits for this stream: it is not forgotten meanwhile."""
        key = (network, name)
        self._pins[key] = self._pins.get(key, 0) + 1
        try:
            yield
        finally:
            self._pins[key] -= 1
            if not self._pins[key]:
                del self._pins[key]

    def find(self, network: str, name: str, partition: int | None) -> Stream | None:
        """The stream, if anything is known of it; `partition` None: in the first that knows it."""
        if partition is not None:
            return self._streams.get((network, partition, name))
        for place in self.partitions(network, name):
            return self._streams[network, place, name]
        return None

    def partitions(self, network: str, name: str) -> list[int]:
        """Where streams of this name are known: more than one were torn by a producer."""
        places = range(self._n_partitions)
        return [place for place in places if (network, place, name) in self._streams]

    def siblings(self, network: str, of: str) -> tuple[str, ...]:
        """The names that are remembered with the stem `of`."""
        return tuple(self._stems.get((network, of), ()))

    def was_answered(self, network: str, name: str, partition: int) -> bool:
        """Whether the result of this request is forgotten here, and ingest drops a repeat of it."""
        stream = self._answered.get(hash((network, partition, name)))
        newest = self._newest.get((network, partition))
        return (
            stream is not None
            and newest is not None
            and newest.era == stream.era
            and newest.number - stream.number < REMEMBERED_NAMES
        )

    def feed(
        self, network: str, partition: int, batches: Iterable[Batch], now: float
    ) -> list[Stream]:
        """Take the batches of one frame; the streams that have changed. `now` is in seconds.

        Batches of a network that is not followed, and those that say nothing of a stream's output
        (KILL, ERA), are passed over.
        """
        if network not in self._every:
            return []
        changed = [
            stream
            for batch in batches
            if batch.kind <= Kind.ABORT
            and (stream := self._take(network, partition, batch, now)) is not None
        ]
        self._forget(now)
        return changed

    def lose(self, network: str, partition: int, name: str, error: str) -> bool:
        """Ingest knows the stream no more: it ends here, unless it has. Whether it did just now.

        A stream of a later era, under the same name, takes its place (PROTOCOL 1).
        """
        stream = self._streams.get((network, partition, name))
        if stream is None or stream.final:
            return False
        stream.final, stream.error = True, error
        self._grow(stream, len(error))
        self.tally.finals += 1
        return True

    def _take(self, network: str, partition: int, batch: Batch, now: float) -> Stream | None:
        """One batch; None when it is a repeat."""
        key = (network, partition, batch.name)
        stream = self._streams.get(key)
        if stream is not None and batch.stream > stream.stream:  # 3
            self._remove(key)
            stream = None
        if stream is None:
            stream = self._begin(key, batch, now)
        elif batch.stream < stream.stream or stream.final or _was_taken(stream, batch):
            self.tally.repeats += 1
            return None
        elif batch.window > stream.window and batch.kind is Kind.SPIKES:
            self._skip_to(stream, batch)
        self._apply(stream, batch)
        stream.at = now
        self._streams.move_to_end(key)
        return stream

    def _begin(self, key: tuple[str, int, str], batch: Batch, now: float) -> Stream:
        network, partition, name = key
        stream = Stream(network, partition, name, batch.stream, self._every[network], now)
        stream.n_bytes += len(name)
        if batch.window and batch.kind is Kind.SPIKES:
            self._skip_to(stream, batch)
        self.tally.spread += bool(self.partitions(network, name))
        place = (network, partition)
        self._newest[place] = max(batch.stream, self._newest.get(place, batch.stream))
        self._streams[key] = stream
        self._n_bytes += stream.n_bytes
        if MARK in name:
            names = self._stems.setdefault((network, stem(name)), {})
            names[name] = names.get(name, 0) + 1
        return stream

    def _skip_to(self, stream: Stream, batch: Batch) -> None:
        """The windows before `batch` were not read: where emissions come before END, say so."""
        self.tally.gaps += 1
        if stream.every is not None and (index := batch.start // stream.every) > stream.index:
            stream.index = index
            stream.complete = False

    def _apply(self, stream: Stream, batch: Batch) -> None:
        if batch.kind is Kind.ABORT:
            stream.final = True
            stream.error = batch.error or "The stream was aborted, without a reason."
            self._grow(stream, len(stream.error))
        else:
            stream.window = batch.window + 1
            stream.steps = batch.stop
            stream.final = batch.end
            if batch.payload:
                self._try_to_keep(stream, batch)
        self.tally.finals += stream.final

    def _try_to_keep(self, stream: Stream, batch: Batch) -> None:
        """A damaged payload ends the one stream that it belongs to, as an abort does."""
        try:
            self._keep(stream, batch)
        except PayloadError as error:
            stream.final = True
            stream.error = f"The result of window {batch.window} is damaged: {error}"

    def _keep(self, stream: Stream, batch: Batch) -> None:
        payload = bytes(batch.payload)  # a view would keep the whole frame alive
        n = len(unpack_result(payload))
        stream.chunks.append(Chunk(stream.index, batch.start, batch.stop, payload))
        stream.index += n
        self._grow(stream, len(payload))
        while stream.n_bytes > self._stream_bytes and len(stream.chunks) > 1:  # 5
            oldest = stream.chunks.pop(0)
            self._grow(stream, -len(oldest.payload))
            self.tally.trimmed += stream.chunks[0].first - oldest.first
            stream.complete = False

    def _grow(self, stream: Stream, n_bytes: int) -> None:
        stream.n_bytes += n_bytes
        self._n_bytes += n_bytes

    def _remove(self, key: tuple[str, int, str]) -> None:
        stream = self._streams.pop(key)
        self._n_bytes -= stream.n_bytes
        if MARK in stream.name:
            place = (stream.network, stem(stream.name))
            names = self._stems[place]
            names[stream.name] -= 1
            if not names[stream.name]:
                del names[stream.name]
            if not names:
                del self._stems[place]

    def _forget(self, now: float) -> None:
        """Rule 5. Those that are waited for are passed over, each once."""
        for _ in range(len(self._streams)):
            key, oldest = next(iter(self._streams.items()))
            old = self._keep_s is not None and oldest.at < now - self._keep_s
            if not old and not self._is_over_full():
                return
            if (oldest.network, oldest.name) in self._pins:
                self._streams.move_to_end(key)
                oldest.at = now
            else:
                self._note_answered(key, oldest)
                self._remove(key)
                self.tally.forgotten += 1

    def _note_answered(self, key: tuple[str, int, str], stream: Stream) -> None:
        """Rule 6."""
        if stream.final and MARK in stream.name:
            self._answered.pop(hash(key), None)
            self._answered[hash(key)] = stream.stream
            if len(self._answered) > _MOST_ANSWERED:
                del self._answered[next(iter(self._answered))]

    def _is_over_full(self) -> bool:
        return len(self._streams) > self._max_streams or self._n_bytes > self._max_bytes
