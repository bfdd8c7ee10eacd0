from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from tests.unit.topologies.importers.graphs import (
    affine,
    graph,
    imported,
    lif,
    perfect,
    ports,
)
from topologies.compiler.compile import compile_with_errors
from topologies.importers.build import Face
from topologies.importers.from_nir import import_nir
from topologies.importers.to_nir import export_nir
from topologies.importers.trace import trace
from topologies.loader import load_network
from topologies.model import Input, Layer, Network, NetworkError, Output, Source
from topologies.stages.base import Array

RNG = np.random.default_rng(0)
DT = 2.0**-13


def fractions(*shape: int) -> Array:
    return np.round(RNG.normal(size=shape) * 16) / 16


def network(
    *layers: Layer, shape: Sequence[int] = (6,), readout: str = "count", **params: Any
) -> Network:
    encoder = Input("net", tuple(shape), "events")
    return Network("net", encoder, layers, Output(readout, layers[-1].name, params))


def layer(name: str, kind: str, *sources: Any, **given: Any) -> Layer:
    read = tuple(s if isinstance(s, Source) else Source(s) for s in sources)
    arrays = {k: np.asarray(v, float) for k, v in given.pop("arrays", {}).items()}
    return Layer(name, kind, read, given, arrays)


def results(net: Network, values: Array) -> Array:
    stages = compile_with_errors(net).quantised.stages
    return trace(stages, values, values.shape[1], set()).results[:, -1]


def assert_round_trip(net: Network, exact: bool = True) -> None:
    """The exported graph, read again as it says, answers as the network does."""
    exported = export_nir(net, DT)
    face = Face("net", readout=net.output.readout, readings=net.output.params)
    if net.output.readout in ("leaky", "membrane"):
        face = Face("net")
    again = import_nir(exported.document, face, exported.options).network
    values = (np.random.default_rng(1).random((4, 40, *net.input.shape)) < 0.4).astype(np.int64)
    mine, theirs = results(net, values), results(again, values)
    assert mine.shape == theirs.shape
    assert np.abs(mine).max() > 0
    if exact:
        assert np.array_equal(mine, theirs)
    else:
        assert np.abs(mine - theirs).mean() <= 0.02 * np.abs(mine).mean()


NEURONS: dict[str, dict[str, Any]] = {
    "if": {"kind": "if", "v_threshold": 0.7, "v_reset": -0.25},
    "if soft": {"kind": "if", "v_threshold": 0.7},
    "spikingjelly": {"kind": "lif", "tau": 4.0, "v_reset": 0.0, "v_threshold": 0.3},
    "spikingjelly, input not decayed": {"kind": "lif", "tau": 4.0, "decay_input": False},
    "snntorch": {"kind": "lif", "form": "snntorch", "beta": 0.75, "v_threshold": 0.7},
    "snntorch to zero": {
        "kind": "lif",
        "form": "snntorch",
        "beta": 0.75,
        "v_threshold": 0.7,
        "v_reset": 0.0,
        "reset_delayed": False,
    },
    "norse": {"kind": "lif", "form": "norse", "v_threshold": 0.2, "v_leak": 0.1, "v_reset": 0.0},
    "plain": {"kind": "lif", "form": "plain", "decay": 0.75, "v_threshold": 0.7},
    "plif": {"kind": "plif", "tau_inv": 0.25, "v_threshold": 0.3},
    "cubalif": {"kind": "cubalif", "decay": 0.75, "decay_syn": 0.5, "v_threshold": 0.7, "r": 0.5},
    "cubalif of norse": {"kind": "cubalif", "form": "norse", "v_threshold": 0.2, "v_reset": 0.0},
    "cubalif of snntorch": {"kind": "cubalif", "form": "snntorch", "alpha": 0.5, "beta": 0.75},
    "multispike": {"kind": "multispike", "max_spikes": 3, "decay": 0.75, "v_threshold": 0.5},
    "multispike without leak": {"kind": "multispike", "max_spikes": 3, "w_in": 0.5},
}


@pytest.mark.parametrize("name", NEURONS)
def test_neurons_fire_as_before(name: str) -> None:
    given = dict(NEURONS[name])
    fc = layer("fc", "linear", "input", arrays={"weight": fractions(9, 6), "bias": fractions(9)})
    # The constants go through dt / tau, and round otherwise.
    assert_round_trip(network(fc, layer("n", given.pop("kind"), "fc", **given)), exact=False)


def test_convolutions_and_pools_compute_what_they_did() -> None:
    arrays = {"weight": fractions(4, 1, 3, 3), "bias": fractions(4)}
    norm = {"running_mean": fractions(4), "running_var": np.ones(4)}
    assert_round_trip(
        network(
            layer("conv", "conv2d", "input", padding=1, stride=[1, 2], arrays=arrays),
            layer("norm", "batch_norm", "conv", arrays=norm, eps=0.25),
            layer("n1", "if", "norm", v_threshold=0.5),
            layer("mean", "avg_pool", "n1", kernel=2),
            layer("sum", "sum_pool", "mean", kernel=[2, 1]),
            layer("flat", "flatten", "sum"),
            layer("fc", "linear", "flat", arrays={"weight": fractions(5, 16)}),
            layer("n2", "if", "fc"),
            shape=(1, 8, 8),
        ),
        exact=False,
    )


