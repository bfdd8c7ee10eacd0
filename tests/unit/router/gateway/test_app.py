"""The HTTP interface on in-memory doubles of Kafka and the store."""

import asyncio
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from router import deadletter
from router.client import PublishFailed, partition_of
from router.deadletter import DeadLetter
from router.payload import pack_result, unpack
from router.records import SPIKES
from router.store.calls import StatusReply
from router.strays import DETAIL, Stray, details_of
from router.topics import in_topic
from router.wire import Batch, Kind, StreamId
from topologies.compiled import CompiledNetwork, Group, Summary
from topologies.stages.base import Cost, ValueType

World = Any  # from conftest, which cannot be imported


def result(name: str, values: list[list[int]] | None, **options: Any) -> Batch:
    window, number = options.get("window", 0), options.get("number", 0)
    error, end = options.get("error", ""), options.get("end", True)
    payload = b"" if values is None else pack_result(np.asarray(values, np.int32))
    return Batch(
        "2" * 32, StreamId(1, number), name, ("digits",), 0, window, 4 * window, 4 * window + 4,
        Kind.ABORT if error else Kind.SPIKES, end and not error, payload, error,
    )  # fmt: skip


async def until(condition: Any) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0)


# Metadata and health


async def test_metadata_tells_name_datatype_and_shape(world: World) -> None:
    answer = await world.client.get("/v2/models/digits")
    assert answer.status_code == 200
    content = answer.json()
    assert content["name"] == "digits"
    assert len(content["versions"]) == 1
    (source,) = content["inputs"]
    assert (source["name"], source["datatype"], source["shape"]) == (
        "pixels",
        "FP32",
        [-1, 1, 2, 2],
    )
    assert [(o["name"], o["datatype"], o["shape"]) for o in content["outputs"]] == [
        ("output", "INT32", [-1, 3]),
        ("class", "INT32", [-1]),
    ]
    assert content["outputs"][1]["parameters"]["labels"] == ["zero", "one", "two"]


async def test_metadata_tells_which_layers_are_not_portable(world: World) -> None:
    told = (await world.client.get("/v2/models/digits")).json()["parameters"]
    assert told == {"portable": True, "not_portable": []}
    network = CompiledNetwork.from_bytes(world.store.manifests["digits"])
    node = network.nodes[network.readout]
    spikes = ValueType((3,), 0, 1)
    cells = Summary(node.operator, "readout", ("brian2",), (), spikes, Cost(), ("brian2",))
    changed = replace(
        network,
        name="cells",
        summaries={cells.id: cells},
        groups={cells.id: (Group(0, 0, 3),)},
        labels={node.id: "cells"},
    )
    world.store.manifests["cells"] = changed.to_bytes()
    told = (await world.client.get("/v2/models/cells")).json()["parameters"]
    assert told == {"portable": False, "not_portable": ["cells"]}


async def test_metadata_of_events_has_an_axis_of_steps(world: World) -> None:
    content = (await world.client.get("/v2/models/gestures")).json()
    assert content["inputs"][0]["datatype"] == "UINT8"
    assert content["inputs"][0]["shape"] == [-1, -1, 2, 4]
    assert content["outputs"][0]["shape"] == [-1, -1, 3]


async def test_server_tells_its_name_and_that_it_lives(world: World) -> None:
    assert (await world.client.get("/v2")).json()["name"] == "spikerouter"
    assert (await world.client.get("/v2/health/live")).json() == {"live": True}


async def test_ready_when_every_task_has_an_owner(world: World) -> None:
    assert (await world.client.get("/v2/health/ready")).status_code == 200
    assert (await world.client.get("/v2/models/digits/ready")).status_code == 200


async def test_not_ready_tells_all_reasons(world: World) -> None:
    world.kafka[0] = False
    world.store.away = True
    world.reader.away = "Results are not being read."
    answer = await world.client.get("/v2/health/ready")
    assert answer.status_code == 503
    reasons = " ".join(answer.json()["reasons"])
    assert len(answer.json()["reasons"]) == 3
    assert "Kafka does not answer" in reasons
    assert "The store does not answer" in reasons
    assert "Results are not being read" in reasons


async def test_a_task_without_an_owner_is_a_reason(world: World) -> None:
    world.store.tasks[0] = replace(world.store.tasks[0], lease_ms=0, worker="")
    answer = await world.client.get("/v2/health/ready")
    assert answer.status_code == 503
    assert answer.json()["reasons"] == ["1 of 8 tasks have no owner yet."]


async def test_a_task_that_its_owner_does_not_serve_yet_is_a_reason(world: World) -> None:
    (worker,) = world.store.workers
    silent = replace(worker, info=replace(worker.info, details={}))
    world.store.workers[0] = silent
    answer = await world.client.get("/v2/health/ready")
    assert answer.status_code == 503
    assert answer.json()["reasons"] == ["8 of 8 tasks are being started by their owners."]


async def test_a_task_that_fits_nobody_is_a_reason(world: World) -> None:
    world.store.tasks[0] = replace(world.store.tasks[0], lease_ms=0, worker="", cost=11)
    answer = await world.client.get("/v2/models/digits/ready")
    assert answer.status_code == 503
    assert "1 tasks fit no living worker" in answer.json()["error"]
    assert "its cost is 11, the largest capacity of a living worker 10." in answer.json()["error"]


async def test_a_failed_task_is_a_reason(world: World) -> None:
    world.store.tasks[0] = replace(world.store.tasks[0], lease_ms=0, error="LogReplaced")
    assert "has failed: LogReplaced" in (await world.client.get("/v2/health/ready")).text


