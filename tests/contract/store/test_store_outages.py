"""Restart, failover, lost data, silence and clock jumps: rules 25 to 27."""

from typing import TYPE_CHECKING

import pytest

from router.store import calls
from router.store.calls import CommitOutcome, Lease, RenewOutcome, TaskId

if TYPE_CHECKING:
    from tests.contract.store.conftest import Server

TTL = 95_000


@pytest.fixture
def owned(server: "Server", tasks: list[TaskId]) -> TaskId:
    """The first task, held by `a` with one checkpoint; the second is free."""
    server.deploy(tasks[0])
    server.claim_one("a", "token-a")
    server.commit(tasks[0], "token-a", 1, {"1:1": 1})
    server.deploy(tasks[1])
    return tasks[0]


def _settled(server: "Server") -> None:
    """The store settles; owners who live renew meanwhile."""
    for _ in range(2):
        server.elapse(50_000)
        server.renew("a", Lease(server.run(calls.status(0)).tasks[0].task, "token-a"))


def test_first_start_does_not_wait(server: "Server", tasks: list[TaskId]) -> None:
    server.deploy(tasks[0], settle=0)
    assert server.claim("a", "t").settling_ms == 0


def test_store_that_knows_nothing_refuses_claims_for_one_ttl(
    server: "Server", tasks: list[TaskId]
) -> None:
    assert server.claim("a", "t").settling_ms == TTL
    server.deploy(tasks[0], settle=0)
    assert 0 < server.claim("a", "t").settling_ms <= TTL
    assert server.claim("a", "t").claimed == ()
    server.elapse(100_000)
    assert server.claim_one("a", "t").task == tasks[0]


def test_tasks_that_are_deployed_anew_settle_though_workers_saw_the_store_empty(
    server: "Server", tasks: list[TaskId]
) -> None:
    server.renew("a", Lease(tasks[0], "token-a"))
    server.elapse(100_000)
    assert server.claim("b", "t").settling_ms == 0
    server.deploy(tasks[0], tasks[1], settle=TTL)
    assert 0 < server.claim("b", "t").settling_ms <= TTL
    server.elapse(50_000)
    server.deploy(tasks[0], tasks[1], settle=TTL)
    assert server.claim("b", "t").settling_ms <= TTL - 50_000


@pytest.mark.usefixtures("owned")
def test_after_a_failover_nobody_claims_for_one_ttl(server: "Server", tasks: list[TaskId]) -> None:
    server.fail_over()
    assert server.claim("b", "token-b").settling_ms == TTL
    assert server.run(calls.status(0)).settling_ms > 0
    server.elapse(50_000)
    reply = server.claim("b", "token-b")
    assert reply.claimed == ()
    assert 40_000 < reply.settling_ms <= 45_000
    server.elapse(50_000)
    assert server.claim("b", "token-c").settling_ms == 0


def test_owner_renews_while_the_store_settles(server: "Server", owned: TaskId) -> None:
    server.elapse(100_000)
    server.fail_over()
    assert server.claim("b", "token-b").claimed == ()
    assert server.renew("a", Lease(owned, "token-a")) == [RenewOutcome.OK]
    assert server.commit(owned, "token-a", 2) is CommitOutcome.OK
    _settled(server)
    assert [each.task for each in server.claim("b", "token-c").claimed] != [owned]


def test_renewal_alone_notices_the_failover(server: "Server", owned: TaskId) -> None:
    server.fail_over()
    server.renew("a", Lease(owned, "token-a"))
    assert server.claim("b", "token-b").settling_ms > 0


@pytest.mark.usefixtures("owned")
def test_second_failover_makes_the_store_settle_again(server: "Server") -> None:
    server.fail_over()
    server.claim("b", "t")
    server.elapse(100_000)
    server.fail_over()
    assert server.claim("b", "t").settling_ms == TTL


def test_failover_that_loses_a_claim_gives_the_task_back_to_its_former_owner(
    server: "Server", owned: TaskId
) -> None:
    server.elapse(60_000)
    server.renew("b")
    server.elapse(60_000)
    copy = server.mark()
    assert owned in [each.task for each in server.claim("b", "token-b").claimed]
    server.fail_over(copy)
    assert server.renew("b", Lease(owned, "token-b")) == [RenewOutcome.LOST]
    assert server.commit(owned, "token-b", 2) is CommitOutcome.TOKEN
    assert server.renew("a", Lease(owned, "token-a")) == [RenewOutcome.OK]


