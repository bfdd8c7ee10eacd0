"""What the simulated store does beyond the contract: accidents at will, and strictness."""

from collections.abc import Iterator

import pytest

from router.store import calls, lua, simulated
from router.store.calls import Call, Lease, TaskId, TaskSpec, WorkerInfo
from router.store.errors import StoreReplyError
from router.store.simulated import SimulatedStore

TASKS = [TaskId("ab" * 16, group, 0) for group in range(3)]


class Clock:
    def __init__(self) -> None:
        self.ms = 1_700_000_000_123

    def __call__(self) -> int:
        return self.ms


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock: Clock) -> SimulatedStore:
    store = SimulatedStore(clock, undo_depth=4)
    for task in TASKS:
        store.create_task(TaskSpec(task, "synaptic", 1), settle_ms=0)
    return store


def _claim(store: SimulatedStore, token: str, limit: int = 1) -> list[TaskId]:
    reply = store.claim(0, "w", token, 1000, kinds=["synaptic"], capacity=9, limit=limit)
    return [each.task for each in reply.claimed]


def test_lost_writes_are_taken_back_last_first(store: SimulatedStore) -> None:
    dumps = [store.dump()]
    for token in ("one", "two"):
        _claim(store, token)
        dumps.append(store.dump())
    assert store.lose_writes(1) == 1
    assert store.dump() == dumps[1]
    assert store.lose_writes(1) == 1
    assert store.dump() == dumps[0]


def test_no_more_writes_are_lost_than_are_remembered(store: SimulatedStore) -> None:
    for turn in range(9):
        store.write_blobs(calls.blob_calls(0, f"n{turn}", [b"x"], 1000))
    assert store.lose_writes(100) == 4


def test_call_that_wrote_nothing_is_not_among_the_lost_ones(store: SimulatedStore) -> None:
    _claim(store, "one")
    store.status(0)
    assert not store.release(TASKS[0], "another")
    store.lose_writes(1)
    assert store.status(0).tasks[0].worker == ""


def test_deleted_key_comes_back_with_the_lost_write(store: SimulatedStore) -> None:
    before = store.dump()
    store.remove_task(TASKS[1])
    assert store.dump() != before
    store.lose_writes(1)
    assert store.dump() == before


def test_snapshot_is_not_changed_by_later_calls(store: SimulatedStore) -> None:
    before = store.dump()
    snapshot = store.snapshot()
    _claim(store, "one", limit=3)
    store.remove_task(TASKS[0])
    store.restore(snapshot)
    assert store.dump() == before
    _claim(store, "two")
    store.restore(snapshot)
    assert store.dump() == before
    assert store.lose_writes(1) == 0


def test_stores_of_one_process_share_nothing(store: SimulatedStore, clock: Clock) -> None:
    other = SimulatedStore(clock)
    assert other.dump() == {}
    other.create_task(TaskSpec(TASKS[0], "synaptic", 1), settle_ms=0)
    assert len(store.status(0).tasks) == 3


def test_new_identity_makes_the_store_settle(store: SimulatedStore) -> None:
    store.replid = "f" * 40
    assert _claim(store, "one") == []
    assert store.status(0).settling_ms == 1000


def test_lost_data_leaves_an_empty_store(store: SimulatedStore) -> None:
    store.lose_everything()
    assert store.dump() == {}
    outcomes = store.renew(0, "w", 1000, WorkerInfo(1, ()), [Lease(TASKS[0], "t")])
    assert outcomes == {TASKS[0]: calls.RenewOutcome.VANISHED}


def test_expired_blob_does_not_come_back_when_the_clock_does(
    store: SimulatedStore, clock: Clock
) -> None:
    (write,) = calls.blob_calls(0, "n", [b"x"], 1000)
    store.write_blobs([write])
    assert store.command("GET", write.key) == b"x"
    clock.ms += 1000
    assert store.command("GET", write.key) is None
    clock.ms -= 1000
    assert store.command("GET", write.key) is None


def test_same_calls_leave_the_same_bytes_in_the_same_order(clock: Clock) -> None:
    def run() -> list[tuple[bytes, tuple[object, bool]]]:
        store = SimulatedStore(clock)
        for task in TASKS:
            store.create_task(TaskSpec(task, "synaptic", 1), settle_ms=0)
        _claim(store, "one", limit=2)
        return list(store.dump().items())

    assert run() == run()


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch, store: SimulatedStore) -> Iterator[SimulatedStore]:
    """The store with a runtime of its own, which runs the text it is asked for by name."""
    simulated._lua.cache_clear()
    monkeypatch.setattr(simulated, "script", lambda text: lua.Script(text, text, ""))
    yield SimulatedStore(lambda: 0)
    simulated._lua.cache_clear()


def _run(store: SimulatedStore, text: str) -> calls.Reply:
    call: Call[calls.Reply] = Call(text, ("k",), ("a",), lambda reply: reply)
    return store.run(call)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("redis.call('HSET', KEYS[1], 'f', 1)", "number to a command"),
        ("redis.call('HSET', KEYS[1], 'f')", "number of arguments"),
        ("redis.call('FLUSHALL')", "does not know the command FLUSHALL"),
        ("redis.call('SET', KEYS[1], 'v', 'EX', '1')", "PX only"),
        ("redis.call('INFO', 'server')", "INFO section server"),
        ("redis.call('SADD', KEYS[1], 'm'); redis.call('HGET', KEYS[1], 'f')", "WRONGTYPE"),
        ("forgotten = 1", "global variable forgotten"),
        ("return forgotten", "global variable forgotten"),
        ("return tonumber(nil) + 1", "arithmetic"),
    ],
)
def test_script_the_server_would_refuse_or_misread_fails(
    planted: SimulatedStore, text: str, complaint: str
) -> None:
    with pytest.raises(StoreReplyError, match=complaint):
        _run(planted, text)


def test_what_a_script_wrote_before_it_failed_stays_and_can_be_lost(
    planted: SimulatedStore,
) -> None:
    with pytest.raises(StoreReplyError):
        _run(planted, "redis.call('HSET', KEYS[1], 'f', 'v'); error('late')")
    assert planted.dump() == {b"k": ({b"f": b"v"}, False)}
    assert planted.lose_writes(1) == 1
    assert planted.dump() == {}


@pytest.mark.parametrize(
    ("text", "reply"),
    [
        ("return 1.9", 1),
        ("return false", None),
        ("return {1, 'x', {}, {false, 2}}", [1, b"x", [], [None, 2]]),
        ("local t = {}; for i = 1, 9000 do t[i] = i end; return t", list(range(1, 9001))),
        ("return redis.call('HGET', KEYS[1], 'f')", None),
        ("return redis.call('HMGET', KEYS[1], 'f', 'g')", [None, None]),
        ("return {KEYS[1], ARGV[1]}", [b"k", b"a"]),
    ],
)
def test_reply_is_what_the_server_makes_of_it(
    planted: SimulatedStore, text: str, reply: calls.Reply
) -> None:
    assert _run(planted, text) == reply


def test_more_than_crosses_to_lua_at_once_is_written_and_read(store: SimulatedStore) -> None:
    blobs = [b"%d" % i for i in range(500)]
    writes = calls.blob_calls(0, "n", blobs, 1000)
    assert store.run(calls.write(writes)) == 500
    assert store.commands([("GET", write.key) for write in writes]) == blobs
    assert store.commands([]) == []