async def test_input_that_nobody_reads_is_a_warning_and_no_reason(world: World) -> None:
    (worker,) = world.store.workers
    told = {**worker.info.details, DETAIL: details_of([Stray("snn.in.digits", 2, {3: 7})])}
    world.store.workers[0] = replace(worker, info=replace(worker.info, details=told))
    answer = await world.client.get("/v2/health/ready")
    assert answer.status_code == 200
    (warning,) = answer.json()["warnings"]
    assert warning.startswith("7 records of topic snn.in.digits lie unread in partition 3")


async def test_a_loop_that_fails_is_begun_again_and_readiness_says_so(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("router.loops._FIRST_PAUSE_S", 0.0)
    gateway = world.client._transport.app.state.gateway
    faults = [ValueError("a damaged row")]
    given = world.store.status

    async def status(partition: int) -> StatusReply:
        if faults:
            raise faults.pop()
        reply: StatusReply = await given(partition)
        return reply

    monkeypatch.setattr(world.store, "status", status)
    async with gateway.watching():
        await until(lambda: _restarts(gateway))
        answer = await world.client.get("/v2/health/ready")
        assert answer.status_code == 503
        assert "watches how far input is read failed: a damaged row" in answer.json()["error"]
        assert (await world.client.get("/v2/health/live")).status_code == 200
        assert b"spikerouter_gateway_loop_restarts_total 1.0" in gateway.metrics.text()


async def test_a_loop_that_never_comes_back_ends_liveness(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("router.loops._FIRST_PAUSE_S", 0.0)
    gateway = world.client._transport.app.state.gateway

    async def status(partition: int) -> StatusReply:
        raise ValueError("a damaged row")

    monkeypatch.setattr(world.store, "status", status)
    async with gateway.watching():
        await until(lambda: _restarts(gateway) >= 10)
        answer = await world.client.get("/v2/health/live")
    assert answer.status_code == 503
    assert answer.json()["live"] is False
    assert "a damaged row" in answer.json()["error"]


async def test_a_reader_that_is_given_up_ends_liveness_and_is_no_reason_twice(
    world: World,
) -> None:
    keeper = world.reader.keeper
    keeper._n_failures, keeper._fault = 10, "a fault"
    assert (await world.client.get("/v2/health/live")).status_code == 503
    reasons = (await world.client.get("/v2/health/ready")).json()["reasons"]
    assert len([each for each in reasons if "a fault" in each]) == 1


def _restarts(gateway: Any) -> int:
    return sum(keeper.n_restarts for keeper in gateway.keepers)


async def test_how_long_the_event_loop_is_held_is_told(world: World) -> None:
    gateway = world.client._transport.app.state.gateway
    async with gateway.watching():
        await until(lambda: b"loop_lag_seconds_count 0.0" not in gateway.metrics.text())
    assert gateway.lag.longest >= gateway.lag.longest_held >= 0.0


# Inference


async def test_infer_answers_with_output_and_class(world: World) -> None:
    world.serve()
    answer = await world.infer([0.0, 0.5, 1.0, 0.25], id="image-1")
    assert answer.status_code == 200
    assert answer.json() == {
        "model_name": "digits",
        "model_version": answer.json()["model_version"],
        "id": "image-1",
        "outputs": [
            {"name": "output", "shape": [1, 3], "datatype": "INT32", "data": [0, 5, 10]},
            {"name": "class", "shape": [1], "datatype": "INT32", "data": [2]},
        ],
    }


async def test_each_sample_of_a_batch_is_one_stream_in_the_order_sent(world: World) -> None:
    world.serve()
    data = [[[index / 10, 0.3, 0.1, 0.0]] for index in range(10)]
    answer = await world.infer(data, shape=[10, 1, 2, 2])
    assert answer.status_code == 200
    output, best = answer.json()["outputs"]
    assert output["shape"] == [10, 3]
    assert output["data"][::3] == list(range(10))
    assert best["data"] == [1, 1, 1, 0, 0, 0, 0, 0, 0, 0]  # the lowest index of the greatest
    assert len({published.record.name for published in world.publisher.published}) == 10
    assert all(published.record.request for published in world.publisher.published)


async def test_the_record_carries_network_seed_and_values(world: World) -> None:
    world.serve()
    await world.infer([0, 1, 0, 1], datatype="UINT8", parameters={"seed": 7})
    (published,) = world.publisher.published
    assert published.input == "pixels"
    assert published.record.networks == ("digits",)
    assert published.record.seed == 7
    assert published.record.values().tolist() == [[[0, 1], [0, 1]]]
    assert published.record.dtype == "uint8"


async def test_only_the_outputs_asked_for_are_sent(world: World) -> None:
    world.serve()
    answer = await world.infer(outputs=[{"name": "class"}])
    assert [output["name"] for output in answer.json()["outputs"]] == ["class"]


async def test_dense_events_are_packed_as_spikes(world: World) -> None:
    def react(published: Any) -> None:
        values = [[1, 2, 3], [4, 5, 6]]
        world.reader.feed("gestures", published.position.partition, result(
            published.record.name, values
        ))  # fmt: skip

    world.publisher.react = react
    spikes = np.zeros((1, 8, 2, 4), int)
    spikes[0, 3, 1, 2] = 1
    answer = await world.infer(
        spikes.ravel().tolist(), model="gestures", shape=[1, 8, 2, 4], datatype="UINT8"
    )
    assert answer.status_code == 200
    assert answer.json()["outputs"][0]["shape"] == [1, 2, 3]
    assert answer.json()["outputs"][1]["data"] == [2, 2]
    record = world.publisher.published[0].record
    assert (record.dtype, record.steps) == (SPIKES, 8)
    assert (unpack([record.payload], 8, 8, 0, 1) == spikes.reshape(1, 8, 8)).all()


async def test_a_repeat_with_equal_id_and_body_is_answered_without_publishing(
    world: World,
) -> None:
    world.serve()
    first = await world.infer([0.0, 0.5, 1.0, 0.25], id="a")
    second = await world.infer([[[[0.0, 0.5], [1.0, 0.25]]]], id="a", shape=[1, 1, 2, 2])
    assert first.json() == second.json()
    assert len(world.publisher.published) == 1


async def test_a_repeat_of_a_request_whose_result_is_no_longer_kept_is_410_at_once(
    world: World,
) -> None:
    world.serve()
    await world.infer(id="a")
    world.reader.table._keep_s = 0.0
    world.reader.table.feed("digits", 0, (), 1.0)
    world.publisher.react = lambda published: None  # ingest drops it
    answer = await world.infer(id="a")
    assert answer.status_code == 410
    assert "send it under another id" in answer.json()["error"]
    assert len(world.publisher.published) == 1
    world.serve()
    assert (await world.infer(id="b")).status_code == 200


async def test_another_gateway_answers_a_repeat_from_the_results_topic(world: World) -> None:
    world.serve()
    first = await world.infer(id="a")
    (published,) = world.publisher.published
    world.publisher.published.clear()
    world.publisher.react = lambda published: None
    fresh = type(world.reader)()  # what another gateway read from the same topic
    await fresh.follow("digits", "pixels")
    fresh.feed("digits", published.position.partition, result(published.record.name, [[0, 5, 10]]))
    world.reader.table = fresh.table
    second = await world.infer(id="a")
    assert second.json() == first.json()
    assert world.publisher.published == []


async def test_an_id_with_a_different_body_is_a_conflict(world: World) -> None:
    world.serve()
    await world.infer([0.0, 0.5, 1.0, 0.25], id="a")
    for other in ({"parameters": {"seed": 1}}, {"datatype": "UINT8"}):
        data = [0, 0, 1, 1] if "datatype" in other else [0.0, 0.5, 1.0, 0.25]
        answer = await world.infer(data, id="a", **other)
        assert answer.status_code == 409
        assert "'a' was used for another request" in answer.json()["error"]
    assert len(world.publisher.published) == 1


async def test_an_id_in_flight_with_a_different_body_is_a_conflict(world: World) -> None:
    running = asyncio.create_task(world.infer([0.0, 0.5, 1.0, 0.25], id="a"))
    await until(lambda: world.publisher.published)
    assert (await world.infer([0.5, 0.5, 1.0, 0.25], id="a")).status_code == 409
    (published,) = world.publisher.published
    answer = result(published.record.name, [[1, 2, 3]])
    world.reader.feed("digits", published.position.partition, answer)
    assert (await running).status_code == 200


@pytest.mark.parametrize("values", [[[1]], [], [[1, 2, 3], [1, 2, 3]]])
async def test_a_result_that_does_not_fit_the_network_is_told_as_such(
    world: World, values: list[list[int]]
) -> None:
    world.publisher.react = lambda published: world.reader.feed(
        "digits", published.position.partition, result(published.record.name, values or None)
    )
    answer = await world.infer()
    assert answer.status_code == 500
    assert "does not fit network 'digits'" in answer.json()["error"]


async def test_a_name_that_ingest_knows_with_another_body_is_a_conflict(world: World) -> None:
    def react(published: Any) -> None:
        reason = "duplicate_stream: the name is taken"
        partition, offset = published.position
        name = published.record.name
        letter = DeadLetter(in_topic("pixels"), partition, offset, None, reason, name)
        world.reader.refuse(deadletter.encode(letter))

    world.publisher.react = react
    assert (await world.infer()).status_code == 409


@pytest.mark.parametrize(
    ("reason", "code"), [("too many steps", 400), ("EraLost: the input was truncated", 503)]
)
async def test_a_refused_record_is_a_bad_request_unless_its_input_was_lost(
    world: World, reason: str, code: int
) -> None:
    def react(published: Any) -> None:
        partition, offset = published.position
        letter = DeadLetter(in_topic("pixels"), partition, offset, None, reason, "x")
        world.reader.refuse(deadletter.encode(letter))

    world.publisher.react = react
    answer = await world.infer()
    assert answer.status_code == code
    assert reason in answer.json()["error"]


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        ("InputLost", 503), ("EraLost", 503), ("SnapshotCorrupt", 503), ("DeadlineMissed", 504),
        ("OperatorFailed", 500), ("PoisonBatch", 500), ("anything", 500),
    ],
)  # fmt: skip
async def test_an_aborted_stream_is_an_error_with_its_sentence(
    world: World, reason: str, code: int
) -> None:
    world.publisher.react = lambda published: world.reader.feed(
        "digits",
        published.position.partition,
        result(published.record.name, None, error=f"{reason}: window 0"),
    )
    answer = await world.infer()
    assert answer.status_code == code
    assert f"{reason}: window 0" in answer.json()["error"]


