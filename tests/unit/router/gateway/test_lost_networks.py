"""A store that lost what it held of a network: the gateway goes on, and says what is missing."""

from collections.abc import Sequence
from typing import Any

import pytest

from router.client import Deadline
from router.gateway.errors import NotReady, UnknownNetwork
from router.gateway.networks import Directory, ServedNetwork

World = Any  # from conftest, which cannot be imported


async def _follow(*_: object) -> None:
    return None


async def _get(directory: Directory, now: float) -> ServedNetwork:
    return await directory.get("digits", now, Deadline.after(5))


async def test_network_that_the_store_has_forgotten_goes_on_being_served(world: World) -> None:
    directory = Directory(world.store, _follow)
    known = await _get(directory, 0.0)
    world.store.manifests.clear()
    assert await _get(directory, 100.0) is known


async def test_network_that_was_removed_is_unknown(world: World) -> None:
    directory = Directory(world.store, _follow)
    await _get(directory, 0.0)
    world.store.manifests.clear()
    world.store.removed = frozenset({"digits"})
    with pytest.raises(UnknownNetwork):
        await _get(directory, 100.0)
    assert directory.known == ()


async def test_damaged_manifest_of_a_known_network_changes_nothing(world: World) -> None:
    directory = Directory(world.store, _follow)
    known = await _get(directory, 0.0)
    world.store.damaged = frozenset({"digits"})
    assert await _get(directory, 100.0) is known
    assert await directory.lost() == ["The manifest of network digits is damaged."]


async def test_damaged_manifest_of_an_unknown_network_is_503_and_named(world: World) -> None:
    world.store.damaged = frozenset({"digits"})
    answer = await world.infer()
    assert answer.status_code == 503
    assert "The manifest of network digits is damaged." in answer.json()["error"]


async def test_listed_network_without_a_manifest_is_not_ready(world: World) -> None:
    class Listed(type(world.store)):  # type: ignore[misc]
        async def list_networks(self) -> Sequence[str]:
            return ("digits",)

    directory = Directory(Listed(), _follow)
    with pytest.raises(NotReady, match="has lost the manifest of network digits"):
        await _get(directory, 0.0)


async def test_readiness_says_what_deployment_must_bring_back(world: World) -> None:
    assert (await world.client.get("/v2/models/digits")).status_code == 200
    world.store.manifests.clear()
    world.store.tasks.clear()
    answer = await world.client.get("/v2/health/ready")
    assert answer.status_code == 503
    reasons = " ".join(answer.json()["reasons"])
    assert "The store has lost the manifest of network digits" in reasons
    assert "no tasks of 2 of the 2 operators of network digits: deploy it again" in reasons


async def test_removed_network_is_no_reason_not_to_be_ready(world: World) -> None:
    assert (await world.client.get("/v2/models/digits")).status_code == 200
    del world.store.manifests["digits"]
    world.store.removed = frozenset({"digits"})
    assert (await world.client.get("/v2/health/ready")).status_code == 200
