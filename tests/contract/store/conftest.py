"""One server facade for the simulated store and the real one, so that one suite runs on both.

Time passes by moving the server's clock: of the simulated store its own, of the real one by moving
every stored time the other way, which no script can tell apart. So no test waits.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from router.store.redis import RedisStore
from router.store.simulated import SimulatedStore, Snapshot

T = TypeVar("T")
Dump = dict[bytes, tuple[object, bool]]

TTL = 95_000  # ms; tests move the clock by multiples of 10 s, so 5 s always decide a comparison
KINDS = ("synaptic",)
START = 1_700_000_000_000
_TIMES = (b"deadline", b"settle_until", b"seen", b"wanted_until", b"alone_until", b"committed")


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

    def relative_dump(self) -> Dump:
        """`dump` with times relative to now and rounded to 5 s, to compare two servers."""
        now = self.now()

        def value(field: bytes, stored: bytes) -> bytes:
            if field in _TIMES and stored not in (b"", b"0"):
                return b"%+d" % round((int(stored) - now) / 5000)
            return stored

        def worker(stored: bytes) -> bytes:
            deadline, rest = stored.split(b"|", 1)
            return b"%+d|%s" % (round((int(deadline) - now) / 5000), rest)

        found: Dump = {}
        for key, (content, expires) in self.dump().items():
            if isinstance(content, dict) and key.endswith(b":workers"):
                content = {name: worker(stored) for name, stored in content.items()}
            elif isinstance(content, dict):
                content = {k: value(k, v) for k, v in content.items() if k != b"replid"}
            found[key] = (content, expires)
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
    def __init__(self) -> None:
        self._now = START
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
        self._now += ms

    def now(self) -> int:
        return self._now

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
        return {key: (self._value(key), self._pttl(key) >= 0) for key in sorted(self._keys())}

    def elapse(self, ms: int) -> None:
        for key in self._keys():
            kind = key.split(b":")[2]
            if kind == b"blob" and self._pttl(key) >= 0:
                self.client.pexpire(key, self._pttl(key) - ms)
            elif kind in (b"task", b"server"):
                self._shift(key, lambda field, value: self._earlier(field, value, ms))
            elif kind == b"workers":
                self._shift(key, lambda _, value: self._earlier_worker(value, ms))

    def now(self) -> int:
        seconds, micros = self.client.time()
        return int(seconds) * 1000 + int(micros) // 1000

    def mark(self) -> object:
        return {key: (self.client.dump(key), self._pttl(key)) for key in self._keys()}

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

    def _pttl(self, key: bytes) -> int:
        left: int = self.client.pttl(key)
        return left

    def _value(self, key: bytes) -> object:
        kind = self.client.type(key)
        if kind == b"string":
            return self.client.get(key)
        return self.client.hgetall(key) if kind == b"hash" else self.client.smembers(key)

    def _shift(self, key: bytes, moved: Callable[[bytes, bytes], bytes]) -> None:
        stored: dict[bytes, bytes] = self.client.hgetall(key)
        for field, value in stored.items():
            if moved(field, value) != value:
                self.client.hset(key, field, moved(field, value))

    @staticmethod
    def _earlier(field: bytes, value: bytes, ms: int) -> bytes:
        if field in _TIMES and value not in (b"", b"0"):
            return b"%d" % (int(value) - ms)
        return value

    @staticmethod
    def _earlier_worker(value: bytes, ms: int) -> bytes:
        deadline, rest = value.split(b"|", 1)
        return b"%d|%s" % (int(deadline) - ms, rest)


@pytest.fixture
def simulated() -> SimulatedServer:
    return SimulatedServer()


@pytest.fixture
def real(redis_url: str) -> Iterator[RealServer]:
    with asyncio.Runner() as runner:
        server = RealServer(redis_url, runner)
        yield server
        server.close()


@pytest.fixture(params=["simulated", "real"])
def server(request: pytest.FixtureRequest) -> Server:
    chosen: Server = request.getfixturevalue(request.param)
    return chosen


@pytest.fixture
def tasks() -> list[TaskId]:
    """Eight tasks of one partition, in the store's order."""
    return [TaskId("ab" * 16, group, 0) for group in range(8)]