async def test_one_failed_sample_fails_the_batch_and_harms_no_other_request(world: World) -> None:
    def react(published: Any) -> None:
        bad = published.record.values().ravel()[0] == 0.5
        answer = result(
            published.record.name, None if bad else [[1, 2, 3]], error="bad" if bad else ""
        )
        world.reader.feed("digits", published.position.partition, answer)

    world.publisher.react = react
    failed, fine = await asyncio.gather(
        world.infer([0.5] * 8, shape=[2, 1, 2, 2]), world.infer([0.0] * 8, shape=[2, 1, 2, 2])
    )
    assert (failed.status_code, fine.status_code) == (500, 200)


async def test_no_result_before_the_deadline_is_504(world: World) -> None:
    answer = await world.infer(parameters={"timeout_s": 0.02})
    assert answer.status_code == 504
    assert "before the deadline" in answer.json()["error"]


async def test_kafka_away_is_503(world: World) -> None:
    world.publisher.failure = PublishFailed("Kafka is away.")
    assert (await world.infer()).status_code == 503


async def test_a_known_network_is_served_while_the_store_is_away(world: World) -> None:
    world.serve()
    assert (await world.infer()).status_code == 200
    world.store.away = True
    assert (await world.infer()).status_code == 200
    assert (await world.infer(model="gestures")).status_code == 503


