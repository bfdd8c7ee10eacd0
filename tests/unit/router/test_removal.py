import json
from dataclasses import replace

import pytest

from loadtest.simulation.shapes import build
from router.deploy import task_specs
from router.removal import has_lost_route, open_streams, own_operators
from router.status import task_detail
from router.store.calls import StatusReply, TaskId, TaskStatus, WorkerInfo, WorkerStatus
from topologies.compiled import CompiledNetwork

NETWORKS = build("shared", 4).networks
NETWORK = NETWORKS["n"]
INGEST = TaskId(NETWORK.nodes[NETWORK.input.node].operator, 0, 0, 3)


def reply(said: dict[str, object] | None, lease_ms: int = 500, owner: str = "w") -> StatusReply:
    details = {} if said is None else {task_detail(INGEST, "open"): json.dumps(said)}
    task = TaskStatus(INGEST, "ingest", 1, owner, lease_ms, 0, 1, 10, "", "", "")
    worker = WorkerStatus("w", True, WorkerInfo(100, ("ingest",), details=details))
    return StatusReply(0, 1, 0, (worker,), (task,))


def told(
    read: int,
    lease_ms: int = 500,
    owner: str = "w",
    routes: tuple[str, ...] | None = ("m",),
    **streams: int,
) -> StatusReply:
    return reply({"read": read, "streams": streams, "routes": routes}, lease_ms, owner)


def test_operators_of_its_own_are_those_that_no_other_network_has() -> None:
    own = own_operators(NETWORK, NETWORKS)
    assert own == set(NETWORK.summaries) - set(NETWORKS["m"].summaries)
    assert 0 < len(own) < len(NETWORK.summaries)
    assert own_operators(NETWORK, {"n": NETWORK}) == set(NETWORK.summaries)


def test_ingest_that_has_read_the_route_tells_what_is_open() -> None:
    assert open_streams(told(8, n=2, m=5), NETWORK, 7) == 2
    assert open_streams(told(8, m=5), NETWORK, 7) == 0


@pytest.mark.parametrize(
    "given",
    [
        told(7),
        told(9, lease_ms=0),
        told(9, owner="another"),
        told(9, routes=None),
        reply(None),
    ],
    ids=["not read yet", "nobody's", "told by who had it before", "awaits an era", "silent"],
)
def test_nothing_is_known_without_news_from_the_owner_behind_the_route(given: StatusReply) -> None:
    assert open_streams(given, NETWORK, 7) is None


@pytest.mark.parametrize(
    ("given", "is_lost"),
    [(told(8, routes=("m", "n")), True), (told(7, routes=("m", "n")), False), (told(8), False)],
    ids=["behind it", "before it", "as it says"],
)
def test_ingest_that_routes_to_the_network_behind_the_route_never_read_it(
    given: StatusReply, is_lost: bool
) -> None:
    assert has_lost_route(given, NETWORK, 7) is is_lost


def test_tasks_that_are_there_keep_their_generation() -> None:
    first = next(iter(NETWORK.summaries))
    specs = task_specs(NETWORK, 2, {first: 1}, generation=4)
    generations = {spec.task.operator: spec.task.generation for spec in specs}
    assert generations.pop(first) == 1
    assert set(generations.values()) == {4}


def test_tasks_say_which_extra_their_operator_needs() -> None:
    first = next(iter(NETWORK.summaries))
    foreign = {first: replace(NETWORK.summaries[first], extras=("brian2",))}
    changed = replace(NETWORK, operators={}, summaries={**NETWORK.summaries, **foreign})
    kinds = {spec.task.operator: spec.kind for spec in task_specs(changed, 1)}
    assert kinds.pop(first) == f"{NETWORK.summaries[first].kind}+brian2"
    assert set(kinds.values()) <= {"ingest", "synaptic", "readout"}


def test_equal_network_of_another_name_leaves_it_nothing_of_its_own() -> None:
    equal: CompiledNetwork = replace(NETWORK, name="other")
    assert own_operators(NETWORK, {"n": NETWORK, "other": equal}) == set()
