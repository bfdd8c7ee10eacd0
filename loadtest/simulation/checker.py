"""Compares every appended batch with the oracle at once, and judges how everything ended.

The checker knows the log and the oracle, not the workers. An *excuse* is a fault of the schedule
that may cost a stream its result; without one, every stream ends well in every routed network.
"""

import struct
from collections.abc import Callable, Mapping

from loadtest.simulation.oracle import InputLog, Stream
from router.wire import Batch, Frame, Kind, StreamId, decode_frame

__all__ = ["NAMED", "Checker", "Violation"]

NAMED: Mapping[str, frozenset[str]] = {
    "InputLost": frozenset({"truncated", "corrupt", "store lost", "refused", "bits turned"}),
    "EraLost": frozenset({"truncated", "corrupt", "store lost", "bit turned"}),
    "SnapshotCorrupt": frozenset({"corrupt", "bit turned"}),
    "DeadlineMissed": frozenset({"truncated", "corrupt", "store lost", "refused", "bits turned"}),
}
"""What may excuse each named error."""

_OF_FATAL = frozenset({"OperatorFailed", "EncoderFailed", "PoisonBatch", "DeadlineMissed"})
"""How a stream may end that kills operators; the last one when killing it takes too long."""

_KILLED = "killed by its publisher"


class Violation(Exception):
    """The product broke a promise; the text says which, and where."""


