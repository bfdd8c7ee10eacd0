"""One damaged record or reference stops nobody else, and can be replaced."""

from typing import TYPE_CHECKING, Any

import pytest

from router.store import calls
from router.store.calls import CommitOutcome, Lease, RenewOutcome, TaskId, TaskSpec

if TYPE_CHECKING:
    from tests.contract.store.conftest import Server

OK, NUMBER, BACKWARDS = CommitOutcome.OK, CommitOutcome.NUMBER, CommitOutcome.BACKWARDS
PREFIX = "snn:{p0}:"
TTL = 95_000


def command(server: Any, *args: Any) -> Any:
    """One plain command at the server, whichever it is."""
    if hasattr(server, "client"):
        return server.client.execute_command(*args)
    return server.store.command(*args)


def test_damaged_field_of_a_task_stops_no_other_task(server: "Server", tasks: list[TaskId]) -> None:
    server.deploy(tasks[0])
    server.deploy(tasks[1])
    fields = command(server, "HGETALL", f"{PREFIX}task:{tasks[0]}")
    names = [*fields] if isinstance(fields, dict) else fields[::2]
    for name in names:
        for value in ("", "x9", "\xff"):
            before = command(server, "HGET", f"{PREFIX}task:{tasks[0]}", name)
            command(server, "HSET", f"{PREFIX}task:{tasks[0]}", name, value)
            claimed = server.claim("a", f"t-{name!r}-{value}", limit=9).claimed
            assert tasks[1] in {each.task for each in claimed}, name
            token = claimed[0].token
            assert server.renew("a", Lease(tasks[1], token)) == [RenewOutcome.OK]
            assert tasks[1] in {row.task for row in server.run(calls.status(0)).tasks}
            server.run(calls.want(0, "b", TTL, kinds=["synaptic"], capacity=0))
            for each in claimed:
                server.run(calls.release(each.task, token))
            command(server, "HSET", f"{PREFIX}task:{tasks[0]}", name, before)


def test_record_of_another_type_stops_no_other_task_and_is_mended(
    server: "Server", tasks: list[TaskId]
) -> None:
    for task in tasks[:2]:
        server.deploy(task)
    command(server, "UNLINK", f"{PREFIX}task:{tasks[0]}")
    command(server, "SADD", f"{PREFIX}task:{tasks[0]}", "x")
    assert [c.task for c in server.claim("a", "t").claimed] == [tasks[1]]
    (row,) = [row for row in server.run(calls.status(0)).tasks if row.task == tasks[0]]
    assert row.damaged
    server.run(calls.mend_task(TaskSpec(tasks[0], "synaptic", 1), settle_ms=0))
    assert [c.task for c in server.claim("a", "t2").claimed] == [tasks[0]]


@pytest.mark.parametrize("field", ["kind", "cost", "op", "group", "generation", "needs"])
def test_what_deployment_wrote_is_mended_and_the_lease_is_left(
    server: "Server", tasks: list[TaskId], field: str
) -> None:
    spec = TaskSpec(tasks[0], "synaptic", 1)
    server.run(calls.create_task(spec, settle_ms=0))
    claimed = server.claim_one("a", "t")
    before = server.dump()
    command(server, "HSET", f"{PREFIX}task:{tasks[0]}", field, "\x01x")
    assert not server.run(calls.mend_task(spec, settle_ms=0))
    assert server.dump() == before
    assert server.renew("a", Lease(tasks[0], claimed.token)) == [RenewOutcome.OK]


@pytest.mark.parametrize("by", ["a worker", "deployment"])
@pytest.mark.parametrize("lost", ["all of it", "its token"])
def test_owner_of_a_lost_record_comes_before_others(
    server: "Server", tasks: list[TaskId], by: str, lost: str
) -> None:
    spec = TaskSpec(tasks[0], "synaptic", 1)
    server.deploy(*tasks)
    server.claim("a", "t", limit=100)
    record = f"{PREFIX}task:{tasks[0]}"
    command(server, *(("UNLINK", record) if lost == "all of it" else ("HDEL", record, "token")))
    again = calls.mend_task if by == "a worker" else calls.create_task
    assert server.run(again(spec, settle_ms=TTL)) == (lost == "all of it")
    assert server.claim("b", "t2").claimed == ()
    (outcome,) = server.renew("a", Lease(tasks[0], "t"))
    assert outcome is RenewOutcome.VANISHED
    claimed = server.claim("a", "t3", held=[tasks[0]]).claimed
    assert [c.task for c in claimed] == [tasks[0]]


def test_task_that_the_store_does_not_know_is_not_mended(
    server: "Server", tasks: list[TaskId]
) -> None:
    assert not server.run(calls.mend_task(TaskSpec(tasks[0], "synaptic", 1), settle_ms=0))
    assert server.dump() == {}


def test_damaged_worker_record_hides_no_task(server: "Server", tasks: list[TaskId]) -> None:
    server.deploy(tasks[0])
    server.renew("a")
    command(server, "HSET", f"{PREFIX}workers", "a", "9u|x")
    told = server.run(calls.status(0))
    assert ([w.alive for w in told.workers], len(told.tasks)) == ([False], 1)
    assert server.run(calls.want(0, "b", TTL, kinds=["synaptic"], capacity=9)) is None


def test_damaged_identity_of_the_server_settles_once_more(
    server: "Server", tasks: list[TaskId]
) -> None:
    server.deploy(tasks[0])
    server.claim_one("a", "t")
    for field in ("settle_until", "seen"):
        command(server, "HSET", f"{PREFIX}server", field, "1x")
        assert server.claim("b", "u").settling_ms > 0


