"""One short script makes a checkpoint, or leaves everything as it was: rules 22 to 24."""

from typing import TYPE_CHECKING

import pytest

from router.store import calls
from router.store.calls import Change, CommitOutcome, Position, StoredStream, TaskId

if TYPE_CHECKING:
    from tests.contract.store.conftest import Server

TTL = 95_000
OK = CommitOutcome.OK


@pytest.fixture
def task(server: "Server", tasks: list[TaskId]) -> TaskId:
    """A task that worker `a` holds with token `t`."""
    server.deploy(tasks[0])
    server.claim_one("a", "t")
    return tasks[0]


def _blob_keys(server: "Server") -> set[bytes]:
    return {key for key in server.dump() if b":blob:" in key}


def test_task_that_never_committed_has_no_checkpoint(server: "Server", task: TaskId) -> None:
    assert server.load(task) is None


def test_commit_is_loaded_back(server: "Server", task: TaskId) -> None:
    head, one, two = server.write("nonce", 3)
    positions = {"snn.in.x": Position(12), "snn.spikes.y": Position(3)}
    changed = [Change("1:2@n", 4, one), Change("1:3@n", 0, two)]
    call = calls.commit(task, "t", 1, full=False, head=head, positions=positions, changed=changed)
    assert server.run(call) is OK
    stored = server.load(task)
    assert stored is not None
    assert (stored.number, stored.format_version, stored.positions) == (1, 1, positions)
    assert (stored.head_current, stored.head_previous) == (head.encode(), None)
    assert stored.streams == {
        "1:2@n": StoredStream(4, one.encode(), None),
        "1:3@n": StoredStream(0, two.encode(), None),
    }


def test_two_versions_are_kept_and_the_third_is_deleted(server: "Server", task: TaskId) -> None:
    for number in (1, 2, 3):
        assert server.commit(task, "t", number, {"1:1": number}) is OK
    stored = server.load(task)
    assert stored is not None
    assert (stored.head_current, stored.head_previous) == (
        b"snn:{p0}:blob:t-3:0",
        b"snn:{p0}:blob:t-2:0",
    )
    assert stored.streams["1:1"] == StoredStream(3, b"snn:{p0}:blob:t-3:1", b"snn:{p0}:blob:t-2:1")
    assert len(_blob_keys(server)) == 4


def test_stream_that_did_not_change_keeps_its_blob(server: "Server", task: TaskId) -> None:
    assert server.commit(task, "t", 1, {"1:1": 1, "1:2": 1}) is OK
    assert server.commit(task, "t", 2, {"1:2": 2}) is OK
    stored = server.load(task)
    assert stored is not None
    assert stored.streams["1:1"] == StoredStream(1, b"snn:{p0}:blob:t-1:1", None)


def test_committed_blobs_outlive_their_time_and_others_do_not(
    server: "Server", task: TaskId
) -> None:
    assert server.commit(task, "t", 1, {"1:1": 1}) is OK
    committed = _blob_keys(server)
    server.write("never-committed", 2)
    assert len(_blob_keys(server)) == 4
    server.elapse(100_000)
    assert _blob_keys(server) == committed


def test_positions_advance_without_any_stream(server: "Server", task: TaskId) -> None:
    assert server.commit(task, "t", 1, {"1:1": 1}, offset=5) is OK
    assert server.commit(task, "t", 2, offset=9) is OK
    stored = server.load(task)
    assert stored is not None
    assert (stored.number, stored.positions["snn.in.x"]) == (2, Position(9))
    assert stored.streams["1:1"].cursor == 1


def test_topic_that_is_not_named_keeps_its_position(server: "Server", task: TaskId) -> None:
    assert server.commit(task, "t", 1, positions={"a": Position(5), "b": Position(6)}) is OK
    assert server.commit(task, "t", 2, positions={"b": Position(7)}) is OK
    stored = server.load(task)
    assert stored is not None
    assert stored.positions == {"a": Position(5), "b": Position(7)}


