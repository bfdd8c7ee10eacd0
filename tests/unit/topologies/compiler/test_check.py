from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from topologies.compiler import compile_network
from topologies.compiler.check import check_network
from topologies.model import Layer, Network, NetworkError, Output, Source

Make = Callable[..., Network]
MakeLayer = Callable[..., Layer]
EYE = np.eye(4)


def faults(network: Network) -> dict[str, str]:
    return {fault.place: fault.message for fault in check_network(network)}


def test_legal_network_has_no_fault(make_network: Make, make_layer: MakeLayer) -> None:
    fc = make_layer("fc", "linear", "input", weight=EYE)
    assert faults(make_network(fc, make_layer("n", "if", "fc"))) == {}


def test_faults_of_all_kinds_are_reported_at_once(
    make_network: Make, make_layer: MakeLayer
) -> None:
    network = make_network(
        make_layer("fc", "linear", "nobody", weight=np.full((4, 4), np.nan)),
        make_layer("lif", "lif", "fc", tau=0.5),
        make_layer("lif", "if", "fc"),
        make_layer("sum", "add", "fc"),
    )
    network = replace(network, name="no spaces", output=Output("average", "sum"))
    found = faults(network)
    assert set(found) == {
        "name",
        "output.readout",
        "layers[0] (fc).from",
        "layers[0] (fc).weights",
        "layers[1] (lif)",
        "layers[1].name",
        "layers[2].name",
        "layers[3] (sum).from",
    }


def test_compiling_reports_all_faults_in_one_error(
    make_network: Make, make_layer: MakeLayer
) -> None:
    network = make_network(make_layer("a", "wrong", "input"), make_layer("b", "other", "a"))
    with pytest.raises(NetworkError, match="2 faults of network 'net'") as caught:
        compile_network(network)
    assert len(caught.value.faults) == 2


@pytest.mark.parametrize(
    ("kind", "params", "legal"),
    [
        ("linear", {}, "'weight' of this linear is missing"),
        ("linear", {"weight": np.zeros(4)}, "2 dimensions"),
        ("linear", {"weight": EYE, "bias": np.zeros(3)}, r"legal is \[4\]"),
        ("conv2d", {"weight": np.zeros((3, 1, 1, 1)), "groups": 2}, "do not divide"),
        ("conv2d", {"weight": np.zeros((3, 1, 1, 1)), "stride": 0}, "from 1 on"),
        ("if", {"weight": EYE}, "'weight' is unknown: legal are v_threshold, v_reset"),
        ("max_pool", {"weight": EYE, "kernel": 2}, "legal are none"),
        ("max_pool", {}, "needs 'kernel'"),
        ("reshape", {}, "needs the shape"),
        ("if", {"v_threshold": -1.0}, "above 0"),
    ],
)
def test_illegal_layer_is_refused(
    kind: str, params: dict[str, Any], legal: str, make_network: Make, make_layer: MakeLayer
) -> None:
    with pytest.raises(NetworkError, match=legal):
        compile_network(make_network(make_layer("x", kind, "input", **params)))


def test_shapes_that_do_not_fit_are_named_at_their_layer(
    make_network: Make, make_layer: MakeLayer
) -> None:
    fc = make_layer("fc", "linear", "input", weight=np.zeros((2, 5)))
    assert "reads 5 values" in faults(make_network(fc))["layers[0] (fc)"]


def test_add_of_two_shapes_is_refused(make_network: Make, make_layer: MakeLayer) -> None:
    network = make_network(
        make_layer("fc", "linear", "input", weight=np.zeros((2, 4))),
        make_layer("sum", "add", "fc", "input"),
    )
    assert "one shape" in faults(network)["layers[1] (sum)"]


def test_cycle_without_a_delay_is_refused(make_network: Make, make_layer: MakeLayer) -> None:
    network = make_network(
        make_layer("sum", "add", "input", "n"), make_layer("n", "if", "sum"), longest_window=1
    )
    assert "must pass a delay" in faults(network)["layers"]


def test_delay_of_sums_is_refused_for_they_do_not_travel(
    make_network: Make, make_layer: MakeLayer
) -> None:
    network = make_network(
        make_layer("fc", "linear", "input", weight=EYE), make_layer("n", "if", Source("fc", 1))
    )
    assert "no spikes to delay" in faults(network)["layers[1] (n).from"]


def test_input_and_sums_of_spikes_may_be_delayed(make_network: Make, make_layer: MakeLayer) -> None:
    network = make_network(
        make_layer("both", "add", "input", Source("input", 2)),
        make_layer("n", "if", Source("both", 1)),
    )
    assert faults(network) == {}


def test_delay_layer_opens_a_cycle(make_network: Make, make_layer: MakeLayer) -> None:
    layers = (
        make_layer("sum", "add", "input", "late"),
        make_layer("n", "if", "sum"),
        make_layer("late", "delay", "n", steps=1),
        make_layer("out", "if", "n"),
    )
    assert faults(make_network(*layers, longest_window=1)) == {}


def test_delay_layer_of_no_steps_opens_no_cycle(make_network: Make, make_layer: MakeLayer) -> None:
    layers = (
        make_layer("sum", "add", "input", "late"),
        make_layer("n", "if", "sum"),
        make_layer("late", "delay", "n", steps=0),
        make_layer("out", "if", "n"),
    )
    assert "must pass a delay" in faults(make_network(*layers))["layers"]


def test_layer_that_nobody_reads_is_refused(make_network: Make, make_layer: MakeLayer) -> None:
    network = make_network(make_layer("idle", "if", "input"), make_layer("n", "if", "input"))
    assert "reads this layer" in faults(network)["layers[0] (idle)"]


def test_wrong_number_of_labels_is_refused(make_network: Make, make_layer: MakeLayer) -> None:
    network = make_network(make_layer("n", "if", "input"))
    network = replace(network, output=Output("mean", "n", labels=("a", "b")))
    assert "2 labels for 4 values" in faults(network)["output.labels"]


@pytest.mark.parametrize("bits", [1, 32, "all"])
def test_illegal_bits_are_refused(bits: Any, make_network: Make, make_layer: MakeLayer) -> None:
    with pytest.raises(NetworkError, match="from 2 to 31"):
        compile_network(make_network(make_layer("n", "if", "input")), bits=bits)


def test_illegal_granularity_is_refused(make_network: Make, make_layer: MakeLayer) -> None:
    with pytest.raises(NetworkError, match="model, stage, layer, group"):
        compile_network(
            make_network(make_layer("n", "if", "input")),
            granularity="neuron",  # type: ignore[arg-type]
        )
