"""What a worker's host does with a poll: others have their turn, whatever it brought."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from router.bus import Bus, Place, Polled
from router.loops import Turn
from router.seals import SEAL_HEADER, Keyring, Signed, Trust, pack_key
from router.settings import Settings
from router.store.calls import Claimed, TaskId
from router.store.redis import RedisStore
from workers.host import Host
from workers.hosted import Hosted
from workers.reading import Record
from workers.tenant import trust

TOPIC = "snn.in.x"
N_RECORDS = 1000


class _Tenant:
    """Takes in whatever comes."""

    def __init__(self) -> None:
        self.taken: list[int] = []

    def receive(self, record: Record) -> bool:
        self.taken.append(record.offset)
        return True

    def take_seeks(self) -> dict[str, int]:
        return {}


def _host(tenant: _Tenant) -> Host:
    """A host on which every stretch of work is too long; one task reads one topic."""
    host = Host(Settings.load(), cast(RedisStore, None), cast(Bus, None))
    claim = Claimed(TaskId("a", 0, 0), "token", "ingest", 1, 1, 0, "", 0, "", 0)
    hosted = SimpleNamespace(tenant=tenant, wake=lambda: None, claim=claim)
    host._readers = {Place(TOPIC, 0): [cast(Hosted, hosted)]}
    host._turn = Turn(0.0)
    return host


def _polled() -> Polled:
    def message(offset: int) -> Any:
        return SimpleNamespace(offset=offset, timestamp=0, key=None, value=b"", headers=())

    return Polled({Place(TOPIC, 0): [message(n) for n in range(N_RECORDS)]}, ())


@pytest.mark.timeout(30)
async def test_a_long_poll_leaves_the_leases_their_turns() -> None:
    tenant = _Tenant()
    dispatch = asyncio.create_task(_host(tenant)._dispatch(_polled()))
    seen = set()
    while not dispatch.done():
        await asyncio.sleep(0)
        seen.add(len(tenant.taken))
    assert tenant.taken == list(range(N_RECORDS))
    assert len(seen) > N_RECORDS // 20


@pytest.mark.timeout(30)
async def test_the_rest_of_a_poll_is_nobodys_once_tasks_have_come_or_gone() -> None:
    tenant = _Tenant()
    host = _host(tenant)
    dispatch = asyncio.create_task(host._dispatch(_polled()))
    while len(tenant.taken) < N_RECORDS // 2:
        await asyncio.sleep(0)
    host._assign()
    await dispatch
    assert tenant.taken == list(range(len(tenant.taken)))
    assert len(tenant.taken) < N_RECORDS


class _Store:
    """A store of keys, in which no network is deployed."""

    def __init__(self, keys: dict[int, bytes]) -> None:
        self.keys = keys
        self.n_asked = 0
        self.n_listed = 0

    async def get_keys(self) -> dict[int, bytes]:
        self.n_asked += 1
        return {by: pack_key(key) for by, key in self.keys.items()}

    async def removed_networks(self) -> set[str]:
        return set()

    async def list_networks(self) -> tuple[str, ...]:
        self.n_listed += 1
        return ()


class _Wary:
    """Takes what is sealed; gives back what it cannot judge, and what names a network."""

    def __init__(self, keys: Keyring) -> None:
        self.keys = keys
        self.taken: list[int] = []
        self.strange: list[int] = []

    def receive(self, record: Record) -> bool:
        if trust(self.keys, record, 0) is Trust.UNKNOWN or record.value == b"a network":
            return False
        self.taken.append(record.offset)
        return True

    def receive_strange(self, record: Record) -> None:
        self.strange.append(record.offset)

    def take_seeks(self) -> dict[str, int]:
        return {}


def _reading(store: _Store, monkeypatch: pytest.MonkeyPatch) -> tuple[Host, _Wary]:
    host = Host(Settings.load(), cast(RedisStore, store), cast(Bus, None))
    tenant = _Wary(host._keys)
    claim = Claimed(TaskId("a", 0, 0), "token", "ingest", 1, 1, 0, "", 0, "", 0)
    hosted = SimpleNamespace(tenant=tenant, wake=lambda: None, claim=claim)
    host._readers = {Place(TOPIC, 0): [cast(Hosted, hosted)]}
    monkeypatch.setattr(host, "_bring", lambda _: None)
    return host, tenant


def _under(by: int, key: bytes, offset: int, value: bytes = b"value") -> Any:
    seal = Keyring({by: key}).seal(Signed(TOPIC, 0, None, value))
    return SimpleNamespace(
        offset=offset, timestamp=0, key=None, value=value, headers=((SEAL_HEADER, seal),)
    )


OURS, THEIRS = b"\1" * 32, b"\2" * 32


async def test_a_flood_of_unknown_keys_is_looked_up_once_per_poll(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = _Store({1: OURS})
    host, tenant = _reading(store, monkeypatch)
    flood = [_under(1000 + n, THEIRS, n) for n in range(200)]
    await host._dispatch(Polled({Place(TOPIC, 0): flood}, ()))
    assert tenant.strange == list(range(200))
    assert (store.n_asked, store.n_listed) == (1, 0)


async def test_an_unknown_key_is_looked_up_again_for_what_came_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A deployment may begin the very key that somebody had guessed before."""
    store = _Store({1: OURS})
    host, tenant = _reading(store, monkeypatch)
    await host._dispatch(Polled({Place(TOPIC, 0): [_under(9, THEIRS, 0)]}, ()))
    store.keys[9] = OURS
    await host._dispatch(Polled({Place(TOPIC, 0): [_under(9, OURS, 1)]}, ()))
    assert (tenant.strange, tenant.taken) == ([0], [1])
    assert store.n_listed == 1  # what a new deployment says may be of a new network


async def test_a_flood_of_unknown_keys_leaves_others_their_turns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    host, tenant = _reading(_Store({1: OURS}), monkeypatch)
    host._turn = Turn(0.0)
    flood = [_under(1000 + n, THEIRS, n) for n in range(200)]
    dispatch = asyncio.create_task(host._dispatch(Polled({Place(TOPIC, 0): flood}, ())))
    seen = set()
    while not dispatch.done():
        await asyncio.sleep(0)
        seen.add(len(tenant.strange))
    assert len(seen) > 100


async def test_networks_that_nobody_knows_are_looked_up_once_per_poll(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = _Store({1: OURS})
    host, tenant = _reading(store, monkeypatch)
    host._keys.learn({1: OURS})
    replay = [_under(1, OURS, n, b"a network") for n in range(200)]
    await host._dispatch(Polled({Place(TOPIC, 0): replay}, ()))
    assert (len(tenant.strange), store.n_listed) == (200, 1)


async def test_a_key_is_judged_by_no_look_up_that_began_before_its_record_was_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = _Store({1: OURS})
    host, tenant = _reading(store, monkeypatch)
    await host._look_up_keys()  # as the watch of networks does at any time
    store.keys[9] = OURS
    await host._dispatch(Polled({Place(TOPIC, 0): [_under(9, OURS, 0)]}, ()))
    assert tenant.taken == [0]
