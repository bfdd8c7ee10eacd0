"""`spikerouter publish` and `spikerouter consume` on a real broker and a real store over TCP."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiokafka import AIOKafkaProducer
from safetensors.numpy import save_file

from loadtest.faults.raw_batches import append_raw, batch
from router.bus import Bus, Place
from router.cli import main
from router.client import Publisher
from router.deploy import deploy
from router.payload import pack_result
from router.record_files import MAGIC, pack_entry
from router.records import Data
from router.settings import Settings
from router.store import calls
from router.store.calls import Claimed, CommitOutcome, Position
from router.store.redis import RedisStore
from router.topics import out_topic
from router.wire import Batch, Frame, StreamId, encode_frame
from tests.contract.conftest import REAL_KAFKA
from topologies.compiler import compile_network
from topologies.samples import dense_network

FreshName = Callable[[str], str]
Run = Callable[..., tuple[int, str, str]]
STEPS = 4


@pytest.fixture
def run(kafka: str, redis_url: str, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command on these servers: its exit code, and what it wrote to both outputs."""

    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main([*arguments, "--kafka", kafka, "--redis", redis_url])
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return run


@pytest.fixture
def network(kafka: str, redis_url: str, fresh_name: FreshName) -> str:
    """The name of a network of events that is deployed on two partitions, without workers."""
    name = fresh_name("net")
    compiled = compile_network(dense_network((6, 5, 3), STEPS, name=name))
    settings = Settings.load(partitions=2).on_embedded(kafka).changed(redis=redis_url)
    asyncio.run(deploy(settings, [compiled]))
    return name


def shown(run: Run, source: str, *options: str) -> list[dict[str, Any]]:
    """What consume shows of all that lies there."""
    code, out, errors = run("consume", source, "--from-beginning", "--until-idle", "0", *options)
    assert code == 0, errors
    return [json.loads(line) for line in out.splitlines()]


async def emit(kafka: str, network: str, *values: list[int]) -> None:
    """What a readout's task sends, each twice as after a failover; to partition 1."""
    async with Publisher(kafka, 2) as publisher:
        for number, row in enumerate(values):
            payload = pack_result(np.asarray([row], np.int32))
            batch = Batch(
                "b" * 32, StreamId(1, number), f"s{number}", (network,), 0, 0, 0, STEPS,
                end=True, payload=payload,
            )  # fmt: skip
            frame = encode_frame(Frame("a" * 32, 0, [batch]))
            for _ in range(2):
                await (await publisher.send(out_topic(network), None, frame, 1))


def test_lines_are_published_in_order_and_bad_ones_are_told(
    run: Run, fresh_name: FreshName, tmp_path: Path
) -> None:
    name, file = fresh_name("in"), tmp_path / "lines.jsonl"
    file.write_text(
        '{"stream": "cam", "events": [[0, 3]], "until": 4}\n'
        '{"stream": "cam", "evnts": []}\n'
        '{"stream": "cam", "until": 8}\n'
        '{"stream": "cam", "end": true}\n'
    )
    code, out, errors = run("publish", str(file), "--input", name)
    assert code == 1
    assert "3 records published" in out
    assert "1 refused" in out
    assert "line 2: The record has a field 'evnts'; legal are" in errors
    records = [line["record"] for line in shown(run, f"snn.in.{name}")]
    assert records == [
        {"stream": "cam", "events": [[0, 3, 1]], "until": 4},
        {"stream": "cam", "until": 8},
        {"stream": "cam", "end": True},
    ]


def test_standard_input_may_be_a_native_file(kafka: str, run: Run, fresh_name: FreshName) -> None:
    name = fresh_name("in")
    records = [Data("cam", until=step) for step in range(1, 300)]
    done = subprocess.run(
        [sys.executable, "-m", "router.cli", "publish", "--input", name, "--kafka", kafka,
         "--partition", "3", "--json"],
        input=MAGIC + b"".join(map(pack_entry, records)),
        capture_output=True, timeout=60, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout)["records"] == len(records)
    assert done.stderr == b""
    told = shown(run, f"snn.in.{name}", "--partition", "3")
    assert [line["record"]["until"] for line in told] == list(range(1, 300))


def test_an_input_that_was_kept_is_published_again_as_it_was(
    kafka: str, run: Run, fresh_name: FreshName, tmp_path: Path
) -> None:
    one, two, kept = fresh_name("in"), fresh_name("in"), tmp_path / "kept.snn"
    (tmp_path / "lines.jsonl").write_text(
        '{"stream": "cam", "events": [[0, 3]], "until": 4}\n{"id": "a", "data": [1.5, 2]}\n'
    )
    assert run("publish", str(tmp_path / "lines.jsonl"), "--input", one)[0] == 0
    done = subprocess.run(
        [sys.executable, "-m", "router.cli", "consume", f"snn.in.{one}", "--kafka", kafka,
         "--native", "--from-beginning", "--until-idle", "0"],
        capture_output=True, timeout=60, check=True,
    )  # fmt: skip
    kept.write_bytes(done.stdout)
    assert run("publish", str(kept), "--input", two)[0] == 0
    told = [sorted(map(str, shown(run, f"snn.in.{name}"))) for name in (one, two)]
    assert told[0] == told[1]
    assert len(told[0]) == 2


