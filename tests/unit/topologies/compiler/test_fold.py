from collections.abc import Callable

import numpy as np
import pytest

from topologies.compiled import run_reference
from topologies.compiler import compile_network
from topologies.compiler.fold import fold
from topologies.model import Layer, Network, NetworkError, Source

Make = Callable[..., Network]
MakeLayer = Callable[..., Layer]
RNG = np.random.default_rng(0)
WEIGHT, BIAS = RNG.normal(size=(3, 2, 3, 3)), RNG.normal(size=3)
NORM = {
    "weight": RNG.normal(size=3),
    "bias": RNG.normal(size=3),
    "running_mean": RNG.normal(size=3),
    "running_var": RNG.uniform(0.5, 2.0, 3),
}


def arrays_of(
    network: Network, name: str
) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float64]]]:
    return dict(next(layer for layer in network.layers if layer.name == name).arrays)


def test_folded_weights_give_what_the_batch_norm_gave(
    make_network: Make, make_layer: MakeLayer
) -> None:
    network = make_network(
        make_layer("conv", "conv2d", "input", weight=WEIGHT, bias=BIAS),
        make_layer("norm", "batch_norm", "conv", eps=0.01, **NORM),
        shape=(2, 3, 3),
    )
    folded = fold(network)
    assert [layer.name for layer in folded.layers] == ["conv"]
    assert folded.output.source == "conv"
    x = RNG.normal(size=(2, 3, 3))
    before = (WEIGHT * x).sum(axis=(1, 2, 3)) + BIAS
    wanted = (before - NORM["running_mean"]) / np.sqrt(NORM["running_var"] + 0.01)
    wanted = wanted * NORM["weight"] + NORM["bias"]
    arrays = arrays_of(folded, "conv")
    assert np.allclose((arrays["weight"] * x).sum(axis=(1, 2, 3)) + arrays["bias"], wanted, 1e-12)


def test_batch_norm_without_scale_and_offset_only_normalises(
    make_network: Make, make_layer: MakeLayer
) -> None:
    statistics = {name: NORM[name] for name in ("running_mean", "running_var")}
    network = make_network(
        make_layer("conv", "conv2d", "input", weight=WEIGHT),
        make_layer("norm", "batch_norm", "conv", **statistics),
        shape=(2, 3, 3),
    )
    scale = 1.0 / np.sqrt(NORM["running_var"] + 1e-5)
    arrays = arrays_of(fold(network), "conv")
    assert np.array_equal(arrays["bias"], (0.0 - NORM["running_mean"]) * scale)


def test_batch_norm_behind_something_else_becomes_a_scale(
    make_network: Make, make_layer: MakeLayer
) -> None:
    network = make_network(
        make_layer("norm", "batch_norm", "input", eps=0.01, **NORM),
        make_layer("conv", "conv2d", "norm", weight=np.zeros((1, 3, 1, 1))),
        shape=(3, 3, 3),
    )
    scale = fold(network).layers[0]
    gain = NORM["weight"] / np.sqrt(NORM["running_var"] + 0.01)
    assert scale.kind == "scale"
    assert np.array_equal(scale.arrays["weight"], gain)
    assert np.allclose(scale.arrays["bias"], NORM["bias"] - NORM["running_mean"] * gain, 1e-12)


def test_batch_norm_of_sums_that_others_read_leaves_the_weights_alone(
    make_network: Make, make_layer: MakeLayer
) -> None:
    network = make_network(
        make_layer("conv", "conv2d", "input", weight=WEIGHT),
        make_layer("norm", "batch_norm", "conv", **NORM),
        make_layer("sum", "add", "conv", "norm"),
        shape=(2, 3, 3),
    )
    folded = fold(network)
    assert [layer.kind for layer in folded.layers] == ["conv2d", "scale", "add"]
    assert np.array_equal(arrays_of(folded, "conv")["weight"], WEIGHT)


def test_batch_norm_of_sums_that_the_readout_reads_leaves_the_weights_alone(
    make_network: Make, make_layer: MakeLayer
) -> None:
    norm = make_layer("norm", "batch_norm", "conv", **NORM)
    conv = make_layer("conv", "conv2d", "input", weight=WEIGHT)
    network = make_network(norm, make_layer("n", "if", "norm"), conv, shape=(2, 3, 3))
    assert [layer.kind for layer in fold(network).layers] == ["scale", "if", "conv2d"]


def test_batch_norms_in_a_row_are_folded_one_after_the_other(
    make_network: Make, make_layer: MakeLayer
) -> None:
    network = make_network(
        make_layer("conv", "conv2d", "input", weight=WEIGHT, bias=BIAS),
        make_layer("one", "batch_norm", "conv", **NORM),
        make_layer("two", "batch_norm", "one", **NORM),
        shape=(2, 3, 3),
    )
    folded = fold(network)
    assert [layer.name for layer in folded.layers] == ["conv"]
    gain = NORM["weight"] / np.sqrt(NORM["running_var"] + 1e-5)
    once = (BIAS - NORM["running_mean"]) * gain + NORM["bias"]
    twice = (once - NORM["running_mean"]) * gain + NORM["bias"]
    assert np.allclose(arrays_of(folded, "conv")["bias"], twice, 1e-12)