def recurrent(*, delay: int, bias: float = 0.25) -> Network:
    back = {"weight": fractions(9, 9) / 4, "bias": np.full(9, bias)}
    return network(
        layer("fc", "linear", "input", arrays={"weight": fractions(9, 6)}),
        layer("back", "linear", Source("n", delay), arrays=back),
        layer("sum", "add", "fc", "back"),
        layer("n", "if", "sum", v_threshold=1.0),
    )


@pytest.mark.parametrize("delay", [1, 3])
def test_recurrence_keeps_its_delay(delay: int) -> None:
    net = recurrent(delay=delay)
    assert_round_trip(net)
    kinds = [fields["type"] for fields in export_nir(net, DT).document["nodes"].values()]
    assert ("Delay" in kinds) == (delay > 1)


def test_cycle_over_two_neurons_keeps_its_delay_where_it_is() -> None:
    net = network(
        layer("fc", "linear", "input", arrays={"weight": fractions(9, 6)}),
        layer("back", "linear", Source("b", 1), arrays={"weight": fractions(9, 9) / 4}),
        layer("sum", "add", "fc", "back"),
        layer("a", "if", "sum"),
        layer("b", "if", "a", v_threshold=2.0),
    )
    assert_round_trip(net)


def test_delays_of_each_value_are_kept() -> None:
    net = network(
        layer("late", "delay", "input", steps=[0, 1, 2, 3, 4, 5]),
        layer("fc", "linear", "late", arrays={"weight": fractions(9, 6)}),
        layer("n", "if", "fc"),
    )
    assert_round_trip(net)


@pytest.mark.parametrize(
    ("readout", "params", "exact"),
    [
        ("leaky", {"decay": 0.75}, False),
        ("membrane", {"decay": 0.75}, False),
        ("membrane", {"decay": 1.0}, True),
    ],
)
def test_leaky_readout_becomes_an_integrator(
    readout: str, params: dict[str, Any], exact: bool
) -> None:
    fc = layer("fc", "linear", "input", arrays={"weight": fractions(5, 6)})
    assert_round_trip(network(fc, readout=readout, **params), exact)


def test_integrator_layer_is_kept() -> None:
    fc = layer("fc", "linear", "input", arrays={"weight": fractions(5, 6)})
    cuba = layer("li", "integrator", "fc", decay=0.75, decay_syn=0.5, r=0.25)
    assert_round_trip(network(fc, cuba, readout="membrane", decay=0.0), exact=False)


def test_network_that_was_imported_is_exported_as_it_was() -> None:
    nodes = {**ports(3, 2), "fc": affine(fractions(2, 3)), "n": lif(2), "d": perfect(2)}
    document = graph(nodes, "input fc n d output")
    again = export_nir(imported(document).network, 1.0)
    assert [(k, v["type"]) for k, v in again.document["nodes"].items()] == [
        *(("input", "Input"), ("fc", "Linear"), ("n", "LIF"), ("d", "IF"), ("output", "Output")),
    ]
    assert np.allclose(again.document["nodes"]["n"]["tau"], 2.0)
    assert (again.options.reset, again.options.fire) == ("file", ">")


@pytest.mark.parametrize(
    ("bad", "sentence"),
    [
        (layer("x", "alif", "fc", decay=0.5, rho=0.5, beta=1.0), "NIR has no alif: it has add"),
        (layer("x", "reshape", "fc", shape=[3, 3]), "NIR flattens, and does not reshape to"),
        (
            layer("x", "scale", "fc", arrays={"weight": [1.0], "bias": [1.0]}),
            "NIR's Scale has no offset",
        ),
        (
            layer("x", "cubalif", "fc", decay=1.0, decay_syn=0.5),
            "never decays has no time constant",
        ),
        (
            layer("x", "lif", "fc", form="snntorch", beta=0.5, v_reset=0.0),
            "no name for a reset to zero that is delayed",
        ),
    ],
)
def test_layers_that_nir_cannot_say_are_refused_by_name(bad: Layer, sentence: str) -> None:
    fc = layer("fc", "linear", "input", arrays={"weight": fractions(9, 6)})
    with pytest.raises(NetworkError, match=rf"layers\[1\] \(x\): .*{sentence}"):
        export_nir(network(fc, bad), DT)


@pytest.mark.parametrize(
    ("params", "sentence"),
    [({}, "one reset for all neurons, but: a file, b subtract"), ({"fire": ">"}, "one fire for")],
)
def test_resets_that_differ_are_refused(params: dict[str, Any], sentence: str) -> None:
    a = layer("a", "if", "input", **({} if params else {"v_reset": 0.0}))
    with pytest.raises(NetworkError, match=sentence):
        export_nir(network(a, layer("b", "if", "a", **params)), DT)


def test_digits_network_of_the_zoo_is_written() -> None:
    exported = export_nir(load_network("scnn_digits"), 1e-4)
    assert "NIR says nothing of the readout 'mean'" in exported.notes[0]
    kinds = {fields["type"] for fields in exported.document["nodes"].values()}
    assert kinds == {"Input", "Conv2d", "LIF", "AvgPool2d", "Flatten", "Affine", "Output"}