def test_failover_that_loses_a_checkpoint_asks_for_a_full_one(
    server: "Server", owned: TaskId
) -> None:
    copy = server.mark()
    assert server.commit(owned, "token-a", 2, {"1:1": 2, "1:2": 1}) is CommitOutcome.OK
    server.fail_over(copy)
    assert server.commit(owned, "token-a", 3, {"1:2": 2}) is CommitOutcome.NUMBER
    assert server.commit(owned, "token-a", 4, {"1:1": 2, "1:2": 2}, full=True) is CommitOutcome.OK
    stored = server.load(owned)
    assert stored is not None
    assert {name: stream.cursor for name, stream in stored.streams.items()} == {"1:1": 2, "1:2": 2}


def test_owner_reclaims_what_the_store_forgot_before_anybody_else(
    server: "Server", owned: TaskId
) -> None:
    server.lose_everything()
    assert server.renew("a", Lease(owned, "token-a")) == [RenewOutcome.VANISHED]
    assert server.claim("a", "again", held=[owned]).claimed == ()  # deploy comes first (27)
    server.deploy(owned, settle=TTL)
    assert server.renew("a", Lease(owned, "token-a")) == [RenewOutcome.VANISHED]
    assert server.claim("b", "token-b").claimed == ()
    claimed = server.claim_one("a", "again", held=[owned], limit=0, capacity=0)
    assert (claimed.task, claimed.number) == (owned, 0)
    assert server.commit(owned, "again", 2, {"1:1": 2}) is CommitOutcome.NUMBER
    assert server.commit(owned, "again", 3, {"1:1": 2}, full=True) is CommitOutcome.OK


def test_redeploying_after_a_loss_makes_others_wait(server: "Server", owned: TaskId) -> None:
    server.lose_everything()
    server.deploy(owned, settle=TTL)
    assert server.claim("b", "token-b").claimed == ()
    server.elapse(100_000)
    assert server.claim_one("b", "token-b").task == owned


def test_task_another_worker_has_had_since_is_not_reclaimed(
    server: "Server", owned: TaskId
) -> None:
    server.lose_everything()
    server.deploy(owned)
    server.claim_one("b", "token-b")
    assert server.renew("a", Lease(owned, "token-a")) == [RenewOutcome.LOST]
    server.run(calls.release(owned, "token-b"))
    assert server.renew("a", Lease(owned, "token-a")) == [RenewOutcome.LOST]
    assert server.claim("a", "again", held=[owned]).claimed == ()


def test_outage_that_everybody_saw_lets_owners_renew_first(
    server: "Server", owned: TaskId, tasks: list[TaskId]
) -> None:
    server.elapse(200_000)  # nobody reached the store; it is the same server
    reply = server.claim("b", "token-b")
    assert (reply.claimed, reply.settling_ms) == ((), TTL)
    assert server.renew("a", Lease(owned, "token-a")) == [RenewOutcome.OK]
    _settled(server)
    assert [each.task for each in server.claim("b", "token-c").claimed] == [tasks[1]]


@pytest.mark.usefixtures("owned")
def test_outage_is_noticed_when_an_owner_renews_first(server: "Server") -> None:
    server.elapse(200_000)
    server.renew("c")
    assert server.claim("b", "token-b").settling_ms > 0


def test_silence_without_leases_is_no_outage(server: "Server", tasks: list[TaskId]) -> None:
    server.deploy(tasks[0])
    server.elapse(200_000)
    assert server.claim("b", "token-b").settling_ms == 0


def test_single_worker_that_waits_as_told_gets_the_tasks_of_its_dead_self(
    server: "Server", owned: TaskId
) -> None:
    server.elapse(1_000_000)
    wait = server.claim("a", "second").settling_ms
    server.elapse(wait + 5_000)
    assert owned in [each.task for each in server.claim("a", "third").claimed]


def test_clock_that_jumps_ahead_takes_no_lease_from_the_living(
    server: "Server", owned: TaskId
) -> None:
    server.elapse(10_000_000)
    assert server.claim("b", "token-b").claimed == ()
    assert server.renew("a", Lease(owned, "token-a")) == [RenewOutcome.OK]


def test_clock_that_jumps_back_prolongs_no_lease_beyond_one_ttl(
    server: "Server", owned: TaskId, tasks: list[TaskId]
) -> None:
    server.elapse(-10_000_000)
    assert [each.task for each in server.claim("b", "token-b").claimed] == [tasks[1]]
    for _ in range(2):
        server.elapse(50_000)
        server.renew("b", Lease(tasks[1], "token-b"))
    assert server.claim_one("b", "token-c").task == owned


@pytest.mark.usefixtures("owned")
def test_clock_that_jumps_back_prolongs_no_settling_beyond_one_ttl(
    server: "Server", tasks: list[TaskId]
) -> None:
    server.fail_over()
    server.claim("b", "token-b")
    server.elapse(-10_000_000)
    assert server.claim("b", "token-b").settling_ms == TTL
    server.elapse(100_000)
    assert server.claim("b", "token-c").settling_ms == 0
