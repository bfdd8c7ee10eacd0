from collections.abc import Callable

import numpy as np

from topologies.compiled import run_reference
from topologies.compiler import compile_with_errors
from topologies.compiler.report import make_report
from topologies.compiler.saturation import Saturation, counting
from topologies.model import Layer, Network
from topologies.trials import Trial

Make = Callable[..., Network]
MakeLayer = Callable[..., Layer]
EYE = np.eye(4)


def chain(make_network: Make, make_layer: MakeLayer, bits: int) -> Network:
    """Four values, of which the third doubles, on a grid of whole numbers of `bits`."""
    weight = np.diag([1.0, 1.0, 2.0, 0.5])
    return make_network(
        make_layer("w", "linear", "input", weight=weight),
        make_layer("x", "requantise", "w", unit=0, bits=bits, saturate=True),
        make_layer("n", "if", "x"),
        high=5.0,
    )


def test_layers_whose_bound_exceeds_their_bits_are_named(
    make_network: Make, make_layer: MakeLayer
) -> None:
    for bits, names in ((3, ["x"]), (16, [])):
        network = chain(make_network, make_layer, bits)
        report = make_report(network, compile_with_errors(network))
        assert [found.layer for found in report.saturating] == names


def test_values_that_are_cut_off_on_samples_are_counted(
    make_network: Make, make_layer: MakeLayer
) -> None:
    network = chain(make_network, make_layer, 3)
    samples = np.zeros((1, 4, 4), np.int64)
    samples[0, :2] = [3, 4, 2, 5]  # of 3, 4, 4 and 2.5, two are above 3
    report = make_report(network, compile_with_errors(network), Trial(tuple(samples)))
    assert report.saturating == (Saturation("x", -3, 3, 0, n_values=16, n_saturated=4),)


def test_counting_changes_no_bit(make_network: Make, make_layer: MakeLayer) -> None:
    compiled = compile_with_errors(chain(make_network, make_layer, 3)).network
    counted, counts = counting(compiled)
    samples = np.full((2, 4, 4), 4)
    mine, theirs = run_reference(counted, samples), run_reference(compiled, samples)
    assert [a.tobytes() for a in mine] == [b.tobytes() for b in theirs]
    assert sum(found.n_values for found in counts.values()) == 32
