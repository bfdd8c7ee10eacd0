"""Calls are values: what is sent, what is refused before it is sent, how replies are read."""

from collections.abc import Callable

import pytest

from router.store import calls, replies
from router.store.calls import Change, Lease, Position, References, TaskId, TaskSpec, WorkerInfo
from router.store.errors import StoreCallError, StoreReplyError
from router.store.marks import mark

TASK = TaskId("ab" * 16, 3, 2, 5)
KINDS = ["synaptic"]


def test_task_id_survives_its_text() -> None:
    assert str(TASK) == "ab" * 16 + "/3/2@5"
    assert TaskId.parse(str(TASK)) == TASK


@pytest.mark.parametrize("text", ["", "op/1/2", "op/1@2", "op/-1/2@0", "o p/1/2@0", "op/1/2@0\n"])
def test_text_that_is_no_task_is_refused(text: str) -> None:
    with pytest.raises(StoreCallError, match="<operator>/<group>/<partition>@<generation>"):
        TaskId.parse(text)


def test_every_key_of_a_partition_has_one_hash_tag() -> None:
    call = calls.release(TASK, "t")
    assert call.keys == ("snn:{p2}:",)
    writes = calls.blob_calls(2, "n", [b"a", b"b"], 1000)
    assert [each.key for each in writes] == ["snn:{p2}:blob:n:0", "snn:{p2}:blob:n:1"]
    queries = calls.load_references(TASK).commands
    assert all(str(command[1]).startswith("snn:{p2}:") for command in queries)


def test_order_of_kinds_and_held_tasks_does_not_change_a_call() -> None:
    first = calls.claim(
        2, "a", "t", 9, kinds={"b", "a"}, capacity=1, limit=1, held=[TASK, TASK._replace(group=1)]
    )
    second = calls.claim(
        2, "a", "t", 9, kinds=["b", "a"], capacity=1, limit=1, held=[TASK._replace(group=1), TASK]
    )
    assert first.args == second.args


def _commit(**faults: object) -> object:
    values: dict[str, object] = {"number": 1, "full": False, "head": "h", "positions": {}}
    return calls.commit(TASK, token="t", **{**values, **faults})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: calls.prefix(-1), "Partition -1 is negative"),
        (lambda: calls.create_task(TaskSpec(TASK, "k", 0), settle_ms=0), "costs 0"),
        (lambda: calls.claim(0, "a", "", 9, kinds=KINDS, capacity=1, limit=1), "token is empty"),
        (lambda: calls.claim(0, "", "t", 9, kinds=KINDS, capacity=1, limit=1), "worker is empty"),
        (lambda: calls.claim(0, "a", "t", 0, kinds=KINDS, capacity=1, limit=1), "to live is 0"),
        (lambda: calls.renew(0, "a", 0, WorkerInfo(1, ()), []), "to live is 0"),
        (lambda: calls.want(0, "a", -1, kinds=KINDS, capacity=1), "to live is -1"),
        (lambda: calls.fail_task(TASK, "t", ""), "error is empty"),
        (lambda: calls.blob_calls(0, "", [b""], 1), "nonce is empty"),
        (lambda: calls.blob_calls(0, "a|b", [b""], 1), "nonce 'a|b'"),
        (lambda: _commit(number=0), "checkpoint number is 0"),
        (lambda: _commit(head=""), "head blob is empty"),
        (lambda: _commit(keep=["s"]), "full checkpoints"),
        (lambda: _commit(changed=[Change("s", 1, "b")], deleted=["s"]), "'s' is named twice"),
        (lambda: _commit(full=True, keep=["s", "s"]), "'s' is named twice"),
        (lambda: _commit(positions={"x": Position(-1)}), "Position -1 of 'x'"),
        (lambda: _commit(changed=[Change("s", -1, "b")]), "Cursor -1 of stream 's'"),
        (lambda: _commit(changed=[Change("s", 1, "")]), "blob of stream 's' is empty"),
    ],
)
def test_call_that_no_script_accepts_is_refused(build: Callable[[], object], sentence: str) -> None:
    with pytest.raises(StoreCallError, match=sentence):
        build()


def test_renewal_is_read_in_the_order_of_its_leases() -> None:
    leases = [Lease(TASK, "t"), Lease(TASK._replace(group=4), "u")]
    call = calls.renew(2, "a", 9, WorkerInfo(1, ("k",)), leases)
    assert call.read([0, 3]) == {
        TASK: calls.RenewOutcome.OK,
        TASK._replace(group=4): calls.RenewOutcome.VANISHED,
    }


