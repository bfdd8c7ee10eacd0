"""What deployment refuses before it writes anything."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from router.admin import TopicUnfit
from router.bus import Bus
from router.deploy import DeployError, deploy_compiled
from router.settings import Settings
from router.store.redis import RedisStore
from topologies.compiler import compile_network
from topologies.compiler.plan import worst_records
from topologies.random_networks import random_network
from workers.host import Host


class _Reached(Exception):
    """The checks are over, and something would be written."""


class _Store:
    """A store that holds nothing."""

    async def list_networks(self) -> list[str]:
        return []


async def _deploy(max_record_bytes: int) -> None:
    network = compile_network(random_network(0))
    settings = Settings.load(max_record_bytes=max_record_bytes)
    await deploy_compiled(
        settings, cast(RedisStore, _Store()), cast(Bus, None), [network, network], 1
    )


def _most() -> int:
    network = compile_network(random_network(0))
    return max(worst_records(network, len(network.name) + 1).values())


@pytest.fixture(autouse=True)
def _nothing_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    async def create(*_: object) -> None:
        raise _Reached

    async def check(*_: object) -> None:
        pass

    monkeypatch.setattr("router.deploy.check_topics", check)
    monkeypatch.setattr("router.deploy.begin_key", create)


async def test_network_whose_worst_batch_fits_no_record_is_refused() -> None:
    with pytest.raises(DeployError, match=f"up to {_most()} bytes, and SPIKEROUTER_MAX_RECORD"):
        await _deploy(_most() - 1)


async def test_network_whose_worst_batch_just_fits_is_deployed() -> None:
    with pytest.raises(_Reached):
        await _deploy(_most())


async def test_a_topic_that_is_unfit_is_told_before_anything_is_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def check(_: Settings, topics: list[str]) -> None:
        raise TopicUnfit(f"{', '.join(topics)} will not do")

    monkeypatch.setattr("router.deploy.check_topics", check)
    with pytest.raises(TopicUnfit, match=r"snn\.dead-letter, snn\.in\..*, snn\.out\."):
        await _deploy(_most())


def test_workers_cut_frames_where_the_setting_says() -> None:
    host = Host(Settings.load(max_record_bytes=50_000), cast(Any, None), cast(Any, None))
    claimed = SimpleNamespace(one_by_one=False)
    assert host._limits(cast(Any, claimed)).frame_bytes == 50_000
