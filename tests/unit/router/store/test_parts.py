"""Much data moves in parts, and however slow a connection is, what makes progress goes on."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Self, cast

import pytest

from router.store import calls
from router.store.calls import Position, TaskId
from router.store.marks import mark
from router.store.nodes import Nodes
from router.store.parts import MOST, PART_BYTES, batches, joined, pieces
from router.store.redis import RedisStore

TASK = TaskId("ab" * 16, 0, 0)
BASE = "snn:{p0}:"


class _Slow:
    """A client whose connection moves so many bytes before the deadline of a call, and no more."""

    def __init__(self, hashes: dict[str, dict[bytes, bytes]], blobs: dict[str, bytes]) -> None:
        self.hashes, self.blobs = hashes, blobs
        self.n_calls = 0
        self._commands: list[tuple[Any, ...]] = []

    def pipeline(self, transaction: bool) -> Self:
        assert not transaction
        self._commands = []
        return self

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    def execute_command(self, *command: Any) -> None:
        self._commands.append(command)

    async def execute(self, raise_on_error: bool) -> list[Any]:
        self.n_calls += 1
        assert len(self._commands) <= MOST
        found = [self._answer(*command) for command in self._commands]
        if sum(len(each) for each in found if isinstance(each, bytes)) > PART_BYTES:
            raise TimeoutError
        return found

    def _answer(self, name: str, key: str, *rest: Any) -> Any:
        if name == "HMGET":
            return [self.hashes.get(key, {}).get(field.encode()) for field in rest]
        if name == "HGETALL":
            return self.hashes.get(key, {})
        if name == "HSCAN":
            fields = sorted(self.hashes.get(key, {}).items())
            at = int(rest[0])
            return [at + MOST if at + MOST < len(fields) else 0, dict(fields[at : at + MOST])]
        if name == "STRLEN":
            return len(self.blobs.get(key, b""))
        return self.blobs[key][rest[0] : rest[1] + 1]


class _One:
    """The only server there is."""

    def __init__(self, client: _Slow) -> None:
        self._client = client

    async def at(self, key: object, send: Callable[[_Slow], Awaitable[Any]]) -> Any:
        return await send(self._client)


def _key(index: int) -> str:
    return f"{BASE}blob:n:{index}"


def _checkpoint(n_streams: int, blob: bytes) -> _Slow:
    """A head and one blob per stream, that of stream 2 lost."""
    blobs = {_key(i): blob + b"%d" % i for i in range(n_streams + 1) if i != 2}
    position = f"3|{mark(TASK, 'x', 3)}".encode()
    hashes = {
        f"{BASE}task:{TASK}": {b"number": b"4", b"format": b"2=2"},
        f"{BASE}head:{TASK}": {b"current": _key(0).encode(), b"previous": b""},
        f"{BASE}pos:{TASK}": {b"x": position},
        f"{BASE}streams:{TASK}": {
            b"n/1/%d" % i: f"0|{_key(i)}|".encode() for i in range(1, n_streams + 1)
        },
    }
    return _Slow(hashes, blobs)


@pytest.mark.parametrize(
    ("n_streams", "size"), [(600, 10), (3000, 20_000), (5, 3 * PART_BYTES), (5, PART_BYTES)]
)
async def test_checkpoint_that_takes_many_deadlines_to_load_is_loaded(
    n_streams: int, size: int
) -> None:
    blob = bytes(range(256)) * (size // 256 + 1)
    slow = _checkpoint(n_streams, blob)
    stored = await RedisStore(cast(Nodes, _One(slow))).load(TASK)
    assert stored is not None
    assert (stored.number, stored.positions) == (4, {"x": Position(3)})
    assert stored.head_current == blob + b"0"
    assert len(stored.streams) == n_streams
    assert stored.streams[f"n/1/{n_streams}"].current == blob + b"%d" % n_streams
    assert stored.streams["n/1/2"].current is None
    assert slow.n_calls > size * n_streams // PART_BYTES


def test_batch_is_bounded_by_number_and_by_bytes() -> None:
    assert [len(b) for b in batches(range(MOST + 1), lambda _: 0)] == [MOST, 1]
    sizes = [PART_BYTES, 1, PART_BYTES - 1, 1, 2 * PART_BYTES, 5]
    found = [*batches(sizes, lambda size: size)]
    assert found == [[PART_BYTES], [1, PART_BYTES - 1], [1], [2 * PART_BYTES], [5]]


@pytest.mark.parametrize("sizes", [(), (1,), (PART_BYTES,), (PART_BYTES + 1, 2), (5, 9, 7)])
def test_pieces_of_blobs_join_to_the_blobs(sizes: Sequence[int]) -> None:
    blobs = {f"b{i}": bytes([i]) * size for i, size in enumerate(sizes)}
    cut = [*pieces({key: len(data) for key, data in blobs.items()})]
    assert all(p.stop - p.start <= PART_BYTES for p in cut)
    assert joined((p, blobs[p.key][p.start : p.stop]) for p in cut) == blobs


def test_blobs_are_written_in_batches_bounded_by_bytes() -> None:
    writes = calls.blob_calls(0, "n", [bytes(PART_BYTES // 2 + 1)] * 3, 1)
    assert [len(b) for b in batches(writes, lambda write: len(write.data))] == [1, 1, 1]
