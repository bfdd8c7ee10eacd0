"""What workers remember of networks comes back into a store that has lost it."""

from collections.abc import AsyncIterator, Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
import redis

from router.bus import Bus
from router.deploy import load_networks, task_specs
from router.settings import Settings
from router.store.errors import ManifestDamaged, StoreReplyError
from router.store.manifests import seal_name
from router.store.redis import RedisStore
from topologies.compiled import CompiledNetwork
from topologies.compiler import compile_network
from topologies.samples import dense_network
from workers.host import Host


@pytest.fixture(scope="module")
def network() -> CompiledNetwork:
    return compile_network(dense_network((12, 8, 4)))


@pytest.fixture
async def store(redis_url: str) -> AsyncIterator[RedisStore]:
    async with RedisStore.connect(redis_url, timeout=10.0) as opened:
        yield opened


@pytest.fixture
def admin(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
async def host(store: RedisStore, network: CompiledNetwork) -> Host:
    """A worker that has seen the network, and has the kernels of all of its operators."""
    await store.put_manifest(network.name, network.to_bytes())
    await store.begin_generation()
    await store.put_begin(network.name, b'{"t":[1]}')
    host = Host(Settings.load(), store, cast(Bus, None))
    await host._refresh()
    host._generation = await store.generation()
    kernels = {(i, None): SimpleNamespace(operator=o) for i, o in network.operators.items()}
    host._shelf._kernels = cast(Any, kernels)
    return host


async def test_network_that_the_store_forgot_is_written_anew(
    host: Host, store: RedisStore, admin: redis.Redis, network: CompiledNetwork
) -> None:
    admin.flushdb()
    await host._refresh()
    assert await store.list_networks() == (network.name,)
    assert await store.get_manifest(network.name) == network.to_bytes()
    assert await store.get_begin(network.name) == b'{"t":[1]}'
    assert await store.generation() == 1
    for operator, whole in network.operators.items():
        assert await store.get_artifact(operator) == whole.to_bytes()


@pytest.mark.parametrize("damage", [b"", b"rotten", None])
async def test_manifest_that_is_damaged_is_written_anew(
    host: Host,
    store: RedisStore,
    admin: redis.Redis,
    network: CompiledNetwork,
    damage: bytes | None,
) -> None:
    key = f"snn:network:{network.name}"
    if damage is None:
        admin.delete(key)
    else:
        admin.set(key, damage)
    assert await load_networks(store) == {}
    await host._refresh()
    assert [*await load_networks(store)] == [network.name]


async def test_network_that_was_removed_stays_away(
    host: Host, store: RedisStore, network: CompiledNetwork
) -> None:
    await store.remove_manifest(network.name)
    await host._refresh()
    assert host._networks == {}
    await store.restore_manifest(network.name, network.to_bytes())  # by one who had not heard yet
    assert await store.list_networks() == ()
    assert await store.get_manifest(network.name) is None


async def test_each_bit_of_a_manifest_is_guarded(
    store: RedisStore, admin: redis.Redis, network: CompiledNetwork
) -> None:
    await store.put_manifest(network.name, network.to_bytes())
    whole = cast(bytes, admin.get(f"snn:network:{network.name}"))
    for bit in range(0, 8 * len(whole), 97):
        turned = bytearray(whole)
        turned[bit // 8] ^= 1 << bit % 8
        admin.set(f"snn:network:{network.name}", bytes(turned))
        with pytest.raises(ManifestDamaged, match=f"manifest of network {network.name}"):
            await store.get_manifest(network.name)


async def test_generation_that_is_no_number_is_an_error_that_says_what_to_write(
    store: RedisStore, admin: redis.Redis
) -> None:
    admin.set("snn:generation", b"1x")
    with pytest.raises(StoreReplyError, match="behind @ in the name of a task"):
        await store.generation()


async def test_worker_mends_the_record_of_a_task_whose_kind_is_damaged(
    host: Host, store: RedisStore, admin: redis.Redis, network: CompiledNetwork
) -> None:
    specs = task_specs(network, 1, generation=1)
    for spec in specs:
        await store.create_task(spec, settle_ms=0)
    admin.hset(f"snn:{{p0}}:task:{specs[0].task}", "kind", "rynaptic")
    await host._mend(0)
    assert {row.task: row.kind for row in (await store.status(0)).tasks} == {
        spec.task: spec.kind for spec in specs
    }


@pytest.mark.parametrize(
    "damaged", [b"dens\xe5", b"net/work", b"", b"dense", b"dense:", b"densf:00000000"]
)
async def test_a_name_with_a_bit_turned_hides_no_other_network(
    store: RedisStore, admin: redis.Redis, network: CompiledNetwork, damaged: bytes
) -> None:
    await store.put_manifest(network.name, network.to_bytes())
    admin.sadd("snn:networks", damaged)
    admin.sadd("snn:removed", damaged, seal_name("gone"))
    assert await store.list_networks() == (network.name,)
    assert await store.removed_networks() == {"gone"}
    assert list(await load_networks(store)) == [network.name]
