"""A small network with all of its tasks in this process, whose topics anybody may write to."""

from collections import Counter
from collections.abc import Iterator

import numpy as np

from loadtest.hostile.cases_records import Sample
from router.payload import pack
from router.records import SPIKES, Data, encode_record, record_key
from router.records import Record as Said
from router.results import ResultTable
from router.seals import KEY_BYTES, Keyring, Signed, Trust
from router.topics import DEAD_LETTER, in_topic, out_topic
from router.wire import WireError, decode_frame
from topologies.compiler import compile_network
from topologies.reference import run_streams
from topologies.samples import dense_network, random_spikes
from topologies.stages.base import Array, Encoder
from workers.compute import EncoderEncode, KernelCompute
from workers.eras import Fresh
from workers.ingest import Ingest
from workers.kernel import load_kernel
from workers.reading import Record
from workers.snapshot import Snapshot, Stored
from workers.spec import ingest_spec, task_spec
from workers.task import Task
from workers.tenant import Feed, Halt, Limits, Tenant

__all__ = ["Doors"]

ERA = 1 << 40
_SIZES = (12, 8, 4)
_N_STEPS = 8
_SETTLE_S = 0.2  # longer than an ingest lets windows gather
_NETWORK = compile_network(dense_network(_SIZES, _N_STEPS, name="digits"))
_LIMITS = Limits(remembered_names=4096)


class Doors:
    """Logs of all topics in memory, and every task reading them to their end.

    `is_sealed`: only the tasks have the keys. Otherwise they believe everybody, as if somebody had
    stolen those: what is forged comes further then.
    """

    def __init__(self, *, is_sealed: bool = False) -> None:
        self.logs: dict[str, list[tuple[bytes | None, bytes, bytes]]] = {}
        self.keys = Keyring({1: bytes(KEY_BYTES)}) if is_sealed else Keyring(is_open=True)
        self.tenants: list[Tenant] = [*self._tenants()]
        self._next: dict[tuple[int, str], int] = {}
        self._now = 0.0
        self.input = in_topic(_NETWORK.input.name)
        self.settle()

    def _tenants(self) -> Iterator[Tenant]:
        networks = {_NETWORK.name: _NETWORK}
        for operator in _NETWORK.operators.values():
            if operator.kind == "ingest":
                yield self.ingest(None)
                continue
            for group in _NETWORK.groups[operator.id]:
                spec = task_spec(networks, operator.id, group.index, 0)
                compute = KernelCompute(spec, load_kernel(operator, spec.group))
                yield Task(spec, compute, _LIMITS, keys=self.keys)

    def ingest(self, stored: Stored | None) -> Ingest:
        """An ingest of this network, without a checkpoint or with one."""
        operator = next(o for o in _NETWORK.operators.values() if o.kind == "ingest")
        spec = ingest_spec({_NETWORK.name: _NETWORK}, operator.id, 0)
        encoder = operator.program.stages[-1]
        assert isinstance(encoder, Encoder)
        encode, fresh = EncoderEncode(spec, encoder), Fresh(ERA, 0, 0)
        return Ingest(spec, encode, _LIMITS, fresh, stored, self.keys)

    @property
    def topics(self) -> list[str]:
        return sorted({topic for tenant in self.tenants for topic in tenant.topics} | {DEAD_LETTER})

    @property
    def counts(self) -> Counter[str]:
        return sum((tenant.counts for tenant in self.tenants), Counter())

    def append(
        self, topic: str, key: bytes | None, value: bytes | None, seal: bytes = b""
    ) -> None:
        self.logs.setdefault(topic, []).append((key, value or b"", seal))

    def say(self, said: Said) -> None:
        self.append(self.input, record_key(said), encode_record(said))

    def settle(self) -> None:
        """Until everybody has read, stepped and sent all; some time goes by."""
        self._now += _SETTLE_S
        for tenant in self.tenants:
            tenant.tick(self._now)
        moved = True
        while moved:
            moved = False
            for index, tenant in enumerate(self.tenants):
                moved |= self._step(index, tenant)
                if (snapshot := tenant.snapshot(full=False)) is not None:
                    tenant.committed(snapshot)

    def _step(self, index: int, tenant: Tenant) -> bool:
        """Read, compute and send what there is; whether there was anything."""
        moved = False
        for topic in tenant.topics:
            at, log = self._next.get((index, topic), 0), self.logs.get(topic, [])
            records = [Record(topic, n, 0, *log[n]) for n in range(at, len(log))]
            moved |= bool(records)
            self._feed(index, tenant, topic, records, at)
        while (work := tenant.work()) is not None:
            tenant.apply(work, tenant.compute(work))
            moved = True
        for output in tenant.take_outputs():
            self.append(output.topic, output.key, output.value, output.seal)
            moved = True
        return moved

    def _feed(self, index: int, tenant: Tenant, topic: str, records: list[Record], at: int) -> None:
        feed = Feed(tenant, records)
        while (halt := feed.go()) is Halt.LOOK_UP:  # there is nothing else to be known
            continue
        self._next[index, topic] = at + feed.n_taken
        if halt is Halt.SEEK:
            self._next.update({(index, where): offset for where, offset in feed.seeks.items()})

    # ---- good clients -------------------------------------------------------------------------

    def begin(self, name: str, spikes: Array) -> None:
        """Publish a stream but its last step."""
        payload = pack(spikes[None, :-1], 0, 1)[0]
        self.say(Data(name, seed=1, seq=0, payload=payload, dtype=SPIKES, steps=len(spikes) - 1))

    def finish(self, name: str, spikes: Array) -> None:
        """Publish its last step."""
        payload = pack(spikes[None, -1:], 0, 1)[0]
        self.say(Data(name, seq=1, payload=payload, dtype=SPIKES, steps=1, end=True))

    def answers(self) -> dict[str, tuple[str, list[list[float]]]]:
        """(error, emissions) of each stream that has ended, by name."""
        table = ResultTable(1)
        table.follow(_NETWORK.name, None)
        topic = out_topic(_NETWORK.name)
        for key, value, seal in self.logs.get(topic, []):
            if self.keys.trust(Signed(topic, 0, key, value), seal) is not Trust.GENUINE:
                continue
            try:
                table.feed(_NETWORK.name, 0, decode_frame(value).batches, 0.0)
            except WireError:
                continue
        found = [s.result() for s in table._streams.values() if s.final]
        return {result.name: (result.error, result.values.tolist()) for result in found}

    def samples(self) -> list[Sample]:
        """All records that there are."""
        return [
            Sample(topic, key, value)
            for topic, log in sorted(self.logs.items())
            for key, value, _ in log
        ]


def streams(n: int) -> dict[str, Array]:
    """Spikes (S, n) of good streams, by name."""
    spikes = random_spikes(n, _N_STEPS, _SIZES[0], 0.3, seed=5)
    return {f"good-{index}": spikes[index] for index in range(n)}


def expected(spikes: Array) -> tuple[str, list[list[float]]]:
    """What a good stream is answered."""
    return "", np.asarray(run_streams(_NETWORK, spikes[None])[0]).tolist()


def stored_of(snapshot: Snapshot) -> Stored:
    """A checkpoint as the store would give it back."""
    return Stored(
        number=1,
        heads=(snapshot.head, None),
        streams={field: (blob, None) for field, _, blob in snapshot.changed},
        positions=snapshot.positions,
        cursors={field: cursor for field, cursor, _ in snapshot.changed},
    )
