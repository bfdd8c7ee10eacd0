"""New workers take their share, one task at a time, and nothing moves for nothing: rule 29."""

from typing import TYPE_CHECKING

import pytest

from router.store import calls
from router.store.calls import Lease, RenewOutcome, TaskId

if TYPE_CHECKING:
    from tests.contract.store.conftest import Server

TTL = 95_000
KINDS = ("synaptic",)


def _want(
    server: "Server",
    worker: str,
    kinds: tuple[str, ...] = KINDS,
    capacity: int = 100,
    elsewhere: int = 0,
    overhead: int = 0,
) -> TaskId | None:
    call = calls.want(
        0, worker, TTL, kinds=kinds, capacity=capacity, elsewhere=elsewhere, overhead=overhead
    )
    return server.run(call)


@pytest.fixture
def loaded(server: "Server", tasks: list[TaskId]) -> list[Lease]:
    """Worker `a` holds all eight tasks, of cost 1 each; `b` and `c` have none."""
    server.deploy(*tasks)
    leases = [Lease(each.task, each.token) for each in server.claim("a", "t").claimed]
    server.renew("a", *leases)
    server.renew("b")
    server.renew("c")
    return leases


def _move(server: "Server", task: TaskId, token: str, taker: str) -> list[TaskId]:
    server.run(calls.release(task, token))
    return [each.task for each in server.claim(taker, f"token-{taker}-{task.group}").claimed]


def test_giver_learns_at_its_renewal_which_task_is_wanted(
    server: "Server", loaded: list[Lease]
) -> None:
    wanted = _want(server, "b")
    assert wanted == loaded[0].task
    outcomes = server.renew("a", *loaded)
    assert outcomes == [RenewOutcome.WANTED] + [RenewOutcome.OK] * 7
    assert server.run(calls.status(0)).tasks[0].wanted_by == "b"


def test_released_task_goes_to_who_wanted_it_and_to_nobody_else(
    server: "Server", loaded: list[Lease]
) -> None:
    wanted = _want(server, "b")
    server.run(calls.release(loaded[0].task, "t"))
    assert server.claim("c", "token-c").claimed == ()
    assert server.claim("a", "token-a").claimed == ()
    assert server.claim_one("b", "token-b").task == wanted


def test_task_nobody_came_for_is_free_for_all_after_one_ttl(
    server: "Server", loaded: list[Lease]
) -> None:
    _want(server, "b")
    server.run(calls.release(loaded[0].task, "t"))
    server.elapse(50_000)
    server.renew("a", *loaded[1:])
    server.elapse(50_000)
    assert loaded[0].task in [each.task for each in server.claim("c", "token-c").claimed]


def test_worker_wants_one_task_at_a_time(server: "Server", loaded: list[Lease]) -> None:
    assert _want(server, "b") is not None
    assert _want(server, "b") is None
    assert sum(o is RenewOutcome.WANTED for o in server.renew("a", *loaded)) == 1


def test_giver_is_asked_for_one_task_at_a_time(server: "Server", loaded: list[Lease]) -> None:
    assert _want(server, "b") is not None
    assert _want(server, "c") is None
    assert sum(o is RenewOutcome.WANTED for o in server.renew("a", *loaded)) == 1


def test_moving_ends_when_the_giver_would_have_less_than_the_taker(
    server: "Server", loaded: list[Lease]
) -> None:
    moved = 0
    while (task := _want(server, "b")) is not None:
        assert _move(server, task, "t", "b") == [task]
        moved += 1
    assert moved == 4
    assert _want(server, "a") is None


@pytest.mark.usefixtures("loaded")
def test_cost_counts_and_not_the_number_of_tasks(server: "Server", tasks: list[TaskId]) -> None:
    heavy = tasks[0]._replace(group=9)
    server.deploy(heavy, cost=5)
    server.claim_one("b", "token-b")
    assert _want(server, "b") == tasks[0]  # 8 - 1 >= 5 + 1
    assert _move(server, tasks[0], "t", "b") == [tasks[0]]
    assert _want(server, "b") is None  # 7 - 1 < 6 + 1


@pytest.mark.usefixtures("loaded")
def test_task_that_does_not_fit_the_taker_is_not_wanted(server: "Server") -> None:
    assert _want(server, "b", capacity=0) is None
    assert _want(server, "b", kinds=("readout",)) is None


@pytest.mark.usefixtures("loaded")
def test_load_in_other_partitions_counts(server: "Server", tasks: list[TaskId]) -> None:
    assert _want(server, "b", elsewhere=7) is None
    server.renew("a", elsewhere=2)
    assert _want(server, "b", elsewhere=7) == tasks[0]


@pytest.mark.usefixtures("loaded")
def test_most_loaded_worker_gives(server: "Server", tasks: list[TaskId]) -> None:
    more = [tasks[0]._replace(group=group) for group in range(20, 29)]
    server.deploy(*more)
    server.claim("c", "token-c")
    assert _want(server, "b") == more[0]


@pytest.mark.usefixtures("loaded")
def test_nothing_is_wanted_of_a_dead_worker(server: "Server") -> None:
    server.run(calls.leave(0, "a"))
    assert _want(server, "b") is None


@pytest.mark.usefixtures("loaded")
def test_nothing_is_wanted_while_the_store_settles(server: "Server") -> None:
    server.fail_over()
    assert _want(server, "b") is None


def test_suspicious_task_does_not_move(server: "Server", tasks: list[TaskId]) -> None:
    server.deploy(*tasks[:2], cost=5)
    for turn in range(2):
        server.claim(f"a{turn}", f"t{turn}")
        for _ in range(2):
            server.elapse(50_000)
            server.renew("b")
    leases = [
        Lease(server.claim_one("a", f"alone{i}", alone=tasks[i]).task, f"alone{i}")
        for i in range(2)
    ]
    server.renew("a", *leases)
    assert _want(server, "b") is None
    server.commit(tasks[1], "alone1", 1)
    assert _want(server, "b") == tasks[1]


@pytest.mark.usefixtures("loaded")
def test_overhead_makes_the_number_of_tasks_count(server: "Server", tasks: list[TaskId]) -> None:
    heavy = tasks[0]._replace(group=9)
    server.deploy(heavy, cost=7)
    server.claim_one("b", "token-b")
    assert _want(server, "b") is None  # 8 - 1 < 7 + 1
    for task in tasks[:3]:
        assert _want(server, "b", overhead=100) == task
        assert _move(server, task, "t", "b") == [task]
    assert _want(server, "b", overhead=100) is None  # five here, four there
