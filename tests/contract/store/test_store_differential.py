"""The simulated store answers and stores what the real one does, call by call."""

import random
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from router.store import calls
from router.store.calls import Change, Claimed, ClaimReply, Lease, Position, StatusReply, TaskId

if TYPE_CHECKING:
    from tests.contract.store.conftest import RealServer, Server, SimulatedServer

TTL = 95_000
N_STEPS = 60
_TASKS = [TaskId("cd" * 16, group, 0) for group in range(4)]
_WORKERS = ("a", "b", "c")
_KINDS = ("ingest", "synaptic")
Step = Callable[["Server"], Any]


def _comparable(reply: object) -> object:
    """A reply without times, which are compared where they are stored."""
    if isinstance(reply, Claimed):
        return replace(reply, idle_ms=0)
    if isinstance(reply, ClaimReply):
        claimed = tuple(_comparable(each) for each in reply.claimed)
        return claimed, reply.suspicious, reply.settling_ms > 0
    if isinstance(reply, StatusReply):
        tasks = [
            replace(each, lease_ms=int(each.lease_ms > 0), checkpoint_age_ms=None)
            for each in reply.tasks
        ]
        return reply.workers, tasks, reply.settling_ms > 0
    return reply


class _Script:
    """Draws calls; what it draws depends on the seed only, never on a reply."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._tokens = ["none"]
        self._nonce = 0
        self._copies = 0

    def step(self) -> tuple[str, Step]:
        draw = self._random
        name = draw.choice([*_WEIGHTED])
        step: Step = getattr(self, f"_{name}")(draw)
        return name, step

    def _token(self, draw: random.Random) -> str:
        """Mostly a recent one."""
        return draw.choice(self._tokens[-3:])

    def _deploy(self, draw: random.Random) -> Step:
        spec = calls.TaskSpec(draw.choice(_TASKS), draw.choice(_KINDS), draw.randint(1, 3))
        settle = draw.choice([0, TTL])
        return lambda server: server.run(calls.create_task(spec, settle_ms=settle))

    def _remove(self, draw: random.Random) -> Step:
        task = draw.choice(_TASKS)
        return lambda server: server.run(calls.remove_task(task))

    def _claim(self, draw: random.Random) -> Step:
        self._tokens.append(f"t{len(self._tokens)}")
        call = calls.claim(
            0,
            draw.choice(_WORKERS),
            self._tokens[-1],
            TTL,
            kinds=draw.sample(_KINDS, draw.randint(1, 2)),
            capacity=draw.randint(0, 8),
            limit=draw.randint(1, 3),
            format_version=draw.randint(1, 2),
            alone=draw.choice([None, None, *_TASKS]),
            held=draw.sample(_TASKS, draw.choice([0, 0, 1])),
        )
        return lambda server: server.run(call)

    def _renew(self, draw: random.Random) -> Step:
        leases = [Lease(task, self._token(draw)) for task in _TASKS]
        info = calls.WorkerInfo(8, _KINDS, draw.randint(0, 2), {"n": draw.randint(0, 9)})
        call = calls.renew(0, draw.choice(_WORKERS), TTL, info, leases)
        return lambda server: server.run(call)

    def _release(self, draw: random.Random) -> Step:
        call = calls.release(draw.choice(_TASKS), self._token(draw))
        return lambda server: server.run(call)

    def _fail(self, draw: random.Random) -> Step:
        call = calls.fail_task(draw.choice(_TASKS), self._token(draw), "LogReplaced")
        return lambda server: server.run(call)

    def _hand(self, draw: random.Random) -> Step:
        call = calls.hand(draw.choice(_TASKS), self._token(draw), draw.choice(["", "1:1#1"]))
        return lambda server: server.run(call)

    def _want(self, draw: random.Random) -> Step:
        call = calls.want(
            0,
            draw.choice(_WORKERS),
            TTL,
            kinds=_KINDS,
            capacity=draw.randint(1, 8),
            elsewhere=draw.randint(0, 1),
            overhead=draw.randint(0, 2),
        )
        return lambda server: server.run(call)

    def _commit(self, draw: random.Random) -> Step:
        self._nonce += 1
        names = draw.sample(["1:1", "1:2", "1:3", "1:4"], 3)
        writes = calls.blob_calls(0, f"n{self._nonce}", [b"head", b"one", b"two"], TTL)
        keys = [each.key for each in writes]
        full = draw.random() < 0.4
        call = calls.commit(
            draw.choice(_TASKS),
            self._token(draw),
            draw.randint(1, 4),
            full=full,
            head=keys[0],
            positions={f"topic-{draw.randint(0, 1)}": Position(draw.randint(0, 3))},
            changed=[
                Change(n, draw.randint(0, 3), k) for n, k in zip(names, keys[1:], strict=False)
            ],
            deleted=names[2:] if draw.random() < 0.3 else [],
            keep=["1:5"] if full and draw.random() < 0.2 else [],
            format_version=draw.randint(1, 2),
        )
        written = writes if draw.random() < 0.9 else writes[:2]

        def step(server: "Server") -> Any:
            server.write_blobs(written)
            return server.run(call)

        return step

    def _load(self, draw: random.Random) -> Step:
        task = draw.choice(_TASKS)
        return lambda server: server.load(task)

    def _status(self, draw: random.Random) -> Step:
        return lambda server: server.run(calls.status(0))

    def _elapse(self, draw: random.Random) -> Step:
        ms = draw.choice([10_000, 30_000, 50_000, 100_000, 200_000, -30_000])
        return lambda server: server.elapse(ms)

    def _fail_over(self, draw: random.Random) -> Step:
        return lambda server: server.fail_over()


_WEIGHTED = (
    *("deploy",) * 4,
    "remove",
    *("claim",) * 6,
    *("renew",) * 4,
    *("release",) * 2,
    "fail",
    *("hand",) * 2,
    *("want",) * 3,
    *("commit",) * 8,
    *("load",) * 2,
    "status",
    *("elapse",) * 4,
    "fail_over",
)


@pytest.mark.parametrize("seed", range(12))
def test_both_stores_give_the_same_replies_and_keep_the_same_keys(
    seed: int, simulated_beside_real: "SimulatedServer", real: "RealServer"
) -> None:
    script = _Script(seed)
    history = []
    for _ in range(N_STEPS):
        name, step = script.step()
        replies = [_comparable(step(server)) for server in (simulated_beside_real, real)]
        history.append((name, replies[0]))
        assert replies[0] == replies[1], history
        assert simulated_beside_real.relative_dump() == real.relative_dump(), history