def test_samples_are_published_as_requests_of_the_network(
    run: Run, network: str, tmp_path: Path
) -> None:
    spikes = np.zeros((5, STEPS, 6), np.uint8)
    spikes[:, 1, 2] = 1
    save_file({"images": spikes, "labels": np.zeros(5)}, tmp_path / "samples.safetensors")
    np.save(tmp_path / "samples.npy", spikes)
    for file, prefix in (("samples.safetensors", "a"), ("samples.npy", "b")):
        path = str(tmp_path / file)
        code, out, errors = run("publish", path, "--network", network, "--prefix", prefix)
        assert (code, errors) == (0, "")
        assert "5 records published" in out
    records = [line["record"] for line in shown(run, f"snn.in.{network}") if "record" in line]
    names = [f"{prefix}-{index}" for prefix in "ab" for index in range(5)]
    assert sorted(record["id"] for record in records) == names
    assert {tuple(record["networks"]) for record in records} == {(network,)}
    assert {(record["steps"], record["dtype"]) for record in records} == {(STEPS, "spikes")}


def test_records_go_only_to_partitions_on_which_the_network_has_tasks(
    run: Run, network: str, tmp_path: Path
) -> None:
    file = tmp_path / "lines.jsonl"
    file.write_text("".join(f'{{"stream": "s{i}", "until": 4}}\n' for i in range(40)))
    assert run("publish", str(file), "--network", network)[0] == 0
    told = [line for line in shown(run, f"snn.in.{network}") if "record" in line]
    assert {line["partition"] for line in told} == {0, 1}
    code, _, errors = run("publish", str(file), "--network", network, "--partition", "2")
    assert (code, errors) == (1, "--partition 2: legal are 0 to 1.\n")


