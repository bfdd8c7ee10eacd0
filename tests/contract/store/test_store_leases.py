"""Who may run a task: rules 25, 27 and 28."""

from functools import partial
from typing import TYPE_CHECKING

import pytest

from router.kinds import task_kind, with_extras
from router.store import calls
from router.store.calls import Lease, RenewOutcome, TaskId, TaskSpec, WorkerInfo

if TYPE_CHECKING:
    from tests.contract.store.conftest import Server

TTL = 95_000
KINDS = ("synaptic",)
LATER = 100_000  # more than one TTL


def test_free_task_is_claimed_by_the_first_who_asks(server: "Server", tasks: list[TaskId]) -> None:
    server.deploy(tasks[0], cost=3)
    claimed = server.claim_one("a", "token-a")
    assert (claimed.task, claimed.token, claimed.cost) == (tasks[0], "token-a", 3)
    assert (claimed.claims, claimed.number, claimed.previous) == (1, 0, "")
    assert server.claim("b", "token-b").claimed == ()


def test_creating_a_task_again_leaves_its_lease_alone(
    server: "Server", tasks: list[TaskId]
) -> None:
    server.deploy(tasks[0])
    server.claim_one("a", "token-a")
    before = server.dump()
    assert not server.run(calls.create_task(TaskSpec(tasks[0], "synaptic", 1), settle_ms=0))
    assert server.dump() == before


def test_claim_passes_over_kinds_the_worker_lacks(server: "Server", tasks: list[TaskId]) -> None:
    server.deploy(tasks[0], kind="readout")
    assert server.claim("a", "t").claimed == ()
    assert server.claim_one("a", "t", kinds=["ingest", "readout"]).kind == "readout"


def test_task_that_needs_an_extra_is_never_given_to_a_worker_without_it(
    server: "Server", tasks: list[TaskId]
) -> None:
    kind, ours = task_kind("synaptic", ["brian2"]), with_extras(KINDS, ["brian2"])
    server.deploy(tasks[0], kind=kind)
    assert server.claim("a", "t").claimed == ()
    server.renew("a")
    assert calls.unhosted(server.run(calls.status(0))) == (tasks[0],)
    assert server.claim_one("b", "u", kinds=ours).kind == kind
    server.renew("b", calls.Lease(tasks[0], "u"), kinds=ours)
    server.elapse(TTL + 1)
    assert server.claim("a", "v").claimed == ()


def test_worker_without_the_extra_is_given_nothing_of_a_loaded_one_that_needs_it(
    server: "Server", tasks: list[TaskId]
) -> None:
    ours = with_extras(KINDS, ["brian2"])
    server.deploy(*tasks[:2], kind=task_kind("synaptic", ["brian2"]))
    server.claim("a", "t", kinds=ours)
    server.renew("a", *(calls.Lease(task, "t") for task in tasks[:2]), kinds=ours)
    ask = partial(calls.want, 0, "b", TTL, capacity=100)
    assert server.run(ask(kinds=KINDS)) is None
    assert server.run(ask(kinds=ours)) in tasks[:2]


def test_claim_stops_at_the_free_capacity(server: "Server", tasks: list[TaskId]) -> None:
    server.deploy(*tasks, cost=4)
    assert [each.task for each in server.claim("a", "t", capacity=11).claimed] == tasks[:2]


def test_claim_stops_at_its_limit(server: "Server", tasks: list[TaskId]) -> None:
    server.deploy(*tasks)
    assert [each.task for each in server.claim("a", "t", limit=3).claimed] == tasks[:3]


def test_partitions_do_not_see_each_other(server: "Server", tasks: list[TaskId]) -> None:
    other = tasks[0]._replace(partition=1)
    server.deploy(tasks[0], other)
    assert server.claim_one("a", "t").task == tasks[0]
    assert server.claim_one("a", "t", partition=1).task == other


