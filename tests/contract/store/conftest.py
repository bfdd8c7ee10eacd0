"""One server facade for the simulated store and the real one, so that one suite runs on both.

Time passes by moving the server's clock: of the simulated store its own, of the real one by moving
every stored time the other way, which no script can tell apart. So no test waits.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import pytest
import redis

from router.store import calls
from router.store.calls import (
    BlobWrite,
    Call,
    Claimed,
    ClaimReply,
    CommitOutcome,
    Position,
    StoredCheckpoint,
    TaskId,
    TaskSpec,
    WorkerInfo,
)
from router.store.nodes import split_url
from router.store.redis import RedisStore
from router.store.simulated import SimulatedStore, Snapshot

T = TypeVar("T")
Dump = dict[bytes, tuple[object, bool]]

TTL = 95_000  # ms; tests move the clock by multiples of 10 s, so 5 s always decide a comparison
KINDS = ("synaptic",)
START = 1_700_000_000_000
_TIMES = (b"deadline", b"settle_until", b"seen", b"wanted_until", b"alone_until", b"committed")


@dataclass(frozen=True, eq=False)
class About:
    """A time in ms that equals any other less than 4 s away; tests differ by 5 s or more."""

    ms: int

    def __eq__(self, other: object) -> bool:
        return isinstance(other, About) and abs(self.ms - other.ms) < 4000


class Server(ABC):
    """A store together with its clock, its identity and its accidents."""

    @abstractmethod
    def run(self, call: Call[T]) -> T: ...

    @abstractmethod
    def write_blobs(self, writes: Sequence[BlobWrite]) -> None: ...

    @abstractmethod
    def load(self, task: TaskId) -> StoredCheckpoint | None: ...

    @abstractmethod
    def dump(self) -> Dump:
        """Every key with its value and whether it expires."""

    @abstractmethod
    def elapse(self, ms: int) -> None:
        """Let time pass; backwards when negative."""

    @abstractmethod
    def now(self) -> int: ...

    @abstractmethod
    def mark(self) -> object:
        """A replica's copy of the data, for `fail_over`."""

    @abstractmethod
    def fail_over(self, copy: object | None = None) -> None:
        """Another server takes over: with `copy`, or with all data when that is None."""

    @abstractmethod
    def lose_everything(self) -> None: ...

    @abstractmethod
    def forget_scripts(self) -> None: ...

    def relative_dump(self) -> dict[bytes, tuple[object, bool]]:
        """`dump` with times relative to now, which equal those of another server if they are near.

        Not compared: the server's identity.
        """
        now = self.now()

        def value(field: bytes, stored: bytes) -> object:
            if field in _TIMES and stored not in (b"", b"0"):
                return About(int(stored) - now)
            return stored

        def worker(stored: bytes) -> object:
            deadline, rest = stored.split(b"|", 1)
            return About(int(deadline) - now), rest

        found: dict[bytes, tuple[object, bool]] = {}
        for key, (content, expires) in self.dump().items():
            relative: object = content
            if isinstance(content, dict) and key.endswith(b":workers"):
                relative = {name: worker(stored) for name, stored in content.items()}
            elif isinstance(content, dict):
                relative = {k: value(k, v) for k, v in content.items() if k != b"replid"}
            found[key] = (relative, expires)
        return found

    def deploy(
        self, *tasks: TaskId, kind: str = "synaptic", cost: int = 1, settle: int = 0
    ) -> None:
        for task in tasks:
            self.run(calls.create_task(TaskSpec(task, kind, cost), settle_ms=settle))

    def claim(
        self,
        worker: str,
        token: str,
        *,
        partition: int = 0,
        limit: int = 100,
        capacity: int = 100,
        **more: Any,
    ) -> ClaimReply:
        more.setdefault("kinds", KINDS)
        return self.run(
            calls.claim(partition, worker, token, TTL, capacity=capacity, limit=limit, **more)
        )

    def claim_one(self, worker: str, token: str, **more: Any) -> Claimed:
        (claimed,) = self.claim(worker, token, **more).claimed
        return claimed

    def renew(self, worker: str, *leases: calls.Lease, **info: Any) -> list[calls.RenewOutcome]:
        info = {"capacity": 100, "kinds": KINDS, **info}
        outcomes = self.run(calls.renew(0, worker, TTL, WorkerInfo(**info), leases))
        return [outcomes[lease.task] for lease in leases]

    def write(self, nonce: str, count: int) -> list[str]:
        """Write `count` blobs, each holding its own key; returns the keys."""
        writes = calls.blob_calls(0, nonce, [b""] * count, TTL)
        self.write_blobs([BlobWrite(each.key, each.key.encode(), TTL) for each in writes])
        return [each.key for each in writes]

    def commit(
        self,
        task: TaskId,
        token: str,
        number: int,
        streams: Mapping[str, int] | None = None,
        *,
        full: bool = False,
        offset: int = 0,
        **more: Any,
    ) -> CommitOutcome:
        """Write one head and one blob per stream (field -> cursor), then commit them."""
        streams = streams or {}
        head, *blobs = self.write(f"{token}-{number}", 1 + len(streams))
        changed = [
            calls.Change(field, cursor, blob)
            for (field, cursor), blob in zip(streams.items(), blobs, strict=True)
        ]
        more.setdefault("positions", {"snn.in.x": Position(offset)})
        return self.run(
            calls.commit(task, token, number, full=full, head=head, changed=changed, **more)
        )