def test_blobs_of_an_ended_stream_are_deleted(server: "Server", task: TaskId) -> None:
    assert server.commit(task, "t", 1, {"1:1": 1, "1:2": 1}) is OK
    assert server.commit(task, "t", 2, {"1:1": 2}) is OK
    assert server.commit(task, "t", 3, deleted=["1:1", "never-known"]) is OK
    stored = server.load(task)
    assert stored is not None
    assert set(stored.streams) == {"1:2"}
    assert b"snn:{p0}:blob:t-1:2" in _blob_keys(server)
    assert len(_blob_keys(server)) == 3


def test_full_checkpoint_drops_what_it_neither_changes_nor_keeps(
    server: "Server", task: TaskId
) -> None:
    assert server.commit(task, "t", 1, {"1:1": 1, "1:2": 1, "1:3": 1}) is OK
    assert server.commit(task, "t", 2, {"1:1": 2}, full=True, keep=["1:2"]) is OK
    stored = server.load(task)
    assert stored is not None
    assert stored.streams == {
        "1:1": StoredStream(2, b"snn:{p0}:blob:t-2:1", b"snn:{p0}:blob:t-1:1"),
        "1:2": StoredStream(1, b"snn:{p0}:blob:t-1:2", None),
    }
    assert b"snn:{p0}:blob:t-1:3" not in _blob_keys(server)


def test_full_checkpoint_takes_any_number_and_the_next_counts_on(
    server: "Server", task: TaskId
) -> None:
    assert server.commit(task, "t", 7, full=True) is OK
    assert server.commit(task, "t", 8) is OK
    assert server.commit(task, "t", 8) is CommitOutcome.NUMBER


def test_full_checkpoint_repeated_with_the_same_blobs_changes_no_version(
    server: "Server", task: TaskId
) -> None:
    assert server.commit(task, "t", 1, {"1:1": 1}) is OK
    head, blob = server.write("again", 2)
    call = calls.commit(
        task,
        "t",
        2,
        full=True,
        head=head,
        positions={"snn.in.x": Position(1)},
        changed=[Change("1:1", 2, blob)],
    )
    assert server.run(call) is OK
    before = server.load(task)
    assert server.run(call) is OK
    assert server.load(task) == before
    assert before is not None
    assert before.streams["1:1"].previous == b"snn:{p0}:blob:t-1:1"


def test_blob_that_is_gone_is_loaded_as_none_beside_its_older_version(
    server: "Server", task: TaskId
) -> None:
    assert server.commit(task, "t", 1, {"1:1": 1}) is OK
    assert server.commit(task, "t", 2, {"1:1": 2}) is OK
    copy = _without(server, b"snn:{p0}:blob:t-2:1")
    assert copy is not None
    assert copy.streams["1:1"] == StoredStream(2, None, b"snn:{p0}:blob:t-1:1")


def _without(server: "Server", blob: bytes) -> calls.StoredCheckpoint | None:
    """What is loaded after this blob was lost: it is given a time to live that then ends."""
    server.write_blobs([calls.BlobWrite(blob.decode(), b"", 1)])
    server.elapse(10_000)
    (task,) = (each.task for each in server.run(calls.status(0)).tasks)
    return server.load(task)


def test_checkpoint_of_many_streams_is_committed_whole(server: "Server", task: TaskId) -> None:
    streams = {f"1:{number}": number for number in range(3000)}
    assert server.commit(task, "t", 1, streams) is OK
    stored = server.load(task)
    assert stored is not None
    assert {name: stream.cursor for name, stream in stored.streams.items()} == streams
    assert server.commit(task, "t", 2, full=True) is OK
    assert len(_blob_keys(server)) == 2


# Every refusal leaves every key as it was.


