"""What a seed means: a small network, some streams, and a few faults, drawn before the world runs.

Faults are biased towards the instants at which protocols break: right after and right before a
commit, while acknowledgements are outstanding, and around hand-overs (docs/protocol.md).
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from random import Random

from loadtest.simulation.numbers import DEADLY_SEED, POISON_SEED
from loadtest.simulation.shapes import SHAPES, Shape, build
from router.records import Data, Era, Kill, Route, encode_record, record_key
from router.wire import StreamId

__all__ = ["FAULTS", "FORGED", "GAPS", "KILL", "Plan", "Publication", "Tuning", "draw"]

FAULTS = (
    "crash", "crash after commit", "crash before commit", "lost ack", "pause", "failover",
    "failover after commit", "store lost", "outage", "hand over", "corrupt", "clock jump",
    "truncate", "send failed", "lost reply", "cut off", "astray", "leader change", "echo",
    "torn checkpoint", "crash after abort", "seek back",
    "commit lost", "die out", "task fails", "turned bit",
)  # fmt: skip
_WEIGHTS = (
    *(4, 6, 4, 3, 4, 2, 5, 1, 2, 3, 3, 1, 1, 1, 2, 2, 2, 2, 2, 3, 2, 2, 3, 2, 2, 3),
    *(3, 2, 1),
)
GAPS = ("markers", "garbage", "damage")
"""Offsets of a log that give nobody a record: drawn by themselves, beside the other faults."""


EVICT = "evict"
"""The store drops keys of its own choice, perhaps while every owner dies: drawn by itself, too."""
KILL = b"kill"
"""Stands for a KILL of any stream, whose era only the world knows."""
FORGED = b"forged"
"""Stands for what somebody without keys makes of some record that lies in a topic."""


_N_DEATHS = 3


@dataclass(frozen=True)
class Publication:
    at: int
    input: str
    partition: int
    key: bytes | None
    value: bytes


@dataclass(frozen=True)
class Tuning:
    """Delays in virtual ms, the size of batches, and how far tasks may run ahead.

    `max_streams` may be open at once, and say nothing for `idle_ms`; ingest tells each `over_ms`
    which streams are over.
    """

    send_ms: int
    ack_ms: int
    fetch_ms: int
    compute_ms: int
    commit_every_ms: int
    max_batch: int
    most_ahead: int
    stream_windows: int
    flight_bytes: int
    uncommitted_bytes: int
    chunk: int
    replicate_ms: int
    frame_bytes: int
    max_streams: int | None
    idle_ms: int | None
    over_ms: int


@dataclass(frozen=True)
class Plan:
    """`deploy_at` is when a late network comes, or when the one `removed` ("": none) goes.

    `forced`: its streams that have not been told to end are ended then. What is `deadly` takes the
    process along that steps it, or already the one that reads it if it `kills_readers`.
    """

    seed: int
    shape: Shape
    n_partitions: int
    n_workers: int
    ttl_ms: int
    tuning: Tuning
    publications: tuple[Publication, ...]
    faults: tuple[tuple[int, str], ...]
    deploy_at: int
    removed: str
    forced: bool
    poisoned: frozenset[str]
    deadly: frozenset[str]
    kills_readers: bool

    @property
    def ends_at(self) -> int:
        """When the last fault, publication or deployment comes."""
        times = (*(p.at for p in self.publications), *(at for at, _ in self.faults))
        return max((*times, self.deploy_at))


def draw(
    seed: int, *, shape: str = "", faults: tuple[str, ...] | None = None, fatal: str = ""
) -> Plan:
    """The plan of a seed; `shape` and `faults` (kinds to draw from, maybe none) narrow it.

    With `faults` there are more of them: from 2 to 6, instead of up to 4.

    With `fatal` "poison" some operator surely fails on some streams, with "deadly" it kills the
    process, with "unreadable" already when it is read: every tenth and every twentieth seed have
    that anyway. With "forged" somebody without keys writes what the system might have said; every
    eighth has that.
    """
    rng = Random(f"world {seed}")
    names = sorted(SHAPES)
    chosen = shape or names[seed % len(names)]
    longest = rng.choice((2, 3, 4))
    world = build(chosen, longest)
    n_partitions = 2 if rng.random() < 0.15 else 1
    deploy_at = rng.randrange(10, 60)
    poisoned = _operator(rng, world, 1.0 if fatal == "poison" else 0.1)
    deadly = _operator(rng, world, 1.0 if fatal in ("deadly", "unreadable") else 0.05)
    seeds = [POISON_SEED + (rng.random() < 0.3)] * len(poisoned) + [DEADLY_SEED] * len(deadly)
    publications = _publications(rng, world, n_partitions, deploy_at, seeds)
    # Of its own, so that what else a seed means stays as it was.
    limits = Random(f"limits {seed}")
    max_streams, idle_ms, over_ms = _bounds(limits)
    publications = _open_ended(limits, world, n_partitions, publications, max_streams, idle_ms)
    publications += _forged(rng, publications, 1.0 if fatal == "forged" else 0.12)
    kills_readers = Random(f"reads {seed}").random() < 0.4 and not fatal
    kinds = FAULTS if faults is None else faults
    weights = [_WEIGHTS[(*FAULTS, *GAPS).index(k)] for k in kinds]
    n_faults = rng.choice((0, 1, 1, 2, 2, 3, 4) if faults is None else (2, 3, 4, 6))
    drawn = rng.choices(kinds, weights, k=n_faults) if kinds else []
    n_workers, ttl_ms = rng.choice((1, 2, 2, 3)), rng.choice((80, 120))
    return Plan(
        seed=seed, shape=world, n_partitions=n_partitions, n_workers=n_workers,
        ttl_ms=ttl_ms, publications=publications,
        tuning=replace(_tuning(rng), max_streams=max_streams, idle_ms=idle_ms, over_ms=over_ms),
        faults=tuple(
            sorted(
                [
                    *(fault for kind in drawn for fault in _times(rng, kind, ttl_ms)),
                    *_gaps(seed, faults is None),
                    *_evictions(seed, faults is None),
                ]
            )
        ),
        deploy_at=deploy_at, removed=_removed(rng, world), forced=rng.random() < 0.5,
        poisoned=poisoned, deadly=deadly,
        kills_readers=kills_readers or fatal == "unreadable",
    )  # fmt: skip


def _gaps(seed: int, may: bool) -> list[tuple[int, str]]:
    """When logs get gaps, which every third world has, and every third of those by damage."""
    rng = Random(f"gaps {seed}")
    if not may or rng.random() > 0.3:
        return []
    kinds = GAPS if rng.random() < 0.3 else GAPS[:2]
    return [(rng.randrange(5, 115), rng.choice(kinds)) for _ in range(rng.randrange(1, 5))]


def _evictions(seed: int, may: bool) -> list[tuple[int, str]]:
    """When the store evicts, which every twentieth world has."""
    rng = Random(f"evictions {seed}")
    return [(rng.randrange(20, 115), EVICT)] if may and rng.random() < 0.05 else []


def _times(rng: Random, kind: str, ttl_ms: int) -> Iterator[tuple[int, str]]:
    """When a fault comes. Owners die out until a task is suspicious, and once more (28)."""
    at = rng.randrange(5, 115)
    yield from ((at + n * 2 * ttl_ms, kind) for n in range(_N_DEATHS if kind == "die out" else 1))


def _tuning(rng: Random) -> Tuning:
    return Tuning(
        send_ms=rng.choice((1, 1, 3, 12)), ack_ms=rng.choice((1, 2, 8)),
        fetch_ms=rng.choice((2, 4, 8)), compute_ms=rng.choice((0, 0, 2, 6)),
        commit_every_ms=rng.choice((20, 40, 80)), max_batch=rng.choice((1, 2, 64)),
        most_ahead=rng.choice((0, 1, 31)), stream_windows=rng.choice((1, 2, 8, 64)),
        flight_bytes=rng.choice((500, 2_000, 1_000_000)),
        uncommitted_bytes=rng.choice((600, 3_000, 1_000_000)), chunk=rng.choice((1, 3, 16, 16)),
        replicate_ms=rng.choice((0, 0, 3, 10)), frame_bytes=rng.choice((1_500, 900_000, 900_000)),
        max_streams=None, idle_ms=None, over_ms=3000,
    )  # fmt: skip


def _bounds(rng: Random) -> tuple[int | None, int | None, int]:
    """Streams that may be open, how long they may be silent, and how often ingest tells of ends."""
    max_streams = rng.choice((1, 2, 3)) if rng.random() < 0.25 else None
    idle_ms = rng.choice((60, 250)) if rng.random() < 0.25 else None
    return max_streams, idle_ms, rng.choice((20, 100, 3000))


def _open_ended(
    rng: Random,
    shape: Shape,
    n_partitions: int,
    said: tuple[Publication, ...],
    max_streams: int | None,
    idle_ms: int | None,
) -> tuple[Publication, ...]:
    """Besides, where there are limits: streams that nobody ends, that lack a record, that speak
    again when they have nearly been silent for too long; and ends without a number."""
    if max_streams is None and idle_ms is None:
        return said
    found = [*said]
    for index in range(rng.randrange(1, 4)):
        at, name = rng.randrange(1, 70), f"o{index}"
        source, partition = rng.choice(shape.inputs), rng.randrange(n_partitions)
        numbers = rng.choice(((None, None), (0, 1), (0, 2), (1, 2)))
        mine = [(at, Data(name, seed=index, until=2, seq=numbers[0]))]
        pause = (idle_ms or 20) + rng.randrange(-15, 40)
        mine.append((at + pause, Data(name, seed=index, until=5, seq=numbers[1])))
        if idle_ms is None or rng.random() < 0.3:  # as the command `end` says it
            mine.append((at + pause + rng.randrange(20), Data(name, networks=(), end=True)))
        values = [(t, record_key(d), encode_record(d)) for t, d in mine]
        values.append((at, None, b'{"id": "%s", "until": 3, "seq": 1}' % name.encode()))
        found += [Publication(t, source, partition, k, v) for t, k, v in values]
    return tuple(sorted(found, key=lambda p: p.at))


def _removed(rng: Random, shape: Shape) -> str:
    """A network that goes while another stays, or ""."""
    may_go = len(shape.networks) > 1 and not shape.late
    return rng.choice(sorted(shape.networks)) if may_go and rng.random() < 0.4 else ""


def _operator(rng: Random, shape: Shape, chance: float) -> frozenset[str]:
    """Some operator that is no ingest, or none."""
    if rng.random() >= chance:
        return frozenset()
    summaries = shape.networks[min(shape.networks)].summaries
    return frozenset({rng.choice(sorted(o for o, s in summaries.items() if s.kind != "ingest"))})


def _publications(
    rng: Random, shape: Shape, n_partitions: int, deploy_at: int, seeds: list[int]
) -> tuple[Publication, ...]:
    found: list[Publication] = []
    for index in range(rng.choice((1, 2, 3, 3, 5))):
        topic = rng.choice(shape.inputs)
        partition = rng.randrange(n_partitions)
        at = rng.randrange(1, 70)
        is_late = bool(shape.late) and at > deploy_at + 5
        nets = _networks(rng, shape, topic, is_late)
        seed = rng.choice(seeds) if seeds and rng.random() < 0.5 else index
        make = _request if rng.random() < 0.45 else _stream
        name = f"s{rng.randrange(index + 1) if rng.random() < 0.1 else index}"
        for delay, data in make(rng, name, nets, seed):
            value = _native_or_json(rng, data)
            found.append(Publication(at + delay, topic, partition, record_key(data), value))
    found += _hostile(rng, shape, n_partitions, found)
    return tuple(sorted(found, key=lambda p: p.at))


def _networks(rng: Random, shape: Shape, input: str, is_late: bool) -> tuple[str, ...] | None:
    mine = [n for n, net in sorted(shape.networks.items()) if net.input.name == input]
    mine = [n for n in mine if is_late or n not in shape.late]
    return (rng.choice(mine),) if rng.random() < 0.2 else None


Said = list[tuple[int, Data]]


def _request(rng: Random, name: str, nets: tuple[str, ...] | None, seed: int) -> Said:
    if rng.random() < 0.3:
        until = rng.randrange(1, 9)
        events = tuple((rng.randrange(until), rng.randrange(9), 1) for _ in range(3))
        data = Data(name, nets, seed, True, events=events, until=until)
    else:
        body = rng.randbytes(rng.randrange(1, 10))
        data = Data(name, nets, seed, True, payload=body, dtype="uint8", shape=(len(body),))
    again = [(rng.randrange(1, 60), data)] if rng.random() < 0.15 else []
    return [(0, data), *again]


def _stream(rng: Random, name: str, nets: tuple[str, ...] | None, seed: int) -> Said:
    """An endless stream, at last ended: events, time marks and samples, with or without seq."""
    said: Said = []
    known, at, numbered = 0, 0, rng.random() < 0.5
    n_records = rng.randrange(2, 5)
    for index in range(n_records):
        seq = index if numbered else None
        data = Data(name, nets, seed, end=index == n_records - 1, seq=seq)
        if rng.random() < 0.4:
            body = rng.randbytes(rng.randrange(1, 5))
            data = replace(data, payload=body, dtype="uint8", shape=(len(body),))
            known += len(body)
        else:
            until = known + rng.randrange(1, 6)
            steps = [rng.randrange(max(0, known - 1), until) for _ in range(2)]
            events = tuple((step, rng.randrange(9), 1) for step in steps)
            data = replace(data, events=events, until=until)
            known = until
        said.append((at, data))
        at += rng.randrange(1, 20)
    if numbered:
        said += [(t + rng.randrange(1, 9), d) for t, d in said if rng.random() < 0.2]
        if len(said) > 2 and rng.random() < 0.3:  # two gateways: out of order
            said[1], said[2] = (said[2][0], said[1][1]), (said[1][0], said[2][1])
            said.sort(key=lambda pair: pair[0])
    return said


def _native_or_json(rng: Random, data: Data) -> bytes:
    if data.payload is None and data.seed < 2**31 and rng.random() < 0.1:
        content: dict[str, object] = {"id": data.name} if data.request else {}
        fields = ("networks", "seed", "events", "until", "end", "seq")
        content |= {f: v for f in fields if (v := getattr(data, f)) not in (None, False)}
        return json.dumps(content).encode()
    return encode_record(data)


def _forged(rng: Random, said: tuple[Publication, ...], chance: float) -> tuple[Publication, ...]:
    """What must not count, though it has the right form (35)."""
    if rng.random() >= chance:
        return ()
    nowhere = encode_record(Route(()))
    near = [rng.choice(said) for _ in range(rng.randrange(4, 9))]
    return tuple(
        Publication(p.at + rng.randrange(30), p.input, p.partition, None, value)
        for p in near
        for value in (rng.choice((FORGED, FORGED, FORGED, nowhere)),)
    )


def _hostile(
    rng: Random, shape: Shape, n_partitions: int, said: list[Publication]
) -> list[Publication]:
    """What must hurt nobody else: garbage, wrong names, zombies' eras, kills from outside."""
    if rng.random() > 0.3:
        return []
    victim = rng.choice(said)
    stray = Kill(StreamId(1, 0), "s0", ("n",), "killed by its publisher")
    astray = Data("bad", payload=b"1", dtype="uint8", shape=(1,), networks=("who",))
    far = Data("far", request=True, events=((0, 1000, 1),))
    values = (
        (None, b"\x93 no record"), (b"s0", b"{no json"), (b"", b""), (None, FORGED),
        (b"\xff", encode_record(Era(9, 7, ("n",)))), (None, encode_record(Era(5, 4, ("n",)))),
        (None, encode_record(stray)), (victim.key, KILL), (None, KILL),
        (b"bad", encode_record(astray)), (None, encode_record(far)), (None, FORGED),
    )  # fmt: skip
    found = []
    for _ in range(rng.randrange(1, 4)):
        key, value = rng.choice(values)
        at = victim.at + rng.randrange(20)
        found.append(Publication(at, victim.input, victim.partition, key, value))
    return found
