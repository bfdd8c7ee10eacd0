"""What must come out: one plain reading of the input log, and one slow run of each stream.

Nothing of `workers` is used here but the arithmetic of `numbers`. An `InputLog` reads every record
of one input and partition as it is appended and decides what a perfect ingest would: eras, numbers,
names, windows. A `Stream` then computes, step by step, what each node emits.
"""

from collections.abc import Mapping

from loadtest.simulation.numbers import DEADLY_SEED, POISON_SEED, emit, mix, mix_event, salt
from router.records import Data, Era, Kill, RecordError, Route, parse_record
from topologies.compiled import CompiledNetwork
from workers.reading import Record

__all__ = ["Graph", "InputLog", "Stream"]

_MAX_HELD = 64
Source = tuple[str, int, int]
"""(node, group, delay)."""


class Graph:
    """All nodes that hang on one input, over all networks, deployed yet or not."""

    def __init__(
        self,
        networks: Mapping[str, CompiledNetwork],
        every: Mapping[str, int | None],
        poisoned: frozenset[str] = frozenset(),
        deadly: frozenset[str] = frozenset(),
    ) -> None:
        self.networks = networks
        self.ingest = next(iter(networks.values())).input.node
        self.longest = next(iter(networks.values())).input.longest_window
        self.operator: dict[str, str] = {}
        self.groups: dict[str, int] = {}
        self.sources: dict[str, tuple[Source, ...]] = {}
        self.every: dict[str, int | None] = {}
        self.readouts: dict[str, str] = {}
        self.nodes_of: dict[str, frozenset[str]] = {}
        for name, network in networks.items():
            self.readouts[name] = network.readout
            self.nodes_of[name] = frozenset(network.nodes)
            for node in network.nodes.values():
                self.operator[node.id] = node.operator
                self.groups[node.id] = len(network.groups[node.operator])
                self.sources[node.id] = tuple(
                    (edge.source, group.index, edge.delay)
                    for edge in node.edges
                    for group in network.groups[network.nodes[edge.source].operator]
                )
                if network.readout == node.id:
                    self.every[node.id] = every[node.operator]
        self.order = [n for n in self.sources if n != self.ingest]
        self.fatal_nodes = {POISON_SEED: self._below(poisoned), DEADLY_SEED: self._below(deadly)}
        """Nodes that a stream of this seed does not pass."""

    def _below(self, operators: frozenset[str]) -> frozenset[str]:
        """Nodes of these operators and everything that hears of them."""
        found = {n for n in self.order if self.operator[n] in operators}
        while True:
            more = {n for n in self.order if any(s in found for s, _, _ in self.sources[n])}
            if more <= found:
                return frozenset(found)
            found |= more


