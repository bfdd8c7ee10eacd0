"""Work takes turns on a loop, and loops that must not end are kept going."""

import asyncio
from collections.abc import Generator

import pytest

from router import loops
from router.loops import Gate, Keeper, LoopLag, Slices


def counted(n: int, seen: list[str], name: str) -> Generator[None, None, str]:
    for _ in range(n):
        seen.append(name)
        yield
    return name


async def test_long_works_take_turns_and_a_short_one_waits_for_one_turn_of_each() -> None:
    slices, seen = Slices(seconds=1e-9), list[str]()
    one, two, short = await asyncio.gather(
        slices.run(counted(50, seen, "a")),
        slices.run(counted(50, seen, "b")),
        slices.run(counted(1, seen, "short")),
    )
    assert (one, two, short) == ("a", "b", "short")
    assert seen[:5] == ["a", "b", "short", "a", "b"]


async def test_a_fault_of_a_work_is_that_of_who_waits_for_it() -> None:
    def faulty() -> Generator[None, None, None]:
        yield
        raise ValueError("a fault")

    slices = Slices()
    with pytest.raises(ValueError, match="a fault"):
        await slices.run(faulty())
    assert await slices.run(counted(3, [], "next")) == "next"


async def test_no_more_than_so_many_begin_in_one_turn_of_the_loop() -> None:
    gate, entered = Gate(3), []

    async def enter(number: int) -> None:
        await gate.enter()
        entered.append(number)

    tasks = [asyncio.create_task(enter(number)) for number in range(10)]
    most = 0
    while len(entered) < 10:
        before = len(entered)
        await asyncio.sleep(0)
        most = max(most, len(entered) - before)
    assert entered == list(range(10))
    assert most <= 3
    await asyncio.gather(*tasks)


async def test_one_that_goes_away_before_its_turn_stops_nobody() -> None:
    gate = Gate(1)
    tasks = [asyncio.create_task(gate.enter()) for _ in range(4)]
    await asyncio.sleep(0)
    tasks[1].cancel()
    tasks[2].cancel()
    async with asyncio.timeout(5):
        await tasks[3]


async def test_a_loop_that_ends_is_begun_again_and_counts_as_ill(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loops, "_FIRST_PAUSE_S", 0.0)
    told: list[int] = []
    began: list[int] = []

    async def loop() -> None:
        began.append(len(began))
        if len(began) > 3:
            await asyncio.Event().wait()

    keeper = Keeper("does nothing", loop, lambda: told.append(keeper.n_restarts))
    assert keeper.trouble == ""
    running = asyncio.create_task(keeper.run())
    async with asyncio.timeout(5):
        while len(began) < 4:
            await asyncio.sleep(0)
    assert told == [1, 2, 3]
    assert keeper.trouble == "The loop that does nothing failed: it ended."
    assert not keeper.given_up
    monkeypatch.setattr(loops, "_STEADY_S", 0.0)
    assert keeper.trouble == ""
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_loop_that_is_held_is_measured_and_one_that_waits_is_not() -> None:
    lag = LoopLag(every_s=0.0)
    late, held = await lag.measure()
    assert 0.0 <= held <= late
    assert (lag.longest, lag.longest_held) == (late, held)
