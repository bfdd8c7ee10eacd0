import asyncio
import threading
from collections.abc import Callable

import pytest

from topologies.compiled import Group, Operator
from topologies.compiler import compile_network
from topologies.samples import dense_network
from workers.kernel import Kernel, KernelError, ReferenceKernel
from workers.shelf import KernelShelf, NoArtifactError

OPERATORS = {
    o.id: o
    for o in compile_network(dense_network((12, 8, 4))).operators.values()
    if o.kind != "ingest"
}
KEYS = [(o.id, Group(0, 0, o.output.n)) for o in OPERATORS.values()]


class _Store:
    """Artifacts by operator; counts who asked for what."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def get_artifact(self, operator: str) -> bytes | None:
        self.asked.append(operator)
        known = OPERATORS.get(operator)
        return None if known is None else known.to_bytes()


def _shelf(
    store: _Store, warm_bytes: int | None = None, admit: Callable[..., Kernel] = ReferenceKernel
) -> KernelShelf:
    return KernelShelf(store, admit, warm_bytes)


async def test_kernel_is_loaded_once_however_many_ask_for_it() -> None:
    store = _Store()
    shelf = _shelf(store)
    first, second = await asyncio.gather(shelf.get(*KEYS[0]), shelf.get(*KEYS[0]))
    assert first is second is await shelf.get(*KEYS[0])
    assert store.asked == [KEYS[0][0]]


async def test_claim_of_a_warm_operator_asks_for_nothing() -> None:
    store = _Store()
    shelf = _shelf(store)
    await shelf.warm(KEYS)
    assert all(key in shelf for key in KEYS)
    store.asked.clear()
    for key in KEYS:
        assert (await shelf.get(*key)).operator.id == key[0]
    assert not store.asked


async def test_nothing_is_warmed_without_bytes_for_it() -> None:
    shelf = _shelf(_Store(), warm_bytes=0)
    await shelf.warm(KEYS)
    assert not any(key in shelf for key in KEYS)


async def test_warming_ends_when_its_bytes_are_reached() -> None:
    shelf = _shelf(_Store(), warm_bytes=1)
    await shelf.warm(KEYS)
    assert [key in shelf for key in KEYS] == [True] + [False] * (len(KEYS) - 1)


async def test_operator_that_cannot_be_admitted_does_not_keep_others_cold() -> None:
    def admit(operator: Operator, group: Group) -> Kernel:
        if operator.id == KEYS[0][0]:
            raise KernelError("not here")
        return ReferenceKernel(operator, group)

    shelf = _shelf(_Store(), admit=admit)
    await shelf.warm([("f" * 32, Group(0, 0, 1)), *KEYS])
    assert [key in shelf for key in KEYS] == [False] + [True] * (len(KEYS) - 1)
    with pytest.raises(KernelError, match="not here"):
        await shelf.get(*KEYS[0])


async def test_missing_artifact_is_named() -> None:
    with pytest.raises(NoArtifactError, match=r"f{32}: deploy again"):
        await _shelf(_Store()).get("f" * 32, Group(0, 0, 1))


async def test_operator_of_no_network_is_forgotten() -> None:
    store = _Store()
    shelf = _shelf(store)
    await shelf.warm(KEYS)
    shelf.keep({KEYS[0][0]})
    assert [key in shelf for key in KEYS] == [True] + [False] * (len(KEYS) - 1)


async def test_what_no_task_runs_any_more_is_forgotten_beyond_the_bytes_to_keep_warm() -> None:
    shelf = _shelf(_Store(), warm_bytes=0)
    for key in KEYS:
        await shelf.get(*key)
    shelf.trim({(KEYS[1][0], 0)})
    assert [key in shelf for key in KEYS] == [False, True] + [False] * (len(KEYS) - 2)


async def test_within_the_bytes_to_keep_warm_nothing_is_forgotten() -> None:
    sizes = [len(OPERATORS[operator].to_bytes()) for operator, _ in KEYS]
    for warm_bytes in (None, sum(sizes)):
        shelf = _shelf(_Store(), warm_bytes)
        for key in KEYS:
            await shelf.get(*key)
        shelf.trim(())
        assert all(key in shelf for key in KEYS)


async def test_operator_that_was_loaded_first_is_forgotten_first_and_only_until_it_fits() -> None:
    shelf = _shelf(_Store(), sum(len(OPERATORS[operator].to_bytes()) for operator, _ in KEYS) - 1)
    for key in KEYS:
        await shelf.get(*key)
    shelf.trim(())
    assert [key in shelf for key in KEYS] == [False] + [True] * (len(KEYS) - 1)


async def test_one_who_gives_up_waiting_takes_the_kernel_from_nobody() -> None:
    shelf = _shelf(_Store())
    impatient = asyncio.create_task(shelf.get(*KEYS[0]))
    patient = asyncio.create_task(shelf.get(*KEYS[0]))
    await asyncio.sleep(0)
    impatient.cancel()
    assert (await patient).operator.id == KEYS[0][0]


async def test_claim_does_not_wait_for_what_is_being_warmed() -> None:
    begun, may_end = threading.Event(), threading.Event()

    def admit(operator: Operator, group: Group) -> Kernel:
        if threading.current_thread().name.startswith("warm"):
            begun.set()
            assert may_end.wait(60)
        return ReferenceKernel(operator, group)

    shelf = _shelf(_Store(), admit=admit)
    warming = asyncio.create_task(shelf.warm(KEYS[:1]))
    await asyncio.to_thread(begun.wait, 60)
    kernel = await shelf.get(*KEYS[0])
    may_end.set()
    await warming
    assert await shelf.get(*KEYS[0]) is kernel


async def test_operator_without_a_kernel_here_takes_none_of_the_bytes() -> None:
    shelf = _shelf(_Store(), warm_bytes=1)
    await shelf.operator(KEYS[1][0])  # of an ingest, say
    await shelf.warm(KEYS)
    assert KEYS[0] in shelf


async def test_operator_that_was_not_admitted_takes_none_of_the_bytes() -> None:
    def admit(operator: Operator, group: Group) -> Kernel:
        if operator.id == KEYS[0][0]:
            raise KernelError("not here")
        return ReferenceKernel(operator, group)

    shelf = _shelf(_Store(), warm_bytes=1, admit=admit)
    await shelf.warm(KEYS[:2])
    assert KEYS[1] in shelf


async def test_shelf_knows_sizes_of_what_it_keeps_and_of_nothing_else() -> None:
    shelf = _shelf(_Store(), warm_bytes=0)
    for key in KEYS:
        await shelf.get(*key)
    await shelf.operator(KEYS[0][0])
    shelf.keep({KEYS[0][0]})
    assert set(shelf._sizes) == {KEYS[0][0]}
    await shelf.operator(KEYS[1][0])
    shelf.trim(())
    assert not shelf._sizes


class _Damaged(_Store):
    """A store whose artifacts are damaged until one who holds the operator writes them anew."""

    def __init__(self, data: bytes | None) -> None:
        super().__init__()
        self.data = data
        self.wanted: list[str] = []

    async def get_artifact(self, operator: str) -> bytes | None:
        return await super().get_artifact(operator) if self.wanted else self.data

    async def want(self, operator: str) -> None:
        self.wanted.append(operator)


@pytest.mark.parametrize("data", [None, b"", b"damaged", OPERATORS[KEYS[1][0]].to_bytes()])
async def test_an_artifact_that_is_lost_or_damaged_is_asked_for_and_waited_for(
    data: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.shelf._AGAIN_S", 0.0)
    store = _Damaged(data)
    shelf = KernelShelf(store, ReferenceKernel, None, store.want)
    assert (await shelf.get(*KEYS[0])).operator.id == KEYS[0][0]
    assert store.wanted == [KEYS[0][0]]


async def test_what_is_only_warmed_asks_for_an_artifact_and_waits_for_nobody() -> None:
    store = _Damaged(None)

    async def want(operator: str) -> None:
        asked.append(operator)

    asked: list[str] = []
    shelf = KernelShelf(store, ReferenceKernel, None, want)
    await shelf.warm(KEYS[:1])
    assert asked == [KEYS[0][0]]
    assert KEYS[0] not in shelf