def test_batch_norm_with_another_number_of_channels_is_refused(
    make_network: Make, make_layer: MakeLayer
) -> None:
    network = make_network(
        make_layer("conv", "conv2d", "input", weight=WEIGHT[:2]),
        make_layer("norm", "batch_norm", "conv", **NORM),
        shape=(2, 3, 3),
    )
    with pytest.raises(NetworkError, match=r"layers\[1\] \(norm\): its arrays have 3 values"):
        compile_network(network)


@pytest.mark.parametrize(("axes", "shape"), [([-2, -1], (3, 3, 4)), (-1, (3, 12))])
def test_mean_over_axes_is_a_sum_whose_odd_divisor_the_next_weights_take(
    axes: object, shape: tuple[int, ...], make_network: Make, make_layer: MakeLayer
) -> None:
    weight = RNG.normal(size=(2, 3))
    network = make_network(
        make_layer("mean", "reduce", "input", axes=axes),
        make_layer("fc", "linear", "mean", weight=weight),
        shape=shape,
    )
    folded = fold(network)
    assert folded.layers[0].params["shift"] == 2
    assert np.array_equal(arrays_of(folded, "fc")["weight"], weight / 3.0)


def test_sum_over_axes_is_not_divided(make_network: Make, make_layer: MakeLayer) -> None:
    network = make_network(
        make_layer("sum", "reduce", "input", axes=-1, op="sum"),
        make_layer("n", "if", "sum"),
        shape=(2, 3),
    )
    assert "shift" not in fold(network).layers[0].params


def test_delay_layers_go_onto_the_edges_behind_them(
    make_network: Make, make_layer: MakeLayer
) -> None:
    network = make_network(
        make_layer("one", "delay", "input", steps=2),
        make_layer("two", "delay", Source("one", 1), steps=[3, 3, 3, 3]),
        make_layer("n", "if", "two"),
    )
    (neuron,) = fold(network).layers
    assert neuron.sources == (Source("input", 6),)


def test_delays_that_differ_and_delays_of_sums_remain_layers(
    make_network: Make, make_layer: MakeLayer
) -> None:
    network = make_network(
        make_layer("each", "delay", "input", steps=[0, 1, 2, 3]),
        make_layer("fc", "linear", "each", weight=np.eye(4)),
        make_layer("late", "delay", "fc", steps=1),
        make_layer("n", "if", "late"),
    )
    assert [layer.kind for layer in fold(network).layers] == ["delay", "linear", "delay", "if"]


def test_power_of_two_average_is_a_shifted_sum(make_network: Make, make_layer: MakeLayer) -> None:
    network = make_network(make_layer("p", "avg_pool", "input", kernel=[2, 4]), shape=(1, 4, 4))
    (pool,) = fold(network).layers
    assert (pool.kind, pool.params["shift"]) == ("sum_pool", 3)


def test_odd_divisor_goes_through_a_reshape_into_the_next_weights(
    make_network: Make, make_layer: MakeLayer
) -> None:
    weight = RNG.normal(size=(2, 4))
    network = make_network(
        make_layer("p", "avg_pool", "input", kernel=[3, 2]),
        make_layer("flat", "flatten", "p"),
        make_layer("fc", "linear", "flat", weight=weight, bias=np.ones(2)),
        shape=(1, 6, 4),
    )
    folded = fold(network)
    assert folded.layers[0].params["shift"] == 1
    assert np.array_equal(arrays_of(folded, "fc")["weight"], weight / 3.0)
    assert np.array_equal(arrays_of(folded, "fc")["bias"], np.ones(2))


def test_average_over_nine_is_exact_when_the_weights_take_it_up(
    make_network: Make, make_layer: MakeLayer
) -> None:
    network = make_network(
        make_layer("p", "avg_pool", "input", kernel=3),
        make_layer("conv", "conv2d", "p", weight=np.full((1, 1, 1, 1), 9.0)),
        shape=(1, 3, 3),
    )
    compiled = compile_network(network)
    spikes = np.ones((1, 4, 1, 3, 3), np.int64)
    assert run_reference(compiled, spikes)[0].tolist() == [[9.0]]


@pytest.mark.parametrize("reader", ["if", "count", "membrane"])
def test_odd_average_without_weights_behind_it_is_refused(
    reader: str, make_network: Make, make_layer: MakeLayer
) -> None:
    pool = make_layer("p", "avg_pool", "input", kernel=3)
    layers = [pool, make_layer("n", "if", "p")] if reader == "if" else [pool]
    readout = "mean" if reader == "if" else reader
    with pytest.raises(NetworkError, match="no power of two"):
        compile_network(make_network(*layers, shape=(1, 3, 3), readout=readout))


def test_mean_over_time_takes_up_the_divisor_of_an_odd_average(
    make_network: Make, make_layer: MakeLayer
) -> None:
    network = make_network(
        make_layer("p", "reduce", "input", axes=[-2, -1]), shape=(2, 3, 6), high=5.0
    )
    compiled = compile_network(network)
    values = RNG.integers(0, 6, (1, 4, 2, 3, 6))
    (result,) = run_reference(compiled, values)
    assert result.tolist() == [(values[0].sum(axis=(0, 2, 3)) / 72).astype(np.float32).tolist()]


def test_odd_average_added_to_something_else_is_refused(
    make_network: Make, make_layer: MakeLayer
) -> None:
    network = make_network(
        make_layer("p", "avg_pool", "input", kernel=3, stride=1, padding=1),
        make_layer("sum", "add", "p", "input"),
        shape=(1, 3, 3),
    )
    with pytest.raises(NetworkError, match="no power of two"):
        fold(network)