async def test_publishing_waits_while_half_of_the_retention_lies_unread(
    kafka: str, redis_url: str, network: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPIKEROUTER_RETENTION_BYTES", str(2**20))
    monkeypatch.setenv("SPIKEROUTER_UNCOMMITTED_BYTES", "100000")
    monkeypatch.setenv("SPIKEROUTER_UNCONFIRMED_BYTES", "100000")
    n, size = 60, 16_000
    line = json.dumps({"stream": "s", "events": [[0, 0]] * (size // 16)})
    (tmp_path / "lines.jsonl").write_text(f"{line}\n" * n)
    settings = Settings.load(kafka=kafka, redis=redis_url)
    command = [
        *(sys.executable, "-m", "router.cli", "publish", str(tmp_path / "lines.jsonl")),
        *("--network", network, "--partition", "0", "--kafka", kafka, "--redis", redis_url),
    ]
    async with RedisStore.of(settings) as store, Bus(settings) as bus:
        publishing = await asyncio.create_subprocess_exec(*command)
        ended = asyncio.create_task(publishing.wait())
        read = await _ReadSlowly.of(store, bus, network)
        while not ended.done():
            await asyncio.wait([ended], timeout=0.02)
            await read.one_more()
        assert await ended == 0
        assert await read.end() >= n
        assert (await read.end() - read.offset) * size <= 2**19


@dataclass
class _ReadSlowly:
    """An ingest that does nothing but read, a record at a time, and commits its position."""

    store: RedisStore
    bus: Bus
    place: Place
    claimed: Claimed
    number: int = 0
    offset: int = 0

    @classmethod
    async def of(cls, store: RedisStore, bus: Bus, network: str) -> "_ReadSlowly":
        reply = await store.claim(
            0, "w", "token", 60_000, kinds=["ingest"], capacity=10**9, limit=1
        )
        return cls(store, bus, Place(f"snn.in.{network}", 0), reply.claimed[0])

    async def end(self) -> int:
        return (await self.bus.bounds([self.place]))[self.place][1]

    async def one_more(self) -> None:
        """Commit the next position, if there is a record."""
        if self.offset >= await self.end():
            return
        self.number += 1
        self.offset += 1
        (head,) = calls.blob_calls(0, f"nonce-{self.number}", [b"head"], 60_000)
        await self.store.write_blobs([head])
        outcome = await self.store.commit(
            self.claimed.task, "token", self.number, full=self.number == 1, head=head.key,
            positions={self.place.topic: Position(self.offset)},
        )  # fmt: skip
        assert outcome is CommitOutcome.OK


def test_results_are_shown_once_and_dropped_repeats_are_told(
    run: Run, kafka: str, network: str
) -> None:
    asyncio.run(emit(kafka, network, [1, 5, 0], [7, 0, 0]))
    code, out, errors = run("consume", network, "--from-beginning", "--until-idle", "0")
    told = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [(line["stream"], line["values"], line["class"]) for line in told] == [
        ("s0", [1, 5, 0], 1),
        ("s1", [7, 0, 0], 0),
    ]
    assert errors == f"2 repeats were dropped; snn.out.{network} has them.\n"
    assert len(shown(run, f"snn.out.{network}")) == 4


def test_what_nobody_can_read_is_left_out_and_told(run: Run, kafka: str, network: str) -> None:
    """The embedded broker takes any bytes; Apache Kafka refuses these as they come."""
    asyncio.run(emit(kafka, network, [1, 2, 3]))
    error = asyncio.run(append_raw(kafka, out_topic(network), 1, batch(b"a", b"b", codec=7)))
    asyncio.run(emit(kafka, network, [4, 5, 6], [7, 8, 9]))
    code, out, errors = run("consume", network, "--from-beginning", "--until-idle", "0")
    assert (code, len(out.splitlines())) == (0, 2)
    assert ("2 records cannot be read by anybody" in errors) == (error == "")


@pytest.mark.parametrize("kafka", [REAL_KAFKA], indirect=True)
def test_a_topic_that_ends_with_a_marker_is_read_to_its_end(
    run: Run, kafka: str, network: str
) -> None:
    async def write() -> None:
        place = Place(f"snn.in.{network}", 0)
        producer = AIOKafkaProducer(bootstrap_servers=kafka, transactional_id=network)
        async with Bus(Settings.load(kafka=kafka)) as bus, asyncio.timeout(60):
            end = (await bus.bounds([place]))[place][1] + 2  # a record and its marker
            async with producer, producer.transaction():
                await producer.send(place.topic, b"{}", key=b"s", partition=place.partition)
            while (await bus.bounds([place]))[place][1] < end:  # it is answered before it is there
                await asyncio.sleep(0.01)

    before = shown(run, f"snn.in.{network}")
    asyncio.run(write())
    assert len(shown(run, f"snn.in.{network}")) == len(before) + 1


def test_count_and_offset_choose_what_is_read(run: Run, kafka: str, network: str) -> None:
    asyncio.run(emit(kafka, network, [1, 0, 0], [2, 0, 0], [3, 0, 0]))
    topic = f"snn.out.{network}"
    assert [line["offset"] for line in shown(run, topic, "--count", "2")] == [0, 1]
    code, out, _ = run("consume", topic, "--partition", "1", "--offset", "4", "--until-idle", "0")
    assert code == 0
    assert [json.loads(line)["values"] for line in out.splitlines()] == [[[3, 0, 0]]] * 2


def test_without_from_beginning_only_what_comes_is_read(run: Run, kafka: str, network: str) -> None:
    asyncio.run(emit(kafka, network, [1, 0, 0]))
    assert run("consume", network, "--until-idle", "0") == (0, "", "")


def test_a_topic_that_is_not_there_is_told_and_not_made(
    run: Run, network: str, fresh_name: FreshName
) -> None:
    name = fresh_name("in")
    for _ in range(2):
        code, _, errors = run("consume", f"snn.in.{name}")
        assert code == 1
        assert f"There is no topic snn.in.{name}; there are:" in errors
        assert f"snn.in.{network}" in errors


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["publish"], "Name a network with --network, or an input with --input."),
        (["publish", "--input", "a/b"], "The name 'a/b' is not legal"),
        (["publish", "--network", "nobody"], "No network 'nobody' is deployed; deployed are: none"),
        (["publish", "nowhere.jsonl", "--input", "a"], "nowhere.jsonl cannot be read: No such"),
        (["publish", "nowhere.npy", "--input", "a"], "nowhere.npy cannot be read"),
        (["publish", "/", "--input", "a"], "/ cannot be read: Is a directory."),
        (["consume", "nobody"], "No network 'nobody' is deployed"),
        (["consume", "snn.nothing"], "'snn.nothing' is no topic of the system; legal are"),
        (["consume", "snn.dead-letter", "--offset", "3"], "--offset needs --partition"),
        (["consume", "snn.dead-letter", "--native"], "--native is for inputs, snn.in.<input>"),
    ],
)
def test_what_is_not_legal_ends_in_a_sentence(
    run: Run, arguments: list[str], sentence: str
) -> None:
    code, out, errors = run(*arguments)
    assert (code, out) == (1, "")
    assert sentence in errors
    assert "Traceback" not in errors