@pytest.fixture
def committed(server: "Server", task: TaskId) -> TaskId:
    """The task after one checkpoint: position 5, stream 1:1 at cursor 3."""
    assert server.commit(task, "t", 1, {"1:1": 3, "1:2": 3}, offset=5) is OK
    return task


_REFUSALS: list[tuple[CommitOutcome, dict[str, object]]] = [
    (CommitOutcome.TOKEN, {"token": "older"}),
    (CommitOutcome.TOKEN, {"token": "older", "full": True}),
    (CommitOutcome.NUMBER, {"number": 1}),
    (CommitOutcome.NUMBER, {"number": 3}),
    (CommitOutcome.BACKWARDS, {"positions": {"snn.in.x": Position(4)}}),
    (CommitOutcome.BACKWARDS, {"positions": {"snn.in.x": Position(4)}, "full": True}),
    (CommitOutcome.BACKWARDS, {"cursor": 2}),
    (CommitOutcome.BACKWARDS, {"cursor": 2, "full": True}),
    (CommitOutcome.BLOB_MISSING, {"head": "snn:{p0}:blob:nowhere:0"}),
    (CommitOutcome.BLOB_MISSING, {"blob": "snn:{p0}:blob:nowhere:0"}),
    (CommitOutcome.BLOB_MISSING, {"blob": "snn:{p0}:blob:nowhere:0", "full": True}),
    (CommitOutcome.BLOB_MISSING, {"full": True, "keep": ["never-known"]}),
]


@pytest.mark.parametrize(("outcome", "fault"), _REFUSALS, ids=str)
def test_refused_checkpoint_leaves_no_trace(
    server: "Server", committed: TaskId, outcome: CommitOutcome, fault: dict[str, object]
) -> None:
    head, blob, other = server.write("next", 3)
    values: dict[str, object] = {
        "token": "t",
        "number": 2,
        "full": False,
        "positions": {"snn.in.x": Position(6)},
        "head": head,
        "cursor": 4,
        "blob": blob,
        "keep": [],
        **fault,
    }
    changed = [Change("1:1", values.pop("cursor"), values.pop("blob"))]  # type: ignore[arg-type]
    changed.append(Change("1:9", 0, other))
    before = server.dump()
    call = calls.commit(committed, changed=changed, deleted=["1:2"], **values)  # type: ignore[arg-type]
    assert server.run(call) is outcome
    assert server.dump() == before


def test_checkpoint_at_the_same_cursor_and_position_is_accepted(
    server: "Server", committed: TaskId
) -> None:
    assert server.commit(committed, "t", 2, {"1:1": 3}, offset=5) is OK


def test_checkpoint_whose_blobs_expired_is_refused(server: "Server", committed: TaskId) -> None:
    (head,) = server.write("slow", 1)
    server.elapse(100_000)
    server.renew("a", calls.Lease(committed, "t"))
    call = calls.commit(committed, "t", 2, full=False, head=head, positions={})
    assert server.run(call) is CommitOutcome.BLOB_MISSING


def test_owner_whose_lease_expired_may_commit_until_another_claims(
    server: "Server", committed: TaskId
) -> None:
    server.elapse(60_000)
    server.renew("b")
    server.elapse(60_000)
    assert server.commit(committed, "t", 2, offset=5) is OK
    server.claim_one("b", "token-b")
    assert server.commit(committed, "t", 3) is CommitOutcome.TOKEN


def test_released_task_takes_no_checkpoint(server: "Server", committed: TaskId) -> None:
    server.run(calls.release(committed, "t"))
    assert server.commit(committed, "t", 2) is CommitOutcome.TOKEN


def test_task_that_was_never_deployed_takes_no_checkpoint(
    server: "Server", tasks: list[TaskId]
) -> None:
    assert server.commit(tasks[5], "t", 1) is CommitOutcome.TOKEN
    assert server.commit(tasks[5], "t", 1, full=True) is CommitOutcome.TOKEN
