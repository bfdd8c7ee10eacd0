from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from topologies.compiled import run_reference
from topologies.compiler import compile_network, compile_with_errors
from topologies.compiler.quantise import Bits
from topologies.model import Layer, Network, NetworkError, Source
from topologies.stages.base import Array

Make = Callable[..., Network]
MakeLayer = Callable[..., Layer]
Grid = Callable[..., tuple[Array, Array, int, str]]


@pytest.fixture
def grid(make_network: Make, make_layer: MakeLayer) -> Grid:
    """(weight, bias, shift, accumulator) of a linear with these float weights."""

    def compiled(weight: Any, bias: Any = None, bits: Bits = "auto", high: float = 1.0) -> Any:
        w = np.asarray(weight, np.float64)
        b = np.zeros(len(w)) if bias is None else bias
        fc = make_layer("fc", "linear", "input", weight=w, bias=b)
        network = make_network(fc, make_layer("n", "if", "fc"), shape=w.shape[1:], high=high)
        (stage,) = (
            stage
            for operator in compile_network(network, bits=bits).operators.values()
            for stage in operator.program.stages
            if stage.kind == "linear"
        )
        params, arrays = stage.params(), stage.arrays()
        return arrays["weight"], arrays["bias"], params["shift"], params["accumulator"]

    return compiled


def test_largest_weight_fills_the_bits(grid: Grid) -> None:
    weight, _, shift, _ = grid([[0.7, -0.3, 0.01]], bits=8)
    assert shift == 7
    assert weight.tolist() == [[90, -38, 1]]
    assert weight.dtype == np.int8


def test_rounding_is_half_to_even(grid: Grid) -> None:
    weight, _, shift, _ = grid([[0.5, 1.5, 2.5, -2.5, 127.0]], bits=8)
    assert shift == 0
    assert weight.tolist() == [[0, 2, 2, -2, 127]]


def test_weight_that_would_round_past_the_range_takes_a_coarser_scale(grid: Grid) -> None:
    weight, _, shift, _ = grid([[127.6, 1.9]], bits=8)
    assert (shift, weight.tolist()) == (-1, [[64, 1]])


def test_weights_that_are_on_a_coarse_grid_already_keep_it(grid: Grid) -> None:
    weight, _, shift, _ = grid([[0.5, -0.25, 0.0]])
    assert (shift, weight.tolist()) == (2, [[2, -1, 0]])


def test_coarser_grid_never_costs_a_bias_its_bits(grid: Grid) -> None:
    _, bias, shift, _ = grid([[0.5, -0.25]], bias=[0.125])
    assert bias.tolist() == [0.125 * 2**shift]


def test_zero_weights_are_legal(grid: Grid) -> None:
    weight, bias, shift, _ = grid([[0.0, 0.0]], bias=[1.0])
    assert (weight.tolist(), bias.tolist(), shift) == ([[0, 0]], [1], 0)


@pytest.mark.parametrize(
    ("fan_in", "bits", "accumulator"),
    [(100, 16, "float32"), (1000, 15, "float32"), (6000, 12, "float32"), (20000, 16, "int32")],
)
def test_auto_takes_the_most_bits_that_float32_sums_hold(
    fan_in: int, bits: int, accumulator: str, grid: Grid
) -> None:
    weight, _, _, used = grid(np.linspace(0.5, 0.999, fan_in)[None])
    assert int(np.abs(weight).max()).bit_length() + 1 == bits
    assert used == accumulator


def test_number_forces_the_bits_whatever_the_accumulator(grid: Grid) -> None:
    weight, _, _, accumulator = grid(np.linspace(0.5, 0.999, 1000)[None], bits=16)
    assert int(np.abs(weight).max()).bit_length() + 1 == 16
    assert accumulator == "int32"


def test_range_of_the_input_is_part_of_the_bound(grid: Grid) -> None:
    row = np.linspace(0.5, 0.999, 100)[None]
    assert grid(row, bits=16, high=1.0)[3] == "float32"
    assert grid(row, bits=16, high=255.0)[3] == "int32"
    assert grid(row, bits=16, high=2.0**17)[3] == "float64"


