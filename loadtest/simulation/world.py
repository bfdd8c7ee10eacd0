"""One seeded world: workers that run the product's protocol code, and everything that befalls them.

All that happens is an event of a virtual clock (integer ms), drawn from the seed alone. The code
under test is the product's: `Task`, `Ingest`, `Tenancy`, `LeaseBook`, and the store's scripts.
"""

from functools import cache

from loadtest.simulation.broker import Broker, Log, Place
from loadtest.simulation.checker import Checker, Violation
from loadtest.simulation.clock import Clock
from loadtest.simulation.deployment import Deployment
from loadtest.simulation.faults import Faults
from loadtest.simulation.forger import forge
from loadtest.simulation.host import Host
from loadtest.simulation.oracle import Graph, InputLog
from loadtest.simulation.plan import FORGED, KILL, Plan, Publication
from loadtest.simulation.rest import Rest
from loadtest.simulation.shapes import Shape
from loadtest.simulation.worker import Worker
from router.deadletter import decode as decode_letter
from router.records import Kill, encode_record
from router.seals import Signed, Trust, key_id
from router.store.calls import TaskId
from router.store.simulated import SimulatedStore
from router.topics import DEAD_LETTER, in_topic
from router.wire import Batch, StreamId, WireError, decode_frame
from workers.reading import Record
from workers.tenant import trust

__all__ = ["World"]

_GIVE_UP_MS = 16_000
_GIVE_UP_READING_MS = 80_000
"""Where each repeat of a deadly record costs owners of its own, until its sender has committed."""
_CALM_AFTER_MS = 16
"""How long after the last fault or publication the armed faults may still strike."""