def test_number_of_streams_that_is_another_is_asked_for_in_full(
    server: "Server", tasks: list[TaskId]
) -> None:
    server.deploy(tasks[0])
    server.claim_one("a", "t")
    assert server.commit(tasks[0], "t", 1, {"1:1": 0, "1:2": 0}, entries=0) is OK
    command(server, "HDEL", f"{PREFIX}streams:{tasks[0]}", "1:2")
    assert server.commit(tasks[0], "t", 2, {"1:1": 1}, entries=2) is NUMBER
    assert server.commit(tasks[0], "t", 3, {"1:1": 1, "1:2": 0}, full=True, entries=2) is OK


def test_who_mends_may_fall_below_a_damaged_cursor_and_position(
    server: "Server", tasks: list[TaskId]
) -> None:
    task = tasks[0]
    server.deploy(task)
    server.claim_one("a", "t")
    assert server.commit(task, "t", 1, {"1:1": 1}, offset=4) is OK
    (blob,) = (s.current for s in server.load(task).streams.values())  # type: ignore[union-attr]
    command(server, "HSET", f"{PREFIX}streams:{task}", "1:1", f"9|{blob.decode()}|")  # type: ignore[union-attr]
    command(server, "HSET", f"{PREFIX}pos:{task}", "snn.in.x", "6|00")
    loaded = server.load(task)
    assert loaded is not None
    assert loaded.positions == {}
    assert server.commit(task, "t", 2, {"1:1": 2}, full=True, offset=5) is BACKWARDS
    assert server.commit(task, "t", 3, {"1:1": 2}, full=True, offset=5, mends=True) is OK
    assert server.load(task).streams["1:1"].cursor == 2  # type: ignore[union-attr]


@pytest.mark.parametrize("key", ["streams", "pos", "head"])
def test_part_of_a_checkpoint_of_another_type_is_loaded_as_lost_and_replaced(
    server: "Server", tasks: list[TaskId], key: str
) -> None:
    task = tasks[0]
    server.deploy(task)
    server.claim_one("a", "t")
    assert server.commit(task, "t", 1, {"1:1": 1}) is OK
    command(server, "UNLINK", f"{PREFIX}{key}:{task}")
    command(server, "SADD", f"{PREFIX}{key}:{task}", "x")
    loaded = server.load(task)
    assert loaded is not None
    assert loaded.number == 1
    assert server.commit(task, "t", 2, {"1:1": 1}, full=True) is OK
    assert [*server.load(task).streams] == ["1:1"]  # type: ignore[union-attr]


@pytest.mark.parametrize("value", ["", "x9", b"\xff\xfe", "12 x 7", "-"])
def test_status_tells_of_a_task_whatever_a_field_of_its_record_holds(
    server: "Server", tasks: list[TaskId], value: str | bytes
) -> None:
    server.deploy(tasks[0])
    key = f"{PREFIX}task:{tasks[0]}"
    fields = command(server, "HGETALL", key)
    names = [*fields] if isinstance(fields, dict) else fields[::2]
    for name in [*names, "last_error", "error", "hand", "wanted_by"]:
        before = command(server, "HGET", key, name)
        command(server, "HSET", key, name, value)
        assert [row.task for row in server.run(calls.status(0)).tasks] == [tasks[0]], name
        if before is None:
            command(server, "HDEL", key, name)
        else:
            command(server, "HSET", key, name, before)


@pytest.mark.parametrize("left", ["streams", "pos"])
def test_what_is_left_of_a_checkpoint_without_record_and_head_is_loaded_and_replaced(
    server: "Server", tasks: list[TaskId], left: str
) -> None:
    task = tasks[0]
    server.deploy(task)
    server.claim_one("a", "t")
    assert server.commit(task, "t", 1, {"1:1": 5}, offset=9) is OK
    for key in {"task", "head", "streams", "pos"} - {left}:
        command(server, "UNLINK", f"{PREFIX}{key}:{task}")
    server.deploy(task)
    server.claim_one("b", "u")
    loaded = server.load(task)
    assert loaded is not None
    assert (loaded.number, loaded.head_current) == (0, None)
    assert server.commit(task, "u", 1, {"1:1": 1}, full=True, offset=1) is BACKWARDS
    assert server.commit(task, "u", 1, {"1:1": 1}, full=True, offset=1, mends=True) is OK


def test_name_of_a_task_that_became_another_is_no_task_and_the_right_one_is_mended(
    server: "Server", tasks: list[TaskId]
) -> None:
    task = tasks[0]
    server.deploy(task)
    for stray in (task._replace(generation=task.generation + 1), task._replace(group=77)):
        command(server, "SREM", f"{PREFIX}tasks", str(task))
        command(server, "SADD", f"{PREFIX}tasks", str(stray))
        assert server.run(calls.status(0)).tasks == ()
        server.run(calls.mend_task(TaskSpec(task, "synaptic", 1), settle_ms=0))
        assert [row.task for row in server.run(calls.status(0)).tasks] == [task]
    assert [c.task for c in server.claim("a", "t", limit=9).claimed] == [task]


def test_lost_record_of_a_task_is_mended(server: "Server", tasks: list[TaskId]) -> None:
    server.deploy(tasks[0])
    command(server, "UNLINK", f"{PREFIX}task:{tasks[0]}")
    server.run(calls.mend_task(TaskSpec(tasks[0], "synaptic", 1), settle_ms=0))
    assert [c.task for c in server.claim("a", "t").claimed] == [tasks[0]]