async def test_too_many_in_flight_is_429_with_a_time_to_wait(world: World) -> None:
    app = world.client._transport.app
    admission = app.state.gateway.admission
    admission.max_samples = 4
    waiting = [asyncio.create_task(world.infer([0.5] * 8, shape=[2, 1, 2, 2])) for _ in range(2)]
    await until(lambda: len(world.publisher.published) == 4)
    refused = await world.infer()
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) >= 1
    assert "4 samples" in refused.json()["error"]
    for published in world.publisher.published:
        answer = result(published.record.name, [[1, 2, 3]])
        world.reader.feed("digits", published.position.partition, answer)
    assert [(await task).status_code for task in waiting] == [200, 200]
    world.serve()
    assert (await world.infer()).status_code == 200


async def test_a_client_that_goes_away_gives_its_place_back(world: World) -> None:
    admission = world.client._transport.app.state.gateway.admission
    waiting = asyncio.create_task(world.infer())
    await until(lambda: world.publisher.published)
    assert admission.samples == 1
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert (admission.samples, admission.n_bytes) == (0, 0)


async def test_a_batch_larger_than_everything_is_refused_with_the_limit(world: World) -> None:
    answer = await world.infer([0] * 4 * 1025, datatype="UINT8", shape=[1025, 1, 2, 2])
    assert answer.status_code == 400
    assert "the most are 1024" in answer.json()["error"]


async def test_unread_input_beyond_half_the_retention_is_429(world: World) -> None:
    world.serve()
    await world.infer()
    workers = world.store.workers
    details = {f"{task.task}:lag_records": 1_000_000 for task in world.store.tasks}
    workers[0] = replace(workers[0], info=replace(workers[0].info, details=details))
    gateway = world.client._transport.app.state.gateway
    gateway.backlog.update([await world.store.status(place) for place in range(4)], 0.0)
    answer = await world.infer()
    assert answer.status_code == 429
    assert "lie unread" in answer.json()["error"]


# What is not legal


ILLEGAL = {
    "not JSON": (b"{", "not JSON"),
    "NaN": (b'{"inputs": [NaN]}', "not JSON"),
    "deep": (b"[" * 5000 + b"]" * 5000, "not JSON"),
    "not UTF-8": (b'{"id": "\xff"}', "not JSON"),
    "a list": (b"[]", "not a JSON object"),
    "empty": (b"", "not JSON"),
    "no inputs": (b"{}", "a list of one tensor, 'pixels'"),
    "inputs of a wrong type": (b'{"inputs": {"name": "pixels"}}', "a list of one tensor"),
    "two inputs": (b'{"inputs": [{}, {}]}', "a list of one tensor"),
    "an unknown field": (b'{"input": []}', "legal are id, inputs, outputs, parameters"),
    "an id that is a number": (b'{"id": 5}', "legal is text of at most 150 bytes"),
    "a long id": (json.dumps({"id": "x" * 151}).encode(), "at most 150 bytes"),
    "an id with a line feed": (b'{"id": "a\\n"}', "cannot be printed"),
    "a negative seed": (b'{"parameters": {"seed": -1}}', "`seed` is -1"),
    "a seed beyond u64": (b'{"parameters": {"seed": 18446744073709551616}}', "`seed` is"),
    "a seed that is true": (b'{"parameters": {"seed": true}}', "`seed` is True"),
    "no time": (b'{"parameters": {"timeout_s": 0}}', "legal is a number of seconds > 0"),
    "unknown parameters": (b'{"parameters": {"sed": 1}}', "has a field 'sed'"),
    "parameters as a list": (b'{"parameters": []}', "`parameters` is not"),
}


@pytest.mark.parametrize("case", ILLEGAL)
async def test_an_illegal_body_is_400_and_tells_what_was_legal(world: World, case: str) -> None:
    body, sentence = ILLEGAL[case]
    answer = await world.client.post("/v2/models/digits/infer", content=body)
    assert answer.status_code == 400
    assert sentence in answer.json()["error"]
    assert world.publisher.published == []