class Checker:
    """`logs[input, partition]` are the oracles; `logs_of[network]` is the network's input."""

    def __init__(
        self,
        logs: Mapping[tuple[str, int], InputLog],
        idle_ms: int | None = None,
        is_legible: Callable[[str, int, int], bool] = lambda *_: True,
    ) -> None:
        """`idle_ms`: how long a stream may say nothing, and none is open for ever; None: so long
        as it likes. `is_legible` tells of an input, a partition and an offset whether the record
        there can still be read."""
        self._logs = logs
        self._idle_ms = idle_ms
        self._is_legible = is_legible
        self.refused: set[tuple[int, str]] = set()  # partitions, and names that dead letters tell
        self._by_node: dict[str, str] = {}
        self._by_network: dict[str, str] = {}
        for (name, _), log in logs.items():
            self._by_node.update(dict.fromkeys(log.graph.operator, name))
            self._by_network.update(dict.fromkeys(log.graph.networks, name))
        self.excuses: dict[int, set[str]] = {}
        self.slow: set[int] = set()  # partitions in which neighbours wait while owners die
        self.finals: dict[tuple[int, str, int, int], Batch] = {}
        self._next: dict[tuple[int, StreamId, int, str, str], int] = {}
        self.forced: set[str] = set()  # networks that are removed, whoever has a stream there
        self.n_batches = 0
        self.n_aborts = 0

    def excuse(self, partition: int, why: str) -> None:
        self.excuses.setdefault(partition, set()).add(why)

    # ---- while it runs ------------------------------------------------------------------------

    def appended(self, topic: str, partition: int, value: bytes) -> None:
        """Judge a frame of spikes or results. Raises Violation."""
        frame = decode_frame(value)
        network = topic.removeprefix("snn.out.") if topic.startswith("snn.out.") else ""
        for batch in frame.batches:
            self.n_batches += 1
            if batch.kind is Kind.SPIKES:
                self._spikes(topic, partition, frame, batch, network)
            elif batch.kind is Kind.ABORT:
                self._abort(partition, batch, network)
            if network and (batch.end or batch.kind is Kind.ABORT):
                key = (partition, network, batch.stream.era, batch.stream.number)
                self.finals.setdefault(key, batch)

    def _stream(self, partition: int, batch: Batch) -> Stream:
        log = self._logs[self._by_node[batch.node], partition]
        stream = log.streams.get(batch.stream)
        if stream is None:
            raise Violation(f"a batch of stream {batch.stream}, which the log does not have")
        return stream

    def _spikes(self, topic: str, partition: int, frame: Frame, batch: Batch, network: str) -> None:
        stream = self._stream(partition, batch)
        key = (partition, batch.stream, frame.group, batch.node, network)
        due = self._next.get(key, 0)
        wrong = _fault(stream, frame.group, batch)
        if not wrong and batch.window > due and not self.excuses.get(partition):
            wrong = f"windows {due} to {batch.window - 1} were never emitted"
        if wrong:
            where = f"{batch.stream} at {topic}/{partition} g{frame.group}"
            raise Violation(f"window {batch.window} of {where}: {wrong}")
        self._next[key] = max(due, batch.window + 1)

    def _abort(self, partition: int, batch: Batch, network: str) -> None:
        self.n_aborts += 1
        stream = self._logs[self._by_node[batch.node], partition].streams.get(batch.stream)
        nets = (network,) if network else batch.networks
        if not self._is_excused(partition, stream, batch, nets):
            raise Violation(f"{batch.stream} {batch.name!r}: unexcused {batch.error!r}")
        if not network and stream is not None and (wrong := _mislabelled(stream, batch)):
            raise Violation(f"ABORT of {batch.stream}: {wrong}")

    def _is_excused(
        self, partition: int, stream: Stream | None, batch: Batch, nets: tuple[str, ...]
    ) -> bool:
        excuses = self.excuses.get(partition, set())
        name = batch.error.partition(":")[0]
        if name in NAMED and NAMED[name] & excuses:
            return True
        if name == "DeadlineMissed" and partition in self.slow:
            return True
        if batch.error.startswith(_KILLED):
            return True
        if name == "NetworkRemoved":
            return self.forced.issuperset(nets)
        if name == "StreamIdle" and stream is not None and self._idle_ms is not None:
            return stream.idle.issuperset(nets) and stream.silent_ms >= self._idle_ms
        if name == "AlreadyFinal":  # repeats what is final already (16)
            sid = batch.stream
            return all((partition, n, sid.era, sid.number) in self.finals for n in nets)
        if name in _OF_FATAL and stream is not None:
            return any(stream.is_poisoned(n) for n in nets)
        return False

    # ---- at the end ---------------------------------------------------------------------------

    def open_in(self, network: str) -> bool:
        """Whether a stream is routed to the network and not final there."""
        for (name, partition), log in self._logs.items():
            for stream in log.streams.values():
                key = (partition, network, stream.era, stream.number)
                if network not in stream.networks or key in self.finals:
                    continue
                if stream.era not in log.lost_eras or self._is_known(name, partition, stream):
                    return True
        return False

    def missing(self) -> list[str]:
        """Streams that are not final yet in a network they are routed to."""
        found = []
        for (name, partition), log in self._logs.items():
            for stream in log.streams.values():
                must_end = stream.ended or stream.closed or self._idle_ms is not None
                if stream.era in log.lost_eras:
                    must_end = self._is_known(name, partition, stream)
                if not must_end:
                    continue
                found += [
                    f"{name}/{partition} {stream.name!r} {stream.era}/{stream.number} in {network}"
                    for network in sorted(stream.networks)
                    if (partition, network, stream.era, stream.number) not in self.finals
                ]
        return found

    def _is_known(self, name: str, partition: int, stream: Stream) -> bool:
        """Whether its publisher waits to be told that a stream of a lost era is over, and anybody
        can know of it: its first record is still there, and no later one was refused."""
        is_refused = (partition, stream.name) in self.refused
        return not is_refused and self._is_legible(name, partition, stream.first_at)

    def judge(self) -> None:
        """Every stream that could end well did. Raises Violation."""
        for (partition, network, era, number), batch in self.finals.items():
            log = self._logs[self._by_network[network], partition]
            stream = log.streams.get((era, number))
            if stream is None or batch.kind is Kind.ABORT:
                continue
            if stream.is_poisoned(network):
                raise Violation(f"{stream.name!r} ended well in {network}, but is poisoned")
            if not stream.ended or batch.window != len(stream.cuts) - 1:
                raise Violation(f"{stream.name!r} ended at window {batch.window} in {network}")
        for line in self.missing():
            raise Violation(f"{line} hangs")
        for (name, partition), log in self._logs.items():
            if log.lost_eras and not self.excuses.get(partition):
                raise Violation(f"era {log.lost_eras} of {name}/{partition} was lost for nothing")


def _fault(stream: Stream, group: int, batch: Batch) -> str:
    """What is wrong with a batch of spikes, "" when nothing is."""
    if batch.window >= len(stream.cuts):
        return f"the log has only {len(stream.cuts)} windows"
    if (batch.start, batch.stop, batch.end) != stream.cuts[batch.window]:
        return f"cut {batch[6:10]}, expected {stream.cuts[batch.window]}"
    if wrong := _mislabelled(stream, batch):
        return wrong
    if not batch.networks or not stream.networks.issuperset(batch.networks):
        return f"routed to {batch.networks}, not {set(stream.networks)}"
    values = stream.expected(batch.node, group, batch.window)
    if bytes(batch.payload) != struct.pack(f"<{len(values)}I", *values):
        return "wrong bits"
    return ""


def _mislabelled(stream: Stream, batch: Batch) -> str:
    """What follows goes by the label of a stream's first batch, whichever that is."""
    if (batch.name, batch.seed) == (stream.name, stream.seed):
        return ""
    return f"label {batch.name!r}/{batch.seed}, expected {stream.name!r}/{stream.seed}"