class World:
    """`run` plays the plan to its end and raises Violation when a promise is broken."""

    def __init__(self, plan: Plan, *, trace: bool = False) -> None:
        self.plan = plan
        self.trace: list[str] | None = [] if trace else None
        self.clock = Clock(f"run {plan.seed}")
        self.broker = Broker(self.clock, self._appended, plan.tuning.replicate_ms)
        self.clock_skew = 1_000_000
        self.store = SimulatedStore(lambda: self.clock.now + self.clock_skew)
        self.outage_until = 0
        self.inputs = _oracles(plan)
        self.checker = Checker(self.inputs, plan.tuning.idle_ms, self._is_legible)
        self.workers: list[Worker] = []
        self.deployment = Deployment(self)
        self.faults = Faults(self)
        self.rest = Rest(self)
        self.is_calm = False
        self.n_recoveries = 0
        self._readers: dict[Place, dict[Host, None]] = {}
        self._n_tokens = 0

    # ---- the whole run ------------------------------------------------------------------------

    def run(self) -> None:
        """Play everything. Raises Violation."""
        plan, after = self.plan, self.clock.after
        self.deployment.deploy(tuple(n for n in plan.shape.networks if n not in plan.shape.late))
        for _ in range(plan.n_workers):
            self.start_worker()
        for publication in plan.publications:
            after(publication.at, self._publish, publication)
        if plan.shape.late:
            after(plan.deploy_at, self.deployment.deploy, tuple(plan.shape.networks))
        if plan.removed:
            after(plan.deploy_at, self.deployment.remove, plan.removed, plan.forced)
        for at, kind in plan.faults:
            after(at, self.faults.do, kind)
        after(plan.ends_at + _CALM_AFTER_MS, self._calm_down)
        most_ms = _GIVE_UP_READING_MS if plan.kills_readers and plan.deadly else _GIVE_UP_MS
        if self.clock.run(most_ms):
            self._end(f"not over after {most_ms} ms")
        elif not self._is_over():
            self._end("nothing happens any more")
        self.checker.judge()

    def _end(self, why: str) -> None:
        raise Violation(f"{why}: {self.checker.missing() or self.rest.unrest()}")

    def forget(self) -> None:
        """Take the world apart: all that happens in it refers to it, and it to all of that."""
        for worker in self.workers:
            vars(worker).clear()
        vars(self).clear()

    def _calm_down(self) -> None:
        """No more faults: what is held up goes on, and enough workers live."""
        self.is_calm = True
        self.faults.armed.clear()
        mine = (w for w in self.workers if w.alone is None)
        if not any(w.is_alive and not w.book.is_stopping for w in mine):
            self.start_worker()
        self.clock.after(10, self._look)

    def _look(self) -> None:
        """Until every stream is final and every task quiet."""
        if self._is_over():
            self.clock.stop()
        else:
            self.clock.after(30, self._look)

    def _is_over(self) -> bool:
        return not self.checker.missing() and not self.rest.unrest()

    # ---- what everyone shares -----------------------------------------------------------------

    def note(self, text: str) -> None:
        if self.trace is not None:
            self.trace.append(f"{self.clock.now:5d} {text}")

    def new_token(self) -> str:
        self._n_tokens += 1
        return f"t{self._n_tokens}"

    def strikes(self, fault: str) -> bool:
        """Whether an armed fault of this kind happens now; it happens once."""
        if fault not in self.faults.armed:
            return False
        self.faults.armed.remove(fault)
        return True

    def store_of(self, worker: Worker) -> SimulatedStore | None:
        """The store, if this worker can reach it now."""
        now = self.clock.now
        return None if self.outage_until > now or worker.astray_until > now else self.store

    def start_worker(self, alone: TaskId | None = None, parent: Worker | None = None) -> Worker:
        name = f"w{len(self.workers) + 1}"
        rate = (1000, 1000, 800, 1250)[self.clock.draw(4)]
        worker = Worker(self, name, rate, alone, parent)
        self.workers.append(worker)
        return worker

    def read_by(self, place: Place, host: Host) -> None:
        self._readers.setdefault(place, {})[host] = None

    def unread_by(self, host: Host) -> None:
        """The host is gone: its task may be claimed again."""
        for readers in self._readers.values():
            readers.pop(host, None)
        for worker in self.workers:
            worker.rouse()

    # ---- the log ------------------------------------------------------------------------------

    def _appended(self, log: Log, record: Record) -> None:
        topic, partition = log.place
        is_ours = trust(self.deployment.every_key, record, partition) is Trust.GENUINE
        if self.trace is not None:
            forged = "" if is_ours else " unsealed"
            self.note(f"{topic}/{partition}@{record.offset}{forged} {_said(record)}")
        if not log.holds(record):
            pass  # nobody is given it
        elif topic.startswith("snn.in."):
            sealed_by = key_id(record.seal) if is_ours else None
            name = topic.removeprefix("snn.in.")
            log_of = self.inputs[name, partition]
            log_of.append(record, log.whole_from, sealed_by, self.clock.now)
        elif topic == DEAD_LETTER and is_ours:
            letter = decode_letter(record.value)
            self.checker.refused.add((letter.partition, letter.name))
        elif is_ours:
            self.checker.appended(topic, partition, record.value)
        draw, fetch_ms = self.clock.draw, self.plan.tuning.fetch_ms
        for host in self._readers.get(log.place, ()):
            host.wake(1 + draw(fetch_ms))

    def _is_legible(self, name: str, partition: int, offset: int) -> bool:
        """Whether whoever reads the input now is given the record there."""
        log = self.broker.log(in_topic(name), partition)
        return offset >= log.start and log.holds(log.records[offset])

    def _publish(self, said: Publication) -> None:
        if said.value == FORGED:
            forge(self)
            return
        topic, value, seal = in_topic(said.input), said.value, b""
        if value == KILL:
            kill = self._kill_of_any(said)
            if kill is None:
                return
            value = encode_record(kill)
            signed = Signed(topic, said.partition, said.key, value)
            seal = self.deployment.every_key.seal(signed)
        self.broker.append(topic, said.key, said.partition, value, seal)

    def _kill_of_any(self, said: Publication) -> Kill | None:
        log = self.inputs[said.input, said.partition]
        mine = [s for (era, _), s in log.streams.items() if era == log.era]
        if not mine:
            return None
        stream = mine[self.clock.draw(len(mine))]
        nets = sorted(stream.networks)[: 1 + self.clock.draw(2)]
        sid = StreamId(stream.era, stream.number)
        return Kill(sid, stream.name, tuple(nets), "killed by its publisher")


def _oracles(plan: Plan) -> dict[tuple[str, int], InputLog]:
    shape = plan.shape
    logs = {}
    for name in shape.inputs:
        graph = _graph(shape, name, plan.poisoned, plan.deadly)
        for partition in range(plan.n_partitions):
            logs[name, partition] = InputLog(graph, partition)
    return logs


@cache
def _graph(shape: Shape, input: str, poisoned: frozenset[str], deadly: frozenset[str]) -> Graph:
    mine = {n: net for n, net in shape.networks.items() if net.input.name == input}
    return Graph(mine, shape.every, poisoned, deadly)


def _said(record: Record) -> str:
    """A record for the trace."""
    if record.topic == DEAD_LETTER:
        return ""
    try:
        return " ".join(map(_told, decode_frame(record.value).batches))
    except WireError:
        return f"{record.key!r} {record.value[:90]!r}"


def _told(b: Batch) -> str:
    end = "/end" if b.end else ""
    return (
        f"[{b.node[:4]} {b.kind.name}{end} {b.stream.era % 1000}/{b.stream.number} w{b.window}"
        f" {b.start}:{b.stop} {','.join(b.networks)} {b.error}]"
    )