TENSORS: dict[str, tuple[dict[str, Any], str]] = {
    "another name": ({"name": "image"}, "legal is 'pixels'"),
    "another datatype": ({"datatype": "FP64"}, "legal for input 'pixels' are FP32, UINT8"),
    "no datatype": ({"datatype": None}, "The datatype is None"),
    "a datatype of a wrong type": ({"datatype": ["FP32"]}, "The datatype is a JSON array"),
    "another shape": ({"shape": [1, 4]}, "legal for input 'pixels' is [batch, 1, 2, 2]"),
    "no batch": ({"shape": [0, 1, 2, 2]}, "each at least 1"),
    "a negative batch": ({"shape": [-1, 1, 2, 2]}, "each at least 1"),
    "a huge batch": ({"shape": [2**40, 1, 2, 2]}, "each at least 1"),
    "a shape of floats": ({"shape": [1.0, 1, 2, 2]}, "[1.0, 1, 2, 2]"),
    "a shape of booleans": ({"shape": [True, 1, 2, 2]}, "[True, 1, 2, 2]"),
    "no shape": ({"shape": None}, "The shape is None"),
    "a long shape": ({"shape": [1] * 4000}, ", ...]"),
    "too few values": ({"data": [0.0] * 3}, "`data` has 3 values; shape [1, 1, 2, 2] has 4"),
    "no values": ({"data": []}, "not a list of values of datatype FP32"),
    "no data": ({"data": None}, "not a list of values of datatype FP32"),
    "ragged data": ({"data": [[0.0], [0.0, 1.0, 0.5]]}, "nested evenly"),
    "texts": ({"data": ["0", "1", "2", "3"]}, "not a list of values of datatype FP32"),
    "a text": ({"data": "0123"}, "not a list of values of datatype FP32"),
    "booleans": ({"data": [True, False, True, True]}, "not a list of values"),
    "booleans among numbers": ({"data": [0.0, True, 0.5, 0.5]}, "not a list of values"),
    "nulls": ({"data": [None] * 4}, "not a list of values"),
    "objects": ({"data": [{}] * 4}, "not a list of values"),
    "too large": ({"data": [0.0, 1.5, 0.0, 0.0]}, "Value 1.5 at index 1 of `data` is outside"),
    "too small": ({"data": [0.0, 0.0, 0.0, -0.5]}, "the declared range, 0 to 1"),
    "beyond FP32": ({"data": [1e39, 0.0, 0.0, 0.0]}, "beyond the range of FP32"),
    "beyond float64": ({"data": [10**400, 0, 0, 0]}, "error"),
    "beyond UINT8": ({"datatype": "UINT8", "data": [256, 0, 0, 0]}, "beyond the range of UINT8"),
    "floats as UINT8": ({"datatype": "UINT8", "data": [0.5, 0, 0, 0]}, "of datatype UINT8"),
    "another field": ({"dtype": "FP32"}, "The input has a field 'dtype'"),
    "data nested deeply": ({"data": json.loads("[" * 90 + "0.5" + "]" * 90)}, "nested evenly"),
}


@pytest.mark.parametrize("case", TENSORS)
async def test_an_illegal_tensor_is_400_and_tells_what_was_legal(world: World, case: str) -> None:
    changes, sentence = TENSORS[case]
    tensor = {
        "name": "pixels", "shape": [1, 1, 2, 2], "datatype": "FP32", "data": [0.0] * 4, **changes
    }  # fmt: skip
    answer = await world.client.post("/v2/models/digits/infer", json={"inputs": [tensor]})
    assert answer.status_code == 400
    assert sentence in answer.text
    assert world.publisher.published == []


@pytest.mark.parametrize("outputs", [[{"name": "logits"}], [{}], "class", {}, [["class"]], 1])
async def test_unknown_outputs_are_400(world: World, outputs: object) -> None:
    answer = await world.infer(outputs=outputs)
    assert answer.status_code == 400
    assert '{"name": "output"}' in answer.json()["error"]


async def test_steps_beyond_the_limit_are_400(world: World) -> None:
    tensor = {
        "name": "pixels", "shape": [1, 100_001, 2, 4], "datatype": "UINT8", "data": [0],
    }  # fmt: skip
    answer = await world.client.post("/v2/models/gestures/infer", json={"inputs": [tensor]})
    assert "legal is at most 100000" in answer.json()["error"]


async def test_an_unknown_network_is_404_and_names_those_that_are_deployed(world: World) -> None:
    for answer in (
        await world.client.get("/v2/models/letters"),
        await world.client.get("/v2/models/letters/ready"),
        await world.infer(model="letters"),
        await world.client.get("/v1/networks/letters/streams/s/results"),
    ):
        assert answer.status_code == 404
        assert "deployed are: digits, gestures" in answer.json()["error"]


async def test_a_name_that_no_network_can_have_is_400(world: World) -> None:
    assert (await world.client.get("/v2/models/a%20b")).status_code == 400


async def test_an_unknown_path_is_404_and_names_those_there_are(world: World) -> None:
    answer = await world.client.get("/v3")
    assert answer.status_code == 404
    assert "POST /v2/models/{model}/infer" in answer.json()["error"]
    assert (await world.client.get("/v2/models/digits/infer")).status_code == 405


async def test_a_body_beyond_the_limit_is_413(world: World) -> None:
    answer = await world.client.post("/v2/models/digits/infer", content=b"x" * 20_001)
    assert answer.status_code == 413
    assert "the most are 20000 bytes" in answer.json()["error"]


async def test_a_body_without_a_length_is_cut_off_at_the_limit(world: World) -> None:
    sent = 0

    async def endless() -> Any:
        nonlocal sent
        while sent < 10_000_000:
            sent += 1000
            yield b"x" * 1000

    answer = await world.client.post("/v2/models/digits/infer", content=endless())
    assert answer.status_code == 413
    assert sent <= 22_000