def test_sum_that_no_accumulator_holds_is_refused_at_its_layer(
    make_network: Make, make_layer: MakeLayer
) -> None:
    weight = np.linspace(0.5, 0.999, 1000)[None]
    fc = make_layer("fc", "linear", "input", weight=weight)
    network = make_network(fc, make_layer("n", "if", "fc"), shape=(1000,), high=float(2**31 - 1))
    with pytest.raises(NetworkError, match=r"layers\[0\] \(fc\): A sum may reach"):
        compile_network(network, bits=31)


def test_enormous_bias_is_refused_at_its_layer(make_network: Make, make_layer: MakeLayer) -> None:
    fc = make_layer("fc", "linear", "input", weight=np.full((1, 4), 0.7), bias=[1e30])
    with pytest.raises(NetworkError, match=r"layers\[0\] \(fc\): A bias of 1e\+30"):
        compile_network(make_network(fc))


def test_weights_that_are_summed_share_one_scale(make_network: Make, make_layer: MakeLayer) -> None:
    network = make_network(
        make_layer("big", "linear", "input", weight=np.full((4, 4), 0.9)),
        make_layer("small", "linear", "input", weight=np.full((4, 4), 0.01)),
        make_layer("sum", "add", "big", "small"),
        make_layer("n", "if", "sum"),
        make_layer("own", "linear", "n", weight=np.full((4, 4), 0.01)),
    )
    errors = {e.layer: e.shift for e in compile_with_errors(network, bits=8).quantised.errors}
    assert errors["big"] == errors["small"] == 7
    assert errors["own"] > 7


def test_worst_weight_error_is_at_most_half_a_grid_unit(
    make_network: Make, make_layer: MakeLayer
) -> None:
    weight = np.random.default_rng(0).normal(size=(4, 4))
    network = make_network(make_layer("fc", "linear", "input", weight=weight))
    (error,) = compile_with_errors(network, bits=10).quantised.errors
    assert 0.0 < error.worst <= 2.0 ** -(error.shift + 1)
    assert error.largest == np.abs(weight).max()


def test_chained_linear_layers_multiply_their_units(
    make_network: Make, make_layer: MakeLayer
) -> None:
    network = make_network(
        make_layer("one", "linear", "input", weight=np.eye(4) * 0.75),
        make_layer("two", "linear", "one", weight=np.eye(4) * 0.625, bias=np.full(4, 0.25)),
    )
    spikes = np.zeros((1, 4, 4), np.int64)
    spikes[:, :, 1] = 1
    wanted = [[0.25, 0.25 + 0.75 * 0.625, 0.25, 0.25]]
    assert run_reference(compile_network(network), spikes)[0].tolist() == wanted


def test_values_that_no_edge_carries_are_refused(make_network: Make, make_layer: MakeLayer) -> None:
    network = make_network(
        make_layer("product", "multiply", "input", "input"),
        make_layer("late", "if", Source("product", 1)),
        high=float(2**20),
    )
    with pytest.raises(NetworkError, match="product: An edge carries at most 32-bit integers"):
        compile_network(network)


@pytest.mark.parametrize("unit", [4, 12])
def test_membrane_shortcut_is_the_sum_rounded_to_its_grid(
    unit: int, make_network: Make, make_layer: MakeLayer
) -> None:
    network = make_network(
        make_layer("w", "linear", "input", weight=np.eye(4) / 3.0),
        make_layer("x", "requantise", "w", unit=unit),
        make_layer("sum", "add", "x", "input"),
        make_layer("y", "requantise", "sum", unit=unit),
    )
    spikes = np.ones((1, 4, 4), np.int64)
    (result,) = run_reference(compile_network(network), spikes)
    k = np.rint(np.rint(2.0**15 / 3.0) / 2.0 ** (15 - unit))
    assert result.tolist() == [[1.0 + k / 2.0**unit] * 4]


def test_membrane_that_reads_itself_takes_its_declared_range(
    make_network: Make, make_layer: MakeLayer
) -> None:
    network = make_network(
        make_layer("sum", "add", "input", Source("x", 1)),
        make_layer("x", "requantise", "sum", unit=0, bits=4, saturate=True),
    )
    compiled = compile_network(network)
    spikes = np.ones((1, 20, 4), np.int64)
    (result,) = run_reference(compiled, spikes)
    counted = np.minimum(np.arange(1, 21), 7).mean()
    assert result.tolist() == [[float(np.float32(counted))] * 4]