class SimulatedServer(Server):
    def __init__(self, clock: Callable[[], int] = lambda: START) -> None:
        self._clock = clock
        self._elapsed = 0
        self._failovers = 0
        self.store = SimulatedStore(self.now)

    def run(self, call: Call[T]) -> T:
        return self.store.run(call)

    def write_blobs(self, writes: Sequence[BlobWrite]) -> None:
        self.store.write_blobs(writes)

    def load(self, task: TaskId) -> StoredCheckpoint | None:
        return self.store.load(task)

    def dump(self) -> Dump:
        return self.store.dump()

    def elapse(self, ms: int) -> None:
        self._elapsed += ms

    def now(self) -> int:
        return self._clock() + self._elapsed

    def mark(self) -> object:
        return self.store.snapshot()

    def fail_over(self, copy: object | None = None) -> None:
        self._failovers += 1
        self.store.replid = f"{self._failovers:040x}"
        if isinstance(copy, Snapshot):
            self.store.restore(copy)

    def lose_everything(self) -> None:
        self.store.lose_everything()

    def forget_scripts(self) -> None:
        """The simulated store has no script cache to forget."""


class RealServer(Server):
    def __init__(self, url: str, runner: asyncio.Runner) -> None:
        self._runner = runner
        self.store = RedisStore.connect(url, timeout=10.0)
        self.client: Any = redis.Redis.from_url(url)

    def close(self) -> None:
        self._runner.run(self.store.close())
        self.client.close()

    def run(self, call: Call[T]) -> T:
        return self._runner.run(self.store.run(call))

    def write_blobs(self, writes: Sequence[BlobWrite]) -> None:
        self._runner.run(self.store.write_blobs(writes))

    def load(self, task: TaskId) -> StoredCheckpoint | None:
        return self._runner.run(self.store.load(task))

    def dump(self) -> Dump:
        keys = sorted(self._keys())
        values = self._values(keys)
        found = zip(keys, values, self._pttls(keys), strict=True)
        return {k: (v, p >= 0) for k, v, p in found if v is not None}

    def elapse(self, ms: int) -> None:
        keys = self._keys()
        with self.client.pipeline() as pipeline:
            for key, value, pttl in zip(keys, self._values(keys), self._pttls(keys), strict=True):
                kind = key.split(b":")[2]
                if pttl >= 0:
                    pipeline.pexpire(key, pttl - ms)
                if kind in (b"task", b"server", b"workers"):
                    earlier = _earlier_worker if kind == b"workers" else _earlier
                    pipeline.hset(key, mapping={k: earlier(k, v, ms) for k, v in value.items()})
            pipeline.execute()

    def now(self) -> int:
        seconds, micros = self.client.time()
        return int(seconds) * 1000 + int(micros) // 1000

    def mark(self) -> object:
        keys = self._keys()
        dumps = [self.client.dump(key) for key in keys]
        return dict(zip(keys, zip(dumps, self._pttls(keys), strict=True), strict=True))

    def fail_over(self, copy: object | None = None) -> None:
        # Following a server that is not there and leaving it again changes the identity only.
        self.client.execute_command("REPLICAOF", "127.0.0.1", "1")
        self.client.execute_command("REPLICAOF", "NO", "ONE")
        if isinstance(copy, dict):
            self.client.flushdb()
            for key, (data, pttl) in copy.items():
                self.client.restore(key, max(0, pttl), data)

    def lose_everything(self) -> None:
        self.client.flushdb()

    def forget_scripts(self) -> None:
        self.client.script_flush("SYNC")

    def _keys(self) -> list[bytes]:
        return list(self.client.scan_iter())

    def _pttls(self, keys: Sequence[bytes]) -> list[int]:
        with self.client.pipeline() as pipeline:
            for key in keys:
                pipeline.pttl(key)
            return [int(left) for left in pipeline.execute()]

    def _values(self, keys: Sequence[bytes]) -> list[Any]:
        # A key that has expired since it was listed has the type `none`, and reads as None.
        reads = {b"string": "get", b"hash": "hgetall", b"set": "smembers", b"none": "get"}
        with self.client.pipeline() as types, self.client.pipeline() as values:
            for key in keys:
                types.type(key)
            for key, kind in zip(keys, types.execute(), strict=True):
                getattr(values, reads[kind])(key)
            return list(values.execute())