async def test_binary_tensors_are_refused_with_a_sentence(world: World) -> None:
    headers = {"Inference-Header-Content-Length": "10"}
    answer = await world.client.post("/v2/models/digits/infer", content=b"{}", headers=headers)
    assert answer.status_code == 400
    assert "send `data` as JSON" in answer.json()["error"]


async def test_bad_requests_harm_no_good_one(world: World) -> None:
    good = asyncio.create_task(world.infer(id="good"))
    await until(lambda: world.publisher.published)
    for body, _ in ILLEGAL.values():
        await world.client.post("/v2/models/digits/infer", content=body)
    (published,) = world.publisher.published
    answer = result(published.record.name, [[1, 2, 3]])
    world.reader.feed("digits", published.position.partition, answer)
    assert (await good).status_code == 200


# Streams


EVENTS = "/v1/networks/gestures/streams/cam/events"
RESULTS = "/v1/networks/gestures/streams/cam/results"


async def test_posted_events_are_one_record_in_the_partition_of_the_name(world: World) -> None:
    body = {"events": [[0, 5], [3, 7, 1]], "until": 8, "seq": 0}
    answer = await world.client.post(EVENTS, json=body)
    assert answer.status_code == 202
    (published,) = world.publisher.published
    assert published.record.events == ((0, 5, 1), (3, 7, 1))
    assert (published.record.until, published.record.seq) == (8, 0)
    assert published.record.networks == ("gestures",)
    assert not published.record.request
    assert answer.json() == {
        "network": "gestures", "stream": "cam", **published.position._asdict(),
    }  # fmt: skip


async def test_posted_samples_take_the_shape_of_the_input(world: World) -> None:
    url = "/v1/networks/digits/streams/s/events"
    answer = await world.client.post(url, json={"data": [0, 0.5, 1, 0], "end": True})
    assert answer.status_code == 202
    (published,) = world.publisher.published
    assert published.record.shape == (1, 2, 2)
    assert published.record.end


STREAM_FAULTS: dict[str, tuple[str, bytes, str]] = {
    "nothing": ("gestures", b"{}", "says nothing"),
    "not JSON": ("gestures", b"events", "not JSON"),
    "kind": ("gestures", b'{"k": "kill", "stream": [1, 1], "name": "a", "error": ""}', "field"),
    "networks": ("gestures", b'{"networks": ["digits"], "end": true}', "field 'networks'"),
    "address": ("gestures", b'{"events": [[0, 8]]}', "addresses are 0 to 7"),
    "value": ("gestures", b'{"events": [[0, 1, 2]]}', "values 1 to 1"),
    "zero": ("gestures", b'{"events": [[0, 1, 0]]}', "values 1 to 1"),
    "step": ("gestures", b'{"events": [[-1, 1]]}', "[-1, 1]"),
    "huge step": ("gestures", b'{"events": [[1e400, 1]]}', "error"),
    "event of one": ("gestures", b'{"events": [[1]]}', "[1]"),
    "data for events": ("gestures", b'{"data": [1]}', "takes `events`"),
    "events for data": ("digits", b'{"events": [[0, 1]]}', "takes samples of shape [1, 2, 2]"),
    "shape": ("digits", b'{"data": [0, 0, 0]}', "has shape [3]; legal is [1, 2, 2]"),
    "range": ("digits", b'{"data": [0, 0, 0, 2]}', "outside the declared range, 0 to 1"),
    "NaN": ("digits", b'{"data": [0, 0, 0, NaN]}', "not JSON"),
    "twice": ("digits", b'{"end": true, "end": false}', "twice"),
    "seq": ("digits", b'{"end": true, "seq": -1}', "seq"),
    "deep": ("digits", b'{"data": ' + b"[" * 500 + b"1" + b"]" * 500 + b"}", "data"),
}


@pytest.mark.parametrize("case", STREAM_FAULTS)
async def test_an_illegal_post_is_400_and_tells_what_was_legal(world: World, case: str) -> None:
    network, body, sentence = STREAM_FAULTS[case]
    answer = await world.client.post(f"/v1/networks/{network}/streams/s/events", content=body)
    assert answer.status_code == 400
    assert sentence in answer.text
    assert world.publisher.published == []


@pytest.mark.parametrize(
    "name", ["x" * 201, "a%0Ab", "id@0123456789abcdef", "id@0123456789abcdef.3"]
)
async def test_an_illegal_stream_name_is_400(world: World, name: str) -> None:
    url = f"/v1/networks/gestures/streams/{name}"
    assert (await world.client.post(f"{url}/events", json={"end": True})).status_code == 400
    assert (await world.client.get(f"{url}/results")).status_code == 400


async def test_results_of_an_unknown_stream_are_an_empty_page(world: World) -> None:
    answer = await world.client.get(RESULTS)
    assert answer.status_code == 200
    content = answer.json()
    assert (content["results"], content["next"], content["end"]) == ([], 0, False)


async def test_a_long_poll_returns_when_there_is_something_new(world: World) -> None:
    await world.client.get(RESULTS)
    world.reader.feed("gestures", 1, result("cam", [[1, 2, 3]], end=False))
    polling = asyncio.create_task(world.client.get(RESULTS, params={"from": 1, "wait": 5}))
    await until(lambda: world.reader._waiting)
    world.reader.feed("gestures", 1, result("cam", [[4, 6, 5]], window=1))
    content = (await polling).json()
    assert content["results"] == [
        {"index": 1, "start": 4, "stop": 8, "values": [4, 6, 5], "class": 1}
    ]
    assert (content["next"], content["end"], content["partition"]) == (2, True, 1)


