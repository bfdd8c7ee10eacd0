"""One bit of each kind of key of the store turns over, and every owner dies: nobody is misled.

Streams end well, or by the name of what was damaged; tasks find owners and commit; nothing else
happens. Damage of every kind is drawn, in many instants of a world.
"""

from typing import Any

import pytest

from loadtest.simulation.checker import Violation
from loadtest.simulation.damage import turn_bit
from loadtest.simulation.plan import draw
from loadtest.simulation.world import World
from workers.task import Task
from workers.tenancy import Tenancy

KINDS = (
    b":task:",
    b":pos:",
    b":head:",
    b":streams:",
    b":blob:",
    b":workers",
    b":server",
    b":tasks",
)
N_SEEDS = 16
N_BITS = 3


class _Damaged(World):
    """A world without other faults."""

    def __init__(self, seed: int, kind: bytes, n_bits: int = N_BITS) -> None:
        super().__init__(draw(seed, faults=()), trace=True)
        self.kind = kind
        self.n_turned = 0
        for at in range(25, 25 + 30 * n_bits, 30):
            self.clock.after(at + self.clock.draw(20), self._turn)

    def _turn(self) -> None:
        what = turn_bit(self.store, self.clock.draw, self.kind)
        if what is None:
            return
        self.n_turned += 1
        self.note(f"a bit of {what} turns over")
        self.faults.store_forgot = True
        for partition in range(self.plan.n_partitions):
            self.checker.excuse(partition, "bit turned")
            if self.n_turned > 1:
                self.checker.excuse(partition, "bits turned")
        for worker in list(self.workers):
            if self.clock.draw(3):
                worker.crash()
        self.clock.after(20, self.deployment.mend)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.decode().strip(":"))
def test_turned_bit_ends_streams_by_name_at_worst(kind: bytes) -> None:
    n_turned = 0
    for seed in range(N_SEEDS):
        world = _Damaged(seed, kind)
        try:
            world.run()
        except Violation as violation:
            pytest.fail(f"seed {seed}: {violation}\n" + "\n".join(world.trace or ()))
        n_turned += world.n_turned
        world.forget()
    assert n_turned > N_SEEDS


def _run_all(n_seeds: int, kind: bytes) -> None:
    for seed in range(n_seeds):
        _Damaged(seed, kind, n_bits=1).run()


def test_owner_that_never_replaces_what_is_damaged_is_caught(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begin = Tenancy.__init__

    def forget(self: Tenancy, *args: Any, **kwargs: Any) -> None:
        begin(self, *args, **kwargs)
        self._mends = False

    monkeypatch.setattr(Tenancy, "__init__", forget)
    with pytest.raises(Violation):
        _run_all(100, b":pos:")


def test_task_that_does_not_miss_lost_streams_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Task, "_expected", staticmethod(lambda head: set()))
    monkeypatch.setattr(Task, "_is_astray", lambda self, key, expected: False)
    with pytest.raises(Violation):
        _run_all(150, b":streams:")