def test_claim_that_gets_nothing_is_told_when_the_first_lease_of_others_runs_out(
    server: "Server", tasks: list[TaskId]
) -> None:
    server.deploy(*tasks[:2])
    assert server.claim("a", "token-a", limit=1).expiry_ms is None
    server.elapse(30_000)
    server.claim_one("b", "token-b", limit=1)
    left = server.claim("c", "token-c").expiry_ms
    assert left is not None
    assert TTL - 30_000 - 1_000 < left <= TTL - 30_000


def test_expired_lease_goes_to_another_worker(server: "Server", tasks: list[TaskId]) -> None:
    server.deploy(tasks[0])
    server.claim_one("a", "token-a")
    server.renew("b")
    server.elapse(60_000)
    server.renew("b")  # the store is not silent: somebody lives
    assert server.claim("b", "token-b").claimed == ()
    server.elapse(40_000)
    claimed = server.claim_one("b", "token-b")
    assert (claimed.previous, claimed.claims) == ("a", 2)
    assert 5_000 <= claimed.idle_ms < 10_000


def test_renewed_lease_stays(server: "Server", tasks: list[TaskId]) -> None:
    server.deploy(tasks[0])
    server.claim_one("a", "token-a")
    for _ in range(3):
        server.elapse(60_000)
        assert server.renew("a", Lease(tasks[0], "token-a")) == [RenewOutcome.OK]
        assert server.claim("b", "token-b").claimed == ()


def test_expired_lease_that_nobody_took_is_renewed(server: "Server", tasks: list[TaskId]) -> None:
    server.deploy(tasks[0])
    server.claim_one("a", "token-a")
    server.elapse(LATER)
    assert server.renew("a", Lease(tasks[0], "token-a")) == [RenewOutcome.OK]
    assert server.claim("b", "token-b").claimed == ()


def test_zombie_is_told_that_its_lease_is_lost_and_can_do_nothing(
    server: "Server", tasks: list[TaskId]
) -> None:
    server.deploy(tasks[0])
    server.claim_one("a", "token-a")
    server.elapse(60_000)
    server.renew("b")
    server.elapse(60_000)
    server.claim_one("b", "token-b")
    assert server.renew("a", Lease(tasks[0], "token-a")) == [RenewOutcome.LOST]
    before = server.dump()
    assert not server.run(calls.release(tasks[0], "token-a"))
    assert not server.run(calls.hand(tasks[0], "token-a", "1:2#3"))
    assert not server.run(calls.fail_task(tasks[0], "token-a", "LogReplaced"))
    assert not server.run(calls.blame(tasks[0], "token-a", "MemoryError"))
    assert server.dump() == before


def test_same_worker_with_an_older_token_is_a_zombie_too(
    server: "Server", tasks: list[TaskId]
) -> None:
    server.deploy(tasks[0])
    server.claim_one("a", "first")
    server.run(calls.release(tasks[0], "first"))
    server.claim_one("a", "second")
    assert server.renew("a", Lease(tasks[0], "first")) == [RenewOutcome.LOST]


def test_released_task_is_free_at_once_and_its_counter_starts_again(
    server: "Server", tasks: list[TaskId]
) -> None:
    server.deploy(tasks[0])
    for turn in range(4):
        token = f"token-{turn}"
        assert server.claim_one("a", token).claims == 1
        assert server.run(calls.release(tasks[0], token))


def test_owner_that_released_does_not_get_its_lease_back_by_renewing(
    server: "Server", tasks: list[TaskId]
) -> None:
    server.deploy(tasks[0])
    server.claim_one("a", "token-a")
    server.run(calls.release(tasks[0], "token-a"))
    assert server.renew("a", Lease(tasks[0], "token-a")) == [RenewOutcome.LOST]
    assert server.claim_one("b", "token-b").task == tasks[0]


def test_checkpoint_in_a_newer_format_is_left_to_newer_workers(
    server: "Server", tasks: list[TaskId]
) -> None:
    server.deploy(tasks[0])
    server.claim_one("a", "token-a", format_version=2)
    server.commit(tasks[0], "token-a", 1, format_version=2)
    server.run(calls.release(tasks[0], "token-a"))
    assert server.claim("b", "token-b", format_version=1).claimed == ()
    assert server.claim_one("c", "token-c", format_version=2).number == 1