async def test_results_go_on_where_the_last_page_ended(world: World) -> None:
    await world.client.get(RESULTS)
    for window in range(5):
        world.reader.feed("gestures", 1, result("cam", [[window]], window=window, end=window == 4))
    page = (await world.client.get(RESULTS, params={"from": 3})).json()
    assert [each["values"] for each in page["results"]] == [[3], [4]]
    after = (await world.client.get(RESULTS, params={"from": page["next"], "wait": 9})).json()
    assert (after["results"], after["end"]) == ([], True)


async def test_lines_come_as_emissions_are_made_and_end_with_where_to_go_on(world: World) -> None:
    await world.client.get(RESULTS)
    world.reader.feed("gestures", 1, result("cam", [[1, 2, 3]], end=False))
    params = {"wait": 5, "format": "ndjson"}
    reading = asyncio.create_task(world.client.get(RESULTS, params=params))
    await until(lambda: world.reader._waiting)
    world.reader.feed("gestures", 1, result("cam", [[4, 6, 5]], window=1))
    answer = await reading
    assert answer.headers["content-type"] == "application/x-ndjson"
    *lines, last = [json.loads(line) for line in answer.text.splitlines()]
    assert [line["values"] for line in lines] == [[1, 2, 3], [4, 6, 5]]
    assert last == {"next": 2, "end": True, "error": None}


async def test_an_aborted_stream_shows_its_error_in_both_formats(world: World) -> None:
    await world.client.get(RESULTS)
    world.reader.feed("gestures", 1, result("cam", [[1]], end=False))
    world.reader.feed("gestures", 1, result("cam", None, window=1, error="InputLost"))
    page = (await world.client.get(RESULTS, params={"from": 1, "wait": 5})).json()
    assert (page["end"], page["error"]) == (True, "InputLost")
    lines = await world.client.get(RESULTS, headers={"Accept": "application/x-ndjson"})
    assert json.loads(lines.text.splitlines()[-1]) == {
        "next": 1, "end": True, "error": "InputLost",
    }  # fmt: skip


async def test_emissions_that_are_no_longer_kept_are_410(world: World) -> None:
    await world.client.get(RESULTS)
    world.reader.feed("gestures", 1, result("cam", [[1]], window=5, end=False))
    answer = await world.client.get(RESULTS)
    assert answer.status_code == 410
    assert "the next one is 5: ask from there" in answer.json()["error"]
    assert (await world.client.get(RESULTS, params={"format": "ndjson"})).status_code == 410


@pytest.mark.parametrize(
    "query",
    ["from=-1", "from=x", "wait=nan", "wait=-1", "format=xml", "partition=-1", "from=1e400"],
)
async def test_an_illegal_query_is_400_with_a_sentence(world: World, query: str) -> None:
    answer = await world.client.get(f"{RESULTS}?{query}")
    assert answer.status_code == 400
    assert query.partition("=")[0] in answer.json()["error"]


# Metrics and documents


async def test_metrics_count_requests_by_route_and_code(world: World) -> None:
    world.serve()
    await world.infer()
    await world.infer(model="letters")
    text = (await world.client.get("/metrics")).text
    route = 'route="/v2/models/{model}/infer"'
    assert f'spikerouter_gateway_requests_total{{code="200",method="POST",{route}}} 1.0' in text
    assert f'spikerouter_gateway_requests_total{{code="404",method="POST",{route}}} 1.0' in text
    assert 'spikerouter_gateway_samples_total{network="digits"} 1.0' in text
    assert "spikerouter_results_finals_total 1.0" in text
    assert "spikerouter_gateway_samples_in_flight 0.0" in text


async def test_hostile_paths_and_methods_make_no_new_labels(world: World) -> None:
    await world.client.request("EVIL", "/nowhere/at/all")
    text = (await world.client.get("/metrics")).text
    assert "EVIL" not in text
    assert "nowhere" not in text


async def test_the_openapi_document_has_an_example_for_every_body(world: World) -> None:
    document = (await world.client.get("/openapi.json")).json()
    operations = [operation for path in document["paths"].values() for operation in path.values()]
    assert len(operations) == 9
    for operation in operations:
        body = operation.get("requestBody")
        if body is not None:
            content = body["content"]["application/json"]
            assert "example" in content or "examples" in content


async def test_the_example_of_the_document_is_served(world: World) -> None:
    world.serve()
    document = (await world.client.get("/openapi.json")).json()
    body = document["paths"]["/v2/models/{model}/infer"]["post"]["requestBody"]
    example = body["content"]["application/json"]["example"]
    answer = await world.client.post("/v2/models/digits/infer", json=example)
    assert answer.status_code == 200


async def test_late_events_are_no_refusal_of_their_stream(world: World) -> None:
    await world.client.get(RESULTS)
    partition = partition_of("cam", world.publisher.n_partitions)
    letter = DeadLetter(in_topic("pixels"), partition, -1, b"cam", "LateEvent: 1 event", "cam")
    world.reader.refuse(deadletter.encode(letter))
    answer = await world.client.get(RESULTS, params={"wait": 0.01})
    assert answer.status_code == 200
    assert answer.json()["error"] is None
    assert world.reader.counters()["dead_letters"] == 1


