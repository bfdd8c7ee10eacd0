"""What fails in one task ends that task, by name, and nothing else of its worker."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition

from router.bus import Bus, Polled
from router.settings import Settings
from router.store.calls import Call, Claimed, ClaimReply, TaskId
from router.store.errors import StoreUnavailable
from router.store.redis import RedisStore
from workers.host import Host, _Running
from workers.hosted import Hosted
from workers.kernel import UnfitProcessError
from workers.reading import Reading, Record

BAD, GOOD = TaskId("bad", 0, 0), TaskId("good", 0, 0)
TOPIC = "snn.in.x"
ERRORS = (MemoryError(), RuntimeError("kernel"), KeyError("x"), StopIteration(), KafkaError("gone"))


class _Store:
    """Answers everything, and keeps what owners said of their end."""

    def __init__(self) -> None:
        self.blamed: list[tuple[object, ...]] = []
        self.error: Exception | None = None

    async def run(self, call: Call[Any]) -> Any:
        if self.error is not None:
            raise self.error
        if call.script == "blame":
            self.blamed.append(call.args)
        return ClaimReply((), (), 0) if call.script == "claim" else {}

    async def load(self, task: TaskId) -> None:
        raise self.error or StoreUnavailable("away")


class _Tenant:
    """Takes records in, or raises."""

    topics = (TOPIC,)
    n_waiting = n_streams = 0

    def __init__(self, error: Exception | None = None) -> None:
        self.counts: Counter[str] = Counter()
        self.reading = Reading(self.topics)
        self.taken: list[int] = []
        self._error = error

    def receive(self, record: Record) -> bool:
        if self._error is not None:
            raise self._error
        self.taken.append(record.offset)
        return True

    def take_seeks(self) -> dict[str, int]:
        return {}


class _World:
    """A host that holds a task that fails and one that does not."""

    def __init__(self, error: Exception) -> None:
        self.store = _Store()
        bus = SimpleNamespace(end=lambda place: None, counts=Counter[str](), faults={})
        settings = Settings.load(partitions=1, worker_name="w")
        self.host = Host(settings, cast(RedisStore, self.store), cast(Bus, bus))
        self.tenants = {BAD: _Tenant(error), GOOD: _Tenant()}
        claims = {t: Claimed(t, "token", "synaptic", 1, 1, 0, "", 0, "", 0) for t in self.tenants}
        due = {call.verb: call for call in self.host._book.due(0)}
        self.renewal = due["renew"]
        self.host._book.replied(due["claim"], ClaimReply(tuple(claims.values()), (), 0), 0)
        for task, claim in claims.items():
            self.host._running[task] = self._running(claim, error)
        self.host._assign()
        self.host._assignment_changed = False

    def _running(self, claim: Claimed, error: Exception) -> _Running:
        async def hand_over() -> None:
            if claim.task == BAD:
                raise error

        hosted = SimpleNamespace(
            tenant=self.tenants[claim.task], claim=claim, wake=lambda: None, hand_over=hand_over,
            committed_at=0.0,
        )  # fmt: skip
        loops = asyncio.get_running_loop().create_future()
        return _Running(cast(Hosted, hosted), cast(Any, loops), {})

    async def play(self, work: Callable[[], Awaitable[None]]) -> None:
        async with self.host._group:
            await work()


def _polled() -> Polled:
    message = SimpleNamespace(offset=0, timestamp=0, key=None, value=b"", headers=())
    return Polled({TopicPartition(TOPIC, 0): [cast(Any, message)]}, ())


def _only_the_bad_one_ended(world: _World, error: Exception) -> bool:
    if isinstance(error, StopIteration):
        error = RuntimeError("coroutine raised StopIteration")
    told = [(str(BAD), "token", f"{type(error).__name__}: {error}")]
    return (
        (set(world.host._running), world.host._book.tasks) == ({GOOD}, (GOOD,))
        and world.host.counts["tasks_failed_total"] == 1
        and world.store.blamed == told
    )


@pytest.mark.parametrize("error", ERRORS, ids=repr)
async def test_what_is_raised_at_a_record_ends_the_task_that_reads_it(error: Exception) -> None:
    world = _World(error)
    await world.play(lambda: world.host._dispatch(_polled()))
    assert _only_the_bad_one_ended(world, error)


@pytest.mark.parametrize("error", ERRORS[:3] + ERRORS[4:], ids=repr)
async def test_what_is_raised_at_a_hand_over_ends_the_task_that_is_given(error: Exception) -> None:
    world = _World(error)
    await world.play(lambda: world.host._for(BAD, world.host._hand_over(BAD)))
    assert _only_the_bad_one_ended(world, error)


@pytest.mark.parametrize("error", ERRORS[:3], ids=repr)
async def test_what_is_raised_at_a_restore_ends_the_task_that_is_restored(error: Exception) -> None:
    world = _World(error)
    claim = world.host._running.pop(BAD).hosted.claim
    world.store.error = error

    async def start() -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(world.store, "run", _Store.run.__get__(calm := _Store()))
            await world.host._for(BAD, world.host._start(claim))
            while not calm.blamed:
                await asyncio.sleep(0)
            world.store.blamed = calm.blamed

    await world.play(start)
    assert _only_the_bad_one_ended(world, error)


async def test_a_store_that_is_away_at_a_restore_is_not_laid_to_the_task() -> None:
    world = _World(MemoryError())
    claim = world.host._running.pop(BAD).hosted.claim
    await world.play(lambda: world.host._for(BAD, world.host._start(claim)))
    assert world.host._book.tasks == (GOOD,)
    assert world.host.counts["tasks_failed_total"] == 0


async def test_what_is_raised_at_a_report_ends_the_task_that_was_to_be_told_of() -> None:
    error = MemoryError()
    world = _World(error)
    del world.tenants[BAD].reading

    async def report() -> None:
        assert set(world.host._details()) >= {f"{GOOD}:streams"}

    await world.play(report)
    assert set(world.host._running) == {GOOD}


async def test_a_process_that_can_compute_nothing_ends() -> None:
    world = _World(UnfitProcessError("It flushes subnormals."))
    with pytest.raises(ExceptionGroup, match="unhandled"):
        await world.play(lambda: world.host._dispatch(_polled()))


async def test_a_loop_of_the_worker_that_fails_begins_anew_and_is_counted() -> None:
    world, begun = _World(MemoryError()), []

    async def loop() -> None:
        begun.append(0)
        if len(begun) < 3:
            raise MemoryError

    await world.play(lambda: world.host._always(loop))
    assert (len(begun), world.host.counts["loop_failures_total"]) == (3, 2)


async def test_a_lease_call_that_breaks_is_made_again() -> None:
    world = _World(MemoryError())
    book = world.host._book
    world.store.error = KeyError("script")
    assert "renew" not in {c.verb for c in book.due(10_000)}
    await world.play(lambda: world.host._ask(world.renewal))
    assert "renew" in {c.verb for c in book.due(20_000)}


async def test_a_reading_loop_that_begins_anew_reads_again_what_it_did_not_hand_over() -> None:
    world, said = _World(MemoryError()), []

    async def poll(_: int) -> Polled:
        said.append("poll")
        raise MemoryError

    bus = cast(Any, world.host._bus)
    bus.poll, bus.pause, bus.read = poll, lambda _: None, lambda _: said.append("seek")
    for tenant in world.tenants.values():
        tenant.start, tenant.paused_topics = dict, ()  # type: ignore[attr-defined]
    for _ in range(2):
        with pytest.raises(MemoryError):
            await world.host._fetch()
    assert said == ["seek", "poll", "seek", "poll"]