def test_failed_task_is_not_claimed_until_it_is_deployed_again(
    server: "Server", tasks: list[TaskId]
) -> None:
    server.deploy(tasks[0])
    server.claim_one("a", "token-a")
    assert server.run(calls.fail_task(tasks[0], "token-a", "LogReplaced"))
    assert server.claim("b", "token-b").claimed == ()
    assert server.run(calls.status(0)).tasks[0].error == "LogReplaced"
    server.deploy(tasks[0])
    assert server.claim_one("b", "token-b").task == tasks[0]


def test_what_ended_an_owner_is_shown_and_its_claims_go_on_being_counted(
    server: "Server", tasks: list[TaskId]
) -> None:
    server.deploy(tasks[0])
    server.claim_one("a", "token-a")
    assert server.run(calls.blame(tasks[0], "token-a", "MemoryError"))
    (status,) = server.run(calls.status(0)).tasks
    assert (status.last_error, status.error, status.claims) == ("MemoryError", "", 1)
    server.elapse(60_000)
    server.renew("b")
    server.elapse(60_000)
    assert server.claim_one("b", "token-b").claims == 2
    assert server.run(calls.release(tasks[0], "token-b"))
    assert server.run(calls.status(0)).tasks[0].last_error == ""


def test_removed_task_leaves_no_key_behind(server: "Server", tasks: list[TaskId]) -> None:
    server.deploy(*tasks[:2])
    server.claim("a", "token-a")
    assert server.commit(tasks[0], "token-a", 1, {"1:1": 1, "1:2": 1}).name == "OK"
    assert server.commit(tasks[0], "token-a", 2, {"1:1": 2}).name == "OK"
    assert server.run(calls.remove_task(tasks[0]))
    assert not server.run(calls.remove_task(tasks[0]))
    assert not [key for key in server.dump() if b":blob:" in key or str(tasks[0]).encode() in key]
    assert [task.task for task in server.run(calls.status(0)).tasks] == [tasks[1]]


# Rule 28: poison must not tour the spares.


@pytest.fixture
def crash_twice(server: "Server", tasks: list[TaskId]) -> None:
    """Two owners of the first task vanished without a checkpoint; worker `spare` looks on."""
    server.deploy(tasks[0])
    for worker in ("a", "b"):
        server.claim_one(worker, f"token-{worker}")
        _vanish(server)


def _vanish(server: "Server") -> None:
    """Every lease expires while the store is known to be well."""
    for _ in range(2):
        server.elapse(50_000)
        server.renew("spare")


@pytest.mark.usefixtures("crash_twice")
def test_third_claim_needs_a_process_of_its_own(server: "Server", tasks: list[TaskId]) -> None:
    reply = server.claim("c", "token-c")
    assert (reply.claimed, reply.suspicious) == ((), (tasks[0],))
    claimed = server.claim_one("c-alone", "token-d", alone=tasks[0])
    assert claimed.suspicious
    assert claimed.claims == 3


@pytest.mark.usefixtures("crash_twice")
def test_suspicious_task_is_offered_to_one_worker_at_a_time(
    server: "Server", tasks: list[TaskId]
) -> None:
    assert server.claim("c", "token-c").suspicious == (tasks[0],)
    assert server.claim("d", "token-d").suspicious == ()
    assert server.claim("c", "token-c").suspicious == ()
    for _ in range(5):
        _vanish(server)
    assert server.claim("d", "token-d").suspicious == (tasks[0],)


def test_process_of_its_own_claims_nothing_else(server: "Server", tasks: list[TaskId]) -> None:
    server.deploy(*tasks)
    assert server.claim_one("a", "t", alone=tasks[3]).task == tasks[3]


@pytest.mark.usefixtures("crash_twice")
def test_window_in_the_hands_of_two_vanished_owners_is_counted_twice(
    server: "Server", tasks: list[TaskId]
) -> None:
    for turn, count in enumerate((0, 1, 2)):
        claimed = server.claim_one("c", f"token-{turn}", alone=tasks[0])
        assert claimed.hand_count == count
        assert claimed.hand_last == ("1:7#4" if count else "")
        assert server.run(calls.hand(tasks[0], claimed.token, "1:7#4"))
        _vanish(server)


