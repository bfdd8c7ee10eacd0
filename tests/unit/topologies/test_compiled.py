from dataclasses import replace

import numpy as np
import pytest

from topologies.artifact import ArtifactError
from topologies.compiled import (
    CompiledNetwork,
    Edge,
    ManifestError,
    Operator,
    Program,
    node_id,
    run_reference,
)
from topologies.compiler import compile_network
from topologies.samples import dense_network, random_spikes
from topologies.stages.base import Array, StageError, ValueType
from topologies.stages.linear import Linear
from topologies.stages.neuron import If
from topologies.stages.pool import MaxPool


@pytest.fixture(scope="module")
def network() -> CompiledNetwork:
    return compile_network(dense_network((20, 12, 8, 4), n_steps=5))


def artifacts(network: CompiledNetwork) -> dict[str, bytes]:
    return {oid: operator.to_bytes() for oid, operator in network.operators.items()}


def linear(n_out: int = 2) -> Linear:
    return Linear(np.ones((n_out, 3), np.int8), np.zeros(n_out, np.int64), 0, "float32")


def program(*stages: Linear | If | MaxPool) -> Program:
    reads = tuple((index - 1,) for index in range(len(stages)))
    return Program((ValueType((3,), 0, 1),), stages, reads)


def test_operator_comes_back_from_its_artifact(network: CompiledNetwork) -> None:
    for operator in network.operators.values():
        again = Operator.from_bytes(operator.to_bytes(), operator.id)
        assert (again.id, again.kind, again.output) == (operator.id, operator.kind, operator.output)


def test_artifact_of_another_operator_is_refused(network: CompiledNetwork) -> None:
    first, second, *_ = network.operators.values()
    with pytest.raises(ArtifactError, match="damaged or of another version"):
        Operator.from_bytes(first.to_bytes(), second.id)


def test_changed_weight_changes_the_id(network: CompiledNetwork) -> None:
    data = bytearray(list(network.operators.values())[1].to_bytes())
    data[-1] ^= 1
    with pytest.raises(ArtifactError, match="damaged"):
        Operator.from_bytes(bytes(data), list(network.operators)[1])


def test_artifact_in_another_spelling_is_refused(network: CompiledNetwork) -> None:
    data = list(network.operators.values())[1].to_bytes()
    length = int.from_bytes(data[:8], "little")
    spaced = (
        (length + 8).to_bytes(8, "little") + data[8 : 8 + length] + b" " * 8 + data[8 + length :]
    )
    with pytest.raises(ArtifactError, match="operator's"):
        Operator.from_bytes(spaced)


def test_stages_that_do_not_fit_make_no_operator() -> None:
    with pytest.raises(StageError, match="channels, height, width"):
        Operator.of(program(linear(), If(), MaxPool((2, 2), (2, 2))))


def test_stage_that_reads_a_later_one_is_refused() -> None:
    with pytest.raises(StageError, match="no such stage before it"):
        Operator.of(Program((ValueType((3,), 0, 1),), (linear(),), ((0,),)))


def test_network_comes_back_from_manifest_and_artifacts(network: CompiledNetwork) -> None:
    again = CompiledNetwork.from_bytes(network.to_bytes(), artifacts(network))
    assert again.version == network.version
    spikes = random_spikes(2, 5, 20, 0.3)
    for one, other in zip(
        run_reference(again, spikes), run_reference(network, spikes), strict=True
    ):
        assert np.array_equal(one, other)


def test_manifest_alone_knows_everything_but_weights(network: CompiledNetwork) -> None:
    again = CompiledNetwork.from_bytes(network.to_bytes())
    assert again.operators == {}
    assert (again.nodes, again.groups, again.input) == (
        network.nodes,
        network.groups,
        network.input,
    )
    assert again.summaries == network.summaries
    assert again.outputs == network.outputs
    assert again.labels == network.labels


def test_manifest_alone_knows_which_operators_are_not_portable(network: CompiledNetwork) -> None:
    first, second, *_ = network.nodes.values()
    foreign = replace(network.summaries[second.operator], extras=("brian2",))
    summaries = {**network.summaries, foreign.id: foreign}
    changed = replace(network, operators={}, summaries=summaries)
    again = CompiledNetwork.from_bytes(changed.to_bytes())
    assert again.summaries == summaries
    assert again.not_portable == (network.labels[second.id],)
    assert again.version != network.version
    assert again.summaries[first.operator].extras == ()


def test_manifest_of_a_portable_network_says_nothing_of_extras(network: CompiledNetwork) -> None:
    assert network.not_portable == ()
    assert b"extras" not in network.to_bytes()


def test_missing_artifact_is_refused(network: CompiledNetwork) -> None:
    some = artifacts(network)
    some.pop(next(iter(some)))
    with pytest.raises(ManifestError, match="misses the artifacts"):
        CompiledNetwork.from_bytes(network.to_bytes(), some)


@pytest.mark.parametrize("damage", [b"", b"\x00", b"\x81\xa1v\x02", b"\xff" * 9])
def test_damaged_manifest_is_refused(damage: bytes) -> None:
    with pytest.raises(ManifestError):
        CompiledNetwork.from_bytes(damage)


def test_truncated_manifest_is_refused(network: CompiledNetwork) -> None:
    data = network.to_bytes()
    for length in range(0, len(data), 37):
        with pytest.raises(ManifestError):
            CompiledNetwork.from_bytes(data[:length])


def test_version_changes_with_the_cut(network: CompiledNetwork) -> None:
    oid = next(oid for oid, s in network.summaries.items() if s.kind == "synaptic")
    (whole,) = network.groups[oid]
    halves = (replace(whole, hi=6), replace(whole, index=1, lo=6))
    assert replace(network, groups={**network.groups, oid: halves}).version != network.version


def test_node_depends_on_delay_and_order_of_edges() -> None:
    a, b = Edge("a"), Edge("b")
    assert node_id("op", [a, b]) != node_id("op", [b, a])
    assert node_id("op", [a]) != node_id("op", [Edge("a", 1)])
    assert node_id("op", [], "one") != node_id("op", [], "two")


@pytest.mark.parametrize("window", [1, 2, 3, 5])
def test_windows_do_not_change_a_bit(network: CompiledNetwork, window: int) -> None:
    spikes = random_spikes(3, 5, 20, 0.3)
    for one, other in zip(
        run_reference(network, spikes, window=window), run_reference(network, spikes), strict=True
    ):
        assert np.array_equal(one, other)


def test_streams_do_not_see_each_other(network: CompiledNetwork) -> None:
    spikes = random_spikes(3, 5, 20, 0.3)
    alone: list[Array] = [run_reference(network, spikes[b : b + 1])[0] for b in range(3)]
    assert all(
        np.array_equal(a, b) for a, b in zip(alone, run_reference(network, spikes), strict=True)
    )
