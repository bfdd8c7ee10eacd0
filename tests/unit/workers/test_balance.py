"""Where tasks come to lie when workers join: lease books on the simulated store (29)."""

import itertools

from router.store import calls
from router.store.calls import TaskId, TaskSpec
from router.store.simulated import SimulatedStore
from workers.leases import Granted, LeaseBook, Wanted

_TTL = 1000
_COSTS = (1, 5120, 18_688, 2080, 330)  # the digits network's operators
_PARTITIONS = 2


class _World:
    """Workers that give what they are asked for at once, and claim what they hear is free."""

    def __init__(self) -> None:
        self.now = 0
        self.store = SimulatedStore(lambda: 10_000 + self.now)
        self.books: dict[str, LeaseBook] = {}
        self.n_moves = 0
        self._tokens = map(str, itertools.count())
        for partition, (i, cost) in itertools.product(range(_PARTITIONS), enumerate(_COSTS)):
            task = TaskId(f"{i}" * 32, 0, partition)
            self.store.create_task(TaskSpec(task, "synaptic", cost), settle_ms=0)

    def join(self, *names: str) -> None:
        for name in names:
            self.books[name] = LeaseBook(
                name, range(_PARTITIONS), _TTL, kinds=("synaptic",), limit=1,
                new_token=lambda: next(self._tokens),
            )  # fmt: skip

    def run(self, ms: int) -> None:
        end = self.now + ms
        while self.now < end:
            for book in self.books.values():
                self._turn(book)
            self.now += 5

    def _turn(self, book: LeaseBook) -> None:
        for call in book.due(self.now):
            for event in book.replied(call, self.store.run(call.call), self.now):
                if isinstance(event, Wanted):
                    book.release(event.task)
                self.n_moves += isinstance(event, Granted)
            if call.verb == "release":
                for task, other in itertools.product(self._free(), self.books.values()):
                    other.released(task, self.now)

    def _free(self) -> list[TaskId]:
        return [
            row.task
            for p in range(_PARTITIONS)
            for row in self.store.run(calls.status(p)).tasks
            if not row.worker
        ]

    def held(self) -> dict[str, int]:
        return {name: len(book.tasks) for name, book in self.books.items()}


def test_workers_that_join_get_their_share_by_as_few_moves_as_it_takes() -> None:
    world = _World()
    world.join("a", "b")
    world.run(5 * _TTL)
    assert sum(world.held().values()) == len(_COSTS) * _PARTITIONS
    world.n_moves = 0
    world.join("c", "d")
    world.run(20 * _TTL)
    assert sorted(world.held().values()) == [2, 2, 3, 3]
    assert world.n_moves == 4