@pytest.mark.usefixtures("crash_twice")
def test_another_window_in_hand_starts_the_count_again(
    server: "Server", tasks: list[TaskId]
) -> None:
    for turn, value in enumerate(("1:7#4", "1:8#4")):
        claimed = server.claim_one("c", f"token-{turn}", alone=tasks[0])
        server.run(calls.hand(tasks[0], claimed.token, value))
        _vanish(server)
    claimed = server.claim_one("c", "last", alone=tasks[0])
    assert (claimed.hand_last, claimed.hand_count) == ("1:8#4", 1)


@pytest.mark.usefixtures("crash_twice")
def test_owner_that_vanished_with_empty_hands_accuses_no_stream(
    server: "Server", tasks: list[TaskId]
) -> None:
    for turn, value in enumerate(("1:7#4", "")):
        claimed = server.claim_one("c", f"token-{turn}", alone=tasks[0])
        server.run(calls.hand(tasks[0], claimed.token, value))
        _vanish(server)
    claimed = server.claim_one("c", "last", alone=tasks[0])
    assert (claimed.hand_last, claimed.hand_count) == ("", 0)


@pytest.mark.usefixtures("crash_twice")
def test_checkpoint_ends_the_suspicion(server: "Server", tasks: list[TaskId]) -> None:
    server.claim_one("c", "token-c", alone=tasks[0])
    assert server.commit(tasks[0], "token-c", 1).name == "OK"
    _vanish(server)
    claimed = server.claim_one("d", "token-d")
    assert (claimed.claims, claimed.suspicious) == (1, False)


@pytest.mark.usefixtures("crash_twice")
def test_checkpoint_before_catching_up_does_not_end_the_suspicion(
    server: "Server", tasks: list[TaskId]
) -> None:
    server.claim_one("c", "token-c", alone=tasks[0])
    assert server.commit(tasks[0], "token-c", 1, caught_up=False).name == "OK"
    _vanish(server)
    claimed = server.claim_one("d", "token-d", alone=tasks[0])
    assert (claimed.claims, claimed.suspicious) == (4, True)


@pytest.mark.usefixtures("crash_twice")
def test_checkpoint_of_an_older_state_does_not_hide_the_window_in_hand(
    server: "Server", tasks: list[TaskId]
) -> None:
    server.claim_one("c", "token-c", alone=tasks[0])
    server.run(calls.hand(tasks[0], "token-c", "1:7#4"))
    assert server.commit(tasks[0], "token-c", 1).name == "OK"
    _vanish(server)
    claimed = server.claim_one("d", "token-d")
    assert (claimed.hand_last, claimed.hand_count) == ("1:7#4", 1)


@pytest.mark.usefixtures("crash_twice")
def test_owners_who_show_no_hand_do_not_end_the_row(server: "Server", tasks: list[TaskId]) -> None:
    server.claim_one("c", "first", alone=tasks[0])
    server.run(calls.hand(tasks[0], "first", "1:7#4"))
    server.commit(tasks[0], "first", 1)
    for worker in ("d", "e"):
        _vanish(server)
        assert server.claim_one(worker, f"token-{worker}").hand_count == 1
    _vanish(server)
    server.claim_one("f", "second", alone=tasks[0])
    server.run(calls.hand(tasks[0], "second", "1:7#4"))
    _vanish(server)
    claimed = server.claim_one("g", "third", alone=tasks[0])
    assert (claimed.hand_last, claimed.hand_count) == ("1:7#4", 2)


@pytest.mark.usefixtures("crash_twice")
def test_polite_release_forgets_what_was_in_hand(server: "Server", tasks: list[TaskId]) -> None:
    server.claim_one("c", "token-c", alone=tasks[0])
    server.run(calls.hand(tasks[0], "token-c", "1:7#4"))
    server.run(calls.release(tasks[0], "token-c"))
    claimed = server.claim_one("d", "token-d")
    assert (claimed.claims, claimed.hand_count) == (1, 0)


# What `status` shows.