class ClusterServer(RealServer):
    """A cluster: the test's own client speaks to its nodes one by one, or to who has a key."""

    def __init__(self, url: str, runner: asyncio.Runner) -> None:
        super().__init__(split_url(url)[0], runner)
        self.client.close()
        runner.run(self.store.close())
        self.store = RedisStore.connect(url, timeout=10.0)
        self.client = redis.RedisCluster.from_url(split_url(url)[0])

    def now(self) -> int:
        seconds, micros = self._holder().time()
        return int(seconds) * 1000 + int(micros) // 1000

    def fail_over(self, copy: object | None = None) -> None:
        self._holder().execute_command("DEBUG", "CHANGE-REPL-ID")
        if isinstance(copy, dict):
            self.lose_everything()
            for key, (data, pttl) in copy.items():
                self.client.restore(key, max(0, pttl), data)

    def lose_everything(self) -> None:
        self.client.flushdb(target_nodes=redis.RedisCluster.PRIMARIES)

    def _holder(self) -> Any:
        """The client of the node that has partition 0, with which these tests are concerned."""
        node = self.client.get_node_from_key(calls.prefix(0))
        return self.client.get_redis_connection(node)


def _earlier(field: bytes, value: bytes, ms: int) -> bytes:
    if field in _TIMES and value not in (b"", b"0"):
        return b"%d" % (int(value) - ms)
    return value


def _earlier_worker(_worker: bytes, value: bytes, ms: int) -> bytes:
    deadline, rest = value.split(b"|", 1)
    return b"%d|%s" % (int(deadline) - ms, rest)


@pytest.fixture
def simulated() -> SimulatedServer:
    return SimulatedServer()


@pytest.fixture
def real(store_url: str) -> Iterator[RealServer]:
    with asyncio.Runner() as runner:
        server = _real(store_url, runner)
        yield server
        server.close()


def _real(url: str, runner: asyncio.Runner) -> RealServer:
    kind = ClusterServer if len(split_url(url)) > 1 else RealServer
    return kind(url, runner)


@pytest.fixture
def simulated_beside_real(real: RealServer) -> SimulatedServer:
    """A simulated server whose clock is the real one's, so that both may be compared."""
    return SimulatedServer(real.now)


@pytest.fixture(
    params=[
        "simulated",
        "embedded_redis_url",
        pytest.param("redis_server_url", marks=pytest.mark.servers),
        pytest.param("redis_cluster_url", marks=pytest.mark.servers),
    ]
)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    if request.param == "simulated":
        yield SimulatedServer()
        return
    with asyncio.Runner() as runner:
        server = _real(request.getfixturevalue(request.param), runner)
        yield server
        server.close()


@pytest.fixture
def tasks() -> list[TaskId]:
    """Eight tasks of one partition, in the store's order."""
    return [TaskId("ab" * 16, group, 0) for group in range(8)]