def test_hash_is_read_as_a_mapping_and_as_a_list() -> None:
    query = calls.load_references(TASK)
    head: calls.Reply = [b"h1", b""]
    at = f"7|{mark(TASK, 'x', 7)}".encode()
    flat: list[calls.Reply] = [[b"4", b"1=1"], head, [b"x", at], [b"1:1", b"3|b1|b0"]]
    mapped: list[calls.Reply] = [[b"4", b"1=1"], head, {b"x": at}, {b"1:1": b"3|b1|b0"}]
    expected = References(
        number=4,
        format_version=1,
        positions={"x": Position(7)},
        head_current="h1",
        head_previous="",
        streams={"1:1": calls.StreamReference(3, "b1", "b0")},
    )
    assert query.read(flat) == expected
    assert query.read(mapped) == expected


@pytest.mark.parametrize("record", [[None, None], [b"0", b"0"]])
def test_task_without_a_checkpoint_has_no_references(record: list[bytes | None]) -> None:
    assert calls.load_references(TASK).read([record, [None, None], {}, {}]) is None


def test_each_blob_is_read_once() -> None:
    references = References(1, 1, {}, "h", "", {"s": calls.StreamReference(0, "b", "")})
    query = calls.load_blobs(references)
    assert query.commands == (("GET", "h"), ("GET", "b"))
    stored = query.read([b"head", None])
    assert (stored.head_current, stored.head_previous) == (b"head", None)
    assert stored.streams == {"s": calls.StoredStream(0, None, None)}


@pytest.mark.parametrize(
    ("call", "reply"),
    [
        (calls.status(0), 1),
        (calls.release(TASK, "t"), b"one"),
        (calls.release(TASK, "t"), None),
        (_commit(), 9),
        (calls.renew(2, "a", 9, WorkerInfo(1, ()), [Lease(TASK, "t")]), [7]),
        (calls.renew(2, "a", 9, WorkerInfo(1, ()), [Lease(TASK, "t")]), []),
        (calls.claim(0, "a", "t", 9, kinds=KINDS, capacity=1, limit=1), [b"0", []]),
        (calls.claim(0, "a", "t", 9, kinds=KINDS, capacity=1, limit=1), [b"0", [[b"x"]], []]),
        (calls.want(0, "a", 9, kinds=KINDS, capacity=1), b"no task"),
    ],
)
def test_reply_no_script_writes_is_an_error_of_the_store(
    call: calls.Call[object], reply: calls.Reply
) -> None:
    with pytest.raises(StoreReplyError):
        call.read(reply)


def test_committed_offsets_are_those_of_the_last_checkpoint() -> None:
    other = TASK._replace(partition=3)
    query = calls.committed_offsets([TASK, other])
    assert query.commands == (
        ("HGETALL", f"snn:{{p2}}:pos:{TASK}"),
        ("HGETALL", f"snn:{{p3}}:pos:{other}"),
    )
    stored = [b"snn.in.x", f"12|{mark(TASK, 'snn.in.x', 12)}".encode()]
    assert query.read([stored, []]) == [{"snn.in.x": 12}, {}]


@pytest.mark.parametrize("damaged", [b"13|{}", b"1r|{}", b"12", b"\xff2|{}", b"12|{}0"])
def test_damaged_position_is_left_out(damaged: bytes) -> None:
    value = damaged.replace(b"{}", mark(TASK, "x", 12).encode())
    assert calls.committed_offsets([TASK]).read([[b"x", value]]) == [{}]


@pytest.mark.parametrize(
    "damaged",
    [b"s|snn:{p0}:blob:a1:1|snn:{p0}:blob:a0:1", b"3|snn:{p0}:blob:a1:1<snn:{p0}:blob:a0:1"],
)
def test_keys_of_a_damaged_reference_are_made_out(damaged: bytes) -> None:
    found = replies.reference(damaged)
    assert found == (-1, "snn:{p0}:blob:a1:1", "snn:{p0}:blob:a0:1")


def test_worker_whose_record_is_damaged_hosts_nothing() -> None:
    rows: calls.Reply = [[b"w", 1, b"not json"], [b"v", 0, b'{"capacity":1}']]
    told = calls.status(0).read([b"1", b"0", rows, []])
    assert [(w.worker, w.alive, w.info.kinds) for w in told.workers] == [
        ("w", True, ()), ("v", False, ())
    ]  # fmt: skip