class Stream:
    """One stream as the log has it: its steps, its windows, and what each node makes of them."""

    def __init__(
        self, graph: Graph, era: int, number: int, name: str, nets: frozenset[str], seed: int
    ) -> None:
        self.graph = graph
        self.era, self.number, self.name, self.seed = era, number, name, seed
        self.networks = nets
        self.killed: set[str] = set()
        self.values: list[int] = []
        self.cuts: list[tuple[int, int, bool]] = []
        self.ended = False  # its last window is cut
        self.closed = False  # no more records
        self.next_seq = 0
        self.held: dict[int, Data] = {}
        self.first_at = -1  # offset of its first record,
        self.said_at = -1  # and of its last one
        self.said_when = 0  # ms
        self.silent_ms = 0  # when it was killed for its silence,
        self.idle: set[str] = set()  # in these networks
        self.pieces: dict[int, int] = {}
        self.events: list[tuple[int, int, int]] = []
        self.known = 0
        self._h = {
            (node, group): salt(graph.operator[node], group)
            for node in graph.order
            for group in range(graph.groups[node])
        }
        self._out: dict[tuple[str, int], list[int]] = {key: [] for key in self._h}
        self._emitted: dict[str, dict[int, int]] = {n: {} for n in graph.every}
        self._done = 0

    def expected(self, node: str, group: int, window: int) -> list[int]:
        """The numbers that `node` emits in `window`."""
        start, stop, end = self.cuts[window]
        if node == self.graph.ingest:
            return self.values[start:stop]
        self._advance(stop)
        if node not in self._emitted:
            return self._out[node, group][start:stop]
        found = self._emitted[node]
        values = [found[t] for t in range(start + 1, stop + 1) if t in found]
        last = max(found, default=-1)
        if end and (last < 0 or last < stop):
            values.append(self._h_at_end(node))
        return values

    def _h_at_end(self, node: str) -> int:
        return emit(self._h[node, 0])

    def _advance(self, stop: int) -> None:
        graph = self.graph
        while self._done < stop:
            t = self._done
            for node in graph.order:
                for group in range(graph.groups[node]):
                    self._step(node, group, t)
            self._done += 1

    def _step(self, node: str, group: int, t: int) -> None:
        graph = self.graph
        h = self._h[node, group]
        for index, (source, of, delay) in enumerate(graph.sources[node]):
            if t < delay:
                x = 0
            elif source == graph.ingest:
                x = self.values[t - delay]
            else:
                x = self._out[source, of][t - delay]
            h = mix(h, index, x)
        self._out[node, group].append(emit(h))
        if node in self._emitted:
            every = graph.every[node]
            if every and (t + 1) % every == 0:
                self._emitted[node][t + 1] = emit(h)
                h = salt(graph.operator[node], group)
        self._h[node, group] = h

    def is_poisoned(self, network: str) -> bool:
        """Whether the stream must end with an error in this network, for what it contains."""
        if self.seed == POISON_SEED + 1:
            return len(self.cuts) > 1
        fatal = self.graph.fatal_nodes.get(self.seed, frozenset())
        return len(self.cuts) > 1 and not fatal.isdisjoint(self.graph.nodes_of[network])


def _end(stream: "Stream", networks: tuple[str, ...]) -> None:
    """End the stream in these networks; in all of them, it takes no more records."""
    stream.killed |= stream.networks.intersection(networks)
    if stream.killed >= stream.networks:
        stream.closed = True