@pytest.mark.parametrize(
    ("beyond", "code"), [(0, 400), (1, 200)], ids=["its own record", "a stranger's"]
)
async def test_a_client_is_told_of_a_refusal_of_its_own_record_alone(
    world: World, beyond: int, code: int
) -> None:
    """Names are no claim to a stream: anybody may write a bad record under one."""
    await world.client.post(EVENTS, json={"events": [[0, 5]]})
    (published,) = world.publisher.published
    partition, offset = published.position
    at = offset + beyond
    letter = DeadLetter(in_topic("pixels"), partition, at, b"cam", "no such network", "cam")
    world.reader.refuse(deadletter.encode(letter))
    answer = await world.client.get(RESULTS, params={"wait": 0.01})
    assert answer.status_code == code
    lines = await world.client.get(RESULTS, params={"wait": 0.01, "format": "ndjson"})
    assert ("no such network" in lines.text) == (code == 400)


async def test_a_record_that_was_posted_again_in_order_makes_up_for_one_that_was_refused(
    world: World,
) -> None:
    for _ in range(2):
        await world.client.post(EVENTS, json={"events": [[0, 5]]})
    partition, offset = world.publisher.published[0].position
    letter = DeadLetter(in_topic("pixels"), partition, offset, b"cam", "no such network", "cam")
    world.reader.refuse(deadletter.encode(letter))
    assert (await world.client.get(RESULTS, params={"wait": 0.01})).status_code == 200


async def test_a_gateway_that_was_posted_nothing_tells_of_refusals_by_name(world: World) -> None:
    await world.client.get(RESULTS)
    partition = partition_of("cam", world.publisher.n_partitions)
    letter = DeadLetter(in_topic("pixels"), partition, 3, b"cam", "no such network", "cam")
    world.reader.refuse(deadletter.encode(letter))
    assert (await world.client.get(RESULTS, params={"wait": 0.01})).status_code == 400


async def test_posts_are_remembered_within_bounds(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("router.gateway.service._MOST_POSTED", 3)
    for n in range(9):
        url = f"/v1/networks/gestures/streams/s{n}/events"
        await world.client.post(url, json={"events": [[0, 5]]})
    gateway = world.client._transport.app.state.gateway
    assert len(gateway._posted) == 3


async def test_the_page_of_the_document_needs_nothing_from_elsewhere(world: World) -> None:
    page = await world.client.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert 'const networks = ["digits", "gestures"];' in page.text
    assert "://" not in page.text
    world.store.away = True
    assert "const networks = [];" in (await world.client.get("/docs")).text


async def test_the_root_leads_to_the_page(world: World) -> None:
    answer = await world.client.get("/")
    assert (answer.status_code, answer.headers["location"]) == (307, "docs")


@pytest.mark.parametrize(
    "path", ["/v2", "/v2/health/live", "/v2/health/ready", "/v2/models/digits"]
)
async def test_heads_are_answered_as_load_balancers_ask_for_them(world: World, path: str) -> None:
    assert (await world.client.head(path)).status_code == 200


async def test_another_method_is_405_and_tells_which_is_legal(world: World) -> None:
    answer = await world.client.get("/v2/models/digits/infer")
    assert answer.status_code == 405
    sentence = "Method Not Allowed: GET /v2/models/digits/infer; legal is POST."
    assert answer.json()["error"] == sentence


async def test_a_compressed_body_is_415(world: World) -> None:
    answer = await world.client.post(
        "/v2/models/digits/infer", content=b"\x1f\x8b", headers={"content-encoding": "gzip"}
    )
    assert answer.status_code == 415
    assert answer.json()["error"] == "The body is encoded as 'gzip'; legal is none."


async def test_an_answer_has_an_id_only_if_the_request_had_one(world: World) -> None:
    world.serve()
    assert "id" not in (await world.infer()).json()
    assert (await world.infer(id="a")).json()["id"] == "a"


async def test_a_post_to_a_stream_that_has_ended_is_a_conflict_unless_it_may_be_a_repeat(
    world: World,
) -> None:
    path = "/v1/networks/digits/streams/cam/"
    await world.client.get(f"{path}results")
    partition = partition_of("cam", world.publisher.n_partitions)
    world.reader.feed("digits", partition, result("cam", [[1, 2, 3]]))
    answer = await world.client.post(f"{path}events", json={"end": True})
    assert answer.status_code == 409
    assert answer.json()["error"] == "Stream 'cam' has ended; open a new one under another name."
    repeat = await world.client.post(f"{path}events", json={"end": True, "seq": 4})
    assert repeat.status_code == 202


async def test_the_document_lists_no_response_that_is_never_given(world: World) -> None:
    document = (await world.client.get("/openapi.json")).json()
    codes = {
        code
        for operations in document["paths"].values()
        for operation in operations.values()
        for code in operation["responses"]
    }
    assert "400" in codes
    assert "422" not in codes


async def test_a_stream_in_two_partitions_is_a_conflict_unless_one_is_named(world: World) -> None:
    url = "/v1/networks/digits/streams/s/results"
    await world.client.get(url, params={"wait": 0})
    for partition, value in ((1, 7), (3, 8)):
        world.reader.feed("digits", partition, result("s", [[value, 0, 0]]))
    answer = await world.client.get(url)
    assert answer.status_code == 409
    assert "is in partitions 1, 3" in answer.json()["error"]
    assert (await world.client.get(url, params={"partition": 3})).status_code == 200
