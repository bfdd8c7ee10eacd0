"""Two minutes of the full run (`make faults`): every kind of fault at least once, from a seed."""

import logging
import os

import pytest

from loadtest.faults.contents import Contents
from loadtest.faults.report import as_text, summarise
from loadtest.faults.runner import play
from loadtest.faults.schedule import APACHE, EMBEDDED, draw
from loadtest.faults.world import World
from router.settings import Settings

pytestmark = [pytest.mark.faults, pytest.mark.serial]

_SEED = int(os.environ.get("SEED", "2026"))
_SEEN = (
    "duplicates_dropped_total", "windows_replayed_total", "poison_frames_total",
    "dead_letters_total", "unsealed_total",
)  # fmt: skip
_log = logging.getLogger(__name__)


@pytest.mark.timeout(400)
async def test_no_mix_of_faults_loses_doubles_or_changes_anything(contents: Contents) -> None:
    faults = draw(_SEED, 2 * len(EMBEDDED), gap_s=1.5)
    settings = Settings.load(partitions=2, log_level="WARNING")
    async with World(settings, contents.networks) as world:
        outcome = await play(world, contents, faults, seed=_SEED)
    summary = summarise(outcome, _SEED, "embedded broker, Redis")
    _log.warning("%s", as_text(summary))
    assert summary.findings == []
    assert set(summary.faults) == set(EMBEDDED)
    assert {name for name in _SEEN if not summary.counts[name]} == set(), "faults without effect"
    assert summary.n_repeats > 0


_AT_BROKERS = (
    "kill-broker", "roll-brokers", "kill-worker", "hang-broker", "cut-broker", "kill-store",
    "repeat-frames", "codecs", "long-broker",
)  # fmt: skip


@pytest.mark.servers
@pytest.mark.timeout(400)
async def test_no_fault_of_apache_kafka_does_either(contents: Contents) -> None:
    faults = draw(_SEED, 12, gap_s=3.0, kinds=_AT_BROKERS)
    assert set(_AT_BROKERS) <= set(APACHE)
    settings = Settings.load(partitions=2, log_level="WARNING")
    async with World(settings, contents.networks, n_workers=3, apache=True) as world:
        outcome = await play(world, contents, faults, seed=_SEED)
    summary = summarise(outcome, _SEED, "Apache Kafka (3 brokers), Redis")
    _log.warning("%s", as_text(summary))
    assert summary.findings == []
    assert set(summary.faults) == set(_AT_BROKERS)