def test_status_tells_workers_and_tasks_of_one_instant(
    server: "Server", tasks: list[TaskId]
) -> None:
    server.deploy(*tasks[:2], cost=2)
    server.renew("b", capacity=7, details={"pid": 12, "state": "ready"})
    server.elapse(60_000)
    server.claim_one("a", "token-a", limit=1)
    server.renew("a", Lease(tasks[0], "token-a"))
    server.elapse(40_000)
    server.commit(tasks[0], "token-a", 1)
    reply = server.run(calls.status(0))
    assert [(each.worker, each.alive) for each in reply.workers] == [("a", True), ("b", False)]
    assert reply.workers[1].info == WorkerInfo(7, ("synaptic",), 0, {"pid": 12, "state": "ready"})
    first, second = reply.tasks
    assert (first.worker, first.cost, first.number, first.claims) == ("a", 2, 1, 0)
    assert 50_000 < first.lease_ms <= 55_000
    assert first.checkpoint_age_ms is not None
    assert 0 <= first.checkpoint_age_ms < 5_000
    assert (second.worker, second.lease_ms, second.checkpoint_age_ms) == ("", 0, None)


def test_task_that_fits_nobody_is_named(server: "Server", tasks: list[TaskId]) -> None:
    server.deploy(tasks[0], cost=101)
    server.deploy(tasks[1], kind="readout")
    server.deploy(tasks[2])
    server.renew("a", capacity=100)
    assert calls.unhosted(server.run(calls.status(0))) == (tasks[0], tasks[1])


def test_worker_that_left_is_no_longer_listed(server: "Server") -> None:
    server.renew("a")
    assert server.run(calls.leave(0, "a"))
    assert not server.run(calls.leave(0, "a"))
    assert server.run(calls.status(0)).workers == ()


def test_scripts_survive_a_script_flush(server: "Server", tasks: list[TaskId]) -> None:
    server.deploy(tasks[0])
    server.forget_scripts()
    assert server.claim_one("a", "token-a").task == tasks[0]
    server.forget_scripts()
    assert server.renew("a", Lease(tasks[0], "token-a")) == [RenewOutcome.OK]


NEEDS = (4096, 100, 9, 8, 24, 0, 1)
LARGER = (8192, None, None, 8, 24, None, 32)


@pytest.mark.parametrize(
    ("limits", "fits"),
    [
        ((), True),
        (LARGER, True),
        (NEEDS, True),
        ((None,) * 7, True),
        ((4095, *LARGER[1:]), False),
        ((*LARGER[:3], 7, 24, None, 32), False),
        ((*NEEDS[:6], 0), False),
    ],
    ids=["no limits", "larger", "just so", "open", "too many neurons", "too few bits", "the last"],
)
def test_node_with_limits_is_given_what_fits_them(
    server: "Server", tasks: list[TaskId], limits: tuple[int | None, ...], fits: bool
) -> None:
    server.run(calls.create_task(TaskSpec(tasks[0], "synaptic", 1, NEEDS), settle_ms=0))
    claimed = server.claim("a", "t", limits=limits).claimed
    assert [each.task for each in claimed] == ([tasks[0]] if fits else [])


def test_node_with_limits_takes_nothing_of_unknown_needs(
    server: "Server", tasks: list[TaskId]
) -> None:
    server.deploy(tasks[0])
    assert server.claim("a", "t", limits=LARGER).claimed == ()
    server.renew("a", limits=LARGER)
    assert calls.unhosted(server.run(calls.status(0))) == (tasks[0],)


def test_node_wants_only_what_fits_its_limits(server: "Server", tasks: list[TaskId]) -> None:
    for task in tasks[:2]:
        server.run(calls.create_task(TaskSpec(task, "synaptic", 1, NEEDS), settle_ms=0))
    server.claim("a", "t")
    server.renew("a", *(calls.Lease(task, "t") for task in tasks[:2]))
    ask = partial(calls.want, 0, "b", TTL, kinds=["synaptic"], capacity=100)
    assert server.run(ask(limits=(10, *LARGER[1:]))) is None
    assert server.run(ask(limits=LARGER)) in tasks[:2]