class InputLog:
    """A perfect ingest's reading of one input topic and partition."""

    def __init__(self, graph: Graph, partition: int) -> None:
        self.graph = graph
        self.partition = partition
        self.streams: dict[tuple[int, int], Stream] = {}
        self.era = 0
        self.predecessor = 0
        self.era_at = -1
        self.lost_eras: set[int] = set()
        self.rejected: dict[int, str] = {}
        self._routes: tuple[str, ...] = ()
        self._max_streams: int | None = None
        self._now = 0
        self._names: dict[str, tuple[Stream, bytes]] = {}
        self._routed_by = 0
        self._before: list[tuple[Data | Era | Route | Kill, int, bytes, int]] = []
        self._next = 0

    def append(self, record: Record, log_start: int, sealed_by: int | None, now: int = 0) -> None:
        """Take a record in; `log_start` is the first offset that the log still has, `sealed_by` the
        key of the system that sealed the record, None when it did not."""
        self._now = now
        _, offset, _, key, value, _ = record
        try:
            said = parse_record(key, value, self.partition, offset)
        except RecordError as error:
            self.rejected[offset] = str(error)
            return
        if sealed_by is None and not isinstance(said, Data):
            self.rejected[offset] = "Unsealed"
        elif isinstance(said, Era):
            self._read_era(said, offset, log_start)
        elif self.era == 0:
            self._before.append((said, offset, value, sealed_by or 0))
        else:
            self._read(said, offset, value, sealed_by or 0)

    def _read_era(self, said: Era, offset: int, log_start: int) -> None:
        follows = said.predecessor == self.era and said.era > self.era
        nobody_knows = said.era > self.era and self.era_at < log_start
        if not (follows or nobody_knows):
            return
        if self.era:
            self.lost_eras.add(self.era)
        first = self.era == 0 and log_start == 0
        self.era, self.predecessor, self.era_at = said.era, said.predecessor, offset
        self._routes, self._routed_by = said.networks, said.routed_by
        self._max_streams = said.max_streams
        self._names = {}
        self._next = 0
        waiting, self._before = self._before, []
        if first:
            self._routed_by = 0
            for each in waiting:
                self._read(*each)

    def _read(
        self, said: Data | Era | Route | Kill, offset: int, value: bytes, sealed_by: int
    ) -> None:
        if isinstance(said, Route):
            if sealed_by < self._routed_by:
                self.rejected[offset] = "Superseded"
                return
            self._routes, self._routed_by = said.networks, sealed_by
            self._max_streams = said.max_streams
            for stream in [s for s in self.streams.values() if not s.closed]:
                if stream.era == self.era:
                    _end(stream, said.ends)
        elif isinstance(said, Kill):
            self._kill(said)
        elif isinstance(said, Data):
            reason = self._data(said, offset, value)
            if reason:
                self.rejected[offset] = reason

    def _kill(self, said: Kill) -> None:
        stream = self.streams.get(said.stream)
        if stream is None or said.stream.era != self.era or said.if_final:
            return  # who only asks changes nothing
        if said.since is not None:
            if stream.closed or stream.said_at >= said.since:
                return
            stream.idle |= set(said.networks)
            stream.silent_ms = self._now - stream.said_when
        _end(stream, said.networks)

    def _data(self, data: Data, offset: int, value: bytes) -> str:
        known = self._names.get(data.name)
        if known is None:
            return self._open(data, offset, value)
        stream, first = known
        if data.request:
            return "" if first == value else "duplicate_stream"
        if stream.closed:
            return "duplicate_stream"
        stream.said_at, stream.said_when = offset, self._now
        return self._sequence(stream, data)

    def _is_full(self) -> bool:
        """Whether no stream may open any more."""
        n_open = sum(era == self.era and not s.closed for (era, _), s in self.streams.items())
        return self._max_streams is not None and n_open >= self._max_streams

    def _open(self, data: Data, offset: int, value: bytes) -> str:
        wanted = self._routes if data.networks is None else data.networks
        if not wanted or not set(wanted) <= set(self._routes):
            return "networks"
        if not data.request and self.predecessor and data.seq != 0:
            return "InputLost"
        is_whole = data.request or (data.end and not data.seq)
        if not is_whole and self._is_full():
            return "TooManyStreams"
        nets = frozenset(wanted)
        stream = Stream(self.graph, self.era, self._next, data.name, nets, data.seed)
        stream.first_at = offset
        stream.said_at, stream.said_when = offset, self._now
        reason = self._sequence(stream, data)
        if not reason:
            self.streams[self.era, self._next] = stream
            self._names[data.name] = (stream, value)
            self._next += 1
        return reason

    def _sequence(self, stream: Stream, data: Data) -> str:
        if data.seq is None:
            return self._take(stream, data)
        if data.seq < stream.next_seq or data.seq in stream.held:
            return ""
        if data.seq > stream.next_seq:
            if len(stream.held) >= _MAX_HELD:
                return "seq"
            stream.held[data.seq] = data
            return ""
        reason = self._take(stream, data)
        if reason:
            return reason
        stream.next_seq += 1
        while stream.next_seq in stream.held:
            self._take(stream, stream.held.pop(stream.next_seq))
            stream.next_seq += 1
        return ""

    def _take(self, stream: Stream, data: Data) -> str:
        if stream.closed:
            return "closed"
        events = sorted(data.events or ())
        if any(address > 99 for _, address, _ in events):
            return "address"
        known = stream.known
        if data.payload is not None:
            for t, byte in enumerate(data.payload):
                stream.pieces[known + t] = byte
            known += len(data.payload)
        fresh = [e for e in events if e[0] >= stream.known]
        stream.events = sorted([*stream.events, *fresh])
        if data.until is not None:
            known = max(known, data.until)
        elif fresh:
            known = max(known, fresh[-1][0])
        stream.closed = data.end or data.request
        if stream.closed and stream.events:
            known = max(known, stream.events[-1][0] + 1)
        self._cut(stream, known)
        return ""

    def _cut(self, stream: Stream, known: int) -> None:
        """Windows no longer than the longest; the last one says END, with no steps if need be."""
        start = stream.known
        for t in range(start, known):
            value = stream.pieces[t] + 1 if t in stream.pieces else 0
            for at, address, weight in stream.events:
                if at == t:
                    value = mix_event(value, address, weight)
            stream.values.append(value)
        stream.known = known
        at = start
        while at < known or (stream.closed and not stream.ended):
            stop = min(at + self.graph.longest, known)
            stream.ended = stream.closed and stop == known
            stream.cuts.append((at, stop, stream.ended))
            at = stop
