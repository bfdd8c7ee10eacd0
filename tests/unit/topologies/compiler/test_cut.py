from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from topologies.compiled import CompiledNetwork, run_reference
from topologies.compiler import compile_network
from topologies.compiler.cut import Granularity
from topologies.model import Layer, Network, Source

Make = Callable[..., Network]
MakeLayer = Callable[..., Layer]
Labels = Callable[..., list[str]]
EYE = np.eye(4)
CONV = np.ones((1, 1, 1, 1))


@pytest.fixture
def labels(make_network: Make) -> Labels:
    """What stands in each operator."""

    def cut(
        *layers: Layer,
        granularity: Granularity = "layer",
        readout: str = "mean",
        shape: tuple[int, ...] = (4,),
    ) -> list[str]:
        network = make_network(*layers, readout=readout, shape=shape)
        compiled = compile_network(network, granularity=granularity)
        return [compiled.labels[nid] for nid in compiled.nodes]

    return cut


def chain(make_layer: MakeLayer, n: int) -> list[Layer]:
    layers = []
    source = "input"
    for i in range(n):
        layers.append(make_layer(f"w{i}", "linear", source, weight=EYE * (i + 1)))
        layers.append(make_layer(f"n{i}", "if", f"w{i}"))
        source = f"n{i}"
    return layers


def test_layer_cuts_behind_every_neuron_layer(labels: Labels, make_layer: MakeLayer) -> None:
    assert labels(*chain(make_layer, 3)) == ["input", "w0+n0", "w1+n1", "w2+n2+mean"]


def test_model_is_one_operator_behind_ingest(labels: Labels, make_layer: MakeLayer) -> None:
    cut = labels(*chain(make_layer, 3), granularity="model")
    assert cut == ["input", "w0+n0+w1+n1+w2+n2+mean"]


def test_stage_fuses_layers_of_the_same_size(labels: Labels, make_layer: MakeLayer) -> None:
    layers = [
        make_layer("c0", "conv2d", "input", weight=CONV),
        make_layer("n0", "if", "c0"),
        make_layer("c1", "conv2d", "n0", weight=CONV),
        make_layer("n1", "if", "c1"),
        make_layer("p1", "max_pool", "n1", kernel=2),
        make_layer("c2", "conv2d", "p1", weight=CONV),
        make_layer("n2", "if", "c2"),
        make_layer("flat", "flatten", "n2"),
        make_layer("fc", "linear", "flat", weight=EYE),
    ]
    cut = labels(*layers, granularity="stage", shape=(1, 4, 4))
    assert cut == ["input", "c0+n0+c1+n1+p1", "c2+n2", "flat+fc+mean"]


def test_declared_stages_are_followed(labels: Labels, make_layer: MakeLayer) -> None:
    layers = chain(make_layer, 3)
    layers[1], layers[3] = replace(layers[1], stage="a"), replace(layers[3], stage="a")
    cut = labels(*layers, granularity="stage")
    assert cut == ["input", "w0+n0+w1+n1", "w2+n2+mean"]


def test_pool_goes_with_the_neurons_that_only_it_reads(
    labels: Labels, make_layer: MakeLayer
) -> None:
    layers = [
        make_layer("n0", "if", "input"),
        make_layer("p", "sum_pool", "n0", kernel=2),
        make_layer("c1", "conv2d", "p", weight=CONV),
        make_layer("n1", "if", "c1"),
    ]
    assert labels(*layers, shape=(1, 4, 4)) == ["input", "n0+p", "c1+n1+mean"]


def test_pool_beside_another_reader_goes_with_its_consumer(
    labels: Labels, make_layer: MakeLayer
) -> None:
    layers = [
        make_layer("n0", "if", "input"),
        make_layer("p", "max_pool", "n0", kernel=2, stride=1),
        make_layer("c1", "conv2d", "n0", weight=np.ones((1, 1, 2, 2))),
        make_layer("sum", "add", "p", "c1"),
        make_layer("n1", "if", "sum"),
    ]
    assert labels(*layers, shape=(1, 4, 4)) == ["input", "n0", "p+c1+sum+n1+mean"]


def test_pool_of_the_input_is_not_computed_by_ingest(labels: Labels, make_layer: MakeLayer) -> None:
    layers = [make_layer("p", "max_pool", "input", kernel=2), make_layer("n", "if", "p")]
    assert labels(*layers, shape=(1, 4, 4)) == ["input", "p+n+mean"]


def test_add_of_spikes_goes_with_the_later_branch(labels: Labels, make_layer: MakeLayer) -> None:
    layers = [
        make_layer("n0", "if", "input"),
        make_layer("w1", "linear", "n0", weight=EYE),
        make_layer("n1", "if", "w1"),
        make_layer("sum", "add", "n1", "n0"),
        make_layer("w2", "linear", "sum", weight=EYE),
        make_layer("n2", "if", "w2"),
    ]
    assert labels(*layers) == ["input", "n0", "w1+n1+sum", "w2+n2+mean"]


def test_add_of_a_current_never_goes_with_the_neurons_before_it(
    labels: Labels, make_layer: MakeLayer
) -> None:
    layers = [
        make_layer("n0", "if", "input"),
        make_layer("w1", "linear", "input", weight=EYE / 3),
        make_layer("sum", "add", "w1", "n0"),
        make_layer("n1", "if", "sum"),
    ]
    assert labels(*layers) == ["input", "n0", "w1+sum+n1+mean"]


def test_neurons_with_two_readers_end_an_operator_even_in_one_stage(
    labels: Labels, make_layer: MakeLayer
) -> None:
    layers = [
        make_layer("n0", "if", "input"),
        make_layer("w1", "linear", "n0", weight=EYE),
        make_layer("n1", "if", "w1"),
        make_layer("w2", "linear", "n0", weight=EYE * 2),
        make_layer("n2", "if", "w2"),
        make_layer("sum", "add", "n1", "n2"),
    ]
    cut = labels(*layers, granularity="model")
    assert cut == ["input", "n0+w1+n1+w2+n2+sum+mean"]


def test_delayed_spikes_travel_at_every_granularity(labels: Labels, make_layer: MakeLayer) -> None:
    layers = [
        make_layer("n0", "if", "input"),
        make_layer("w1", "linear", Source("n0", 2), weight=EYE),
        make_layer("n1", "if", "w1"),
    ]
    assert labels(*layers, granularity="model") == ["input", "n0", "w1+n1+mean"]


def test_network_without_neurons_is_one_readout(labels: Labels, make_layer: MakeLayer) -> None:
    assert labels(make_layer("w", "linear", "input", weight=EYE)) == ["input", "w+mean"]


def compiled(make_network: Make, *layers: Layer) -> CompiledNetwork:
    return compile_network(make_network(*layers))


def test_equal_layers_at_two_places_are_one_operator_at_two_nodes(
    make_network: Make, make_layer: MakeLayer
) -> None:
    layers = [
        make_layer("w0", "linear", "input", weight=EYE),
        make_layer("n0", "if", "w0"),
        make_layer("w1", "linear", "n0", weight=EYE),
        make_layer("n1", "if", "w1"),
        make_layer("w2", "linear", "n1", weight=EYE),
    ]
    network = compiled(make_network, *layers)
    assert len(network.nodes) == 4
    assert len(network.operators) == 3


def test_operator_does_not_know_its_place_or_name(
    make_network: Make, make_layer: MakeLayer
) -> None:
    fused = [make_layer("w", "linear", "input", weight=EYE), make_layer("n", "if", "w")]
    first = compiled(make_network, *fused, make_layer("end", "linear", "n", weight=EYE))
    other = compiled(
        make_network,
        make_layer("before", "linear", "input", weight=EYE * 3),
        make_layer("first", "if", "before"),
        make_layer("else", "linear", "first", weight=EYE),
        make_layer("name", "if", "else"),
        make_layer("end", "linear", "name", weight=EYE * 5),
    )
    assert len(set(first.operators) & set(other.operators)) == 2


def test_networks_share_nodes_up_to_where_they_differ(
    make_network: Make, make_layer: MakeLayer
) -> None:
    body = [make_layer("w", "linear", "input", weight=EYE), make_layer("n", "if", "w")]
    one = compiled(make_network, *body, make_layer("head", "linear", "n", weight=EYE))
    two = compiled(make_network, *body, make_layer("head", "linear", "n", weight=EYE * 3))
    assert list(one.nodes)[:2] == list(two.nodes)[:2]
    assert one.readout != two.readout


def test_operator_that_reads_only_delayed_spikes_reads_the_input_for_its_windows(
    make_network: Make, make_layer: MakeLayer
) -> None:
    network = make_network(
        make_layer("n0", "if", "input"),
        make_layer("w1", "linear", Source("n0", 2), weight=EYE),
        make_layer("n1", "if", "w1"),
    )
    compiled = compile_network(network)
    ingest, first, second = compiled.nodes.values()
    assert [(e.source, e.delay) for e in second.edges] == [(first.id, 2), (ingest.id, 0)]
    program = compiled.operators[second.operator].program
    assert all(-2 not in reads for reads in program.reads)


def test_one_source_may_be_read_with_several_delays(
    make_network: Make, make_layer: MakeLayer
) -> None:
    network = make_network(
        make_layer("sum", "add", "input", Source("input", 1), Source("input", 3))
    )
    spikes = np.zeros((1, 4, 4), np.int64)
    spikes[0, 0, 2] = 1
    assert run_reference(compile_network(network), spikes)[0].tolist() == [[0, 0, 3 / 4, 0]]


def recurrent(make_network: Make, make_layer: MakeLayer, **options: object) -> Network:
    return make_network(
        make_layer("w", "linear", "input", weight=EYE * 0.75),
        make_layer("back", "linear", Source("n", 1), weight=1.5 * EYE[::-1]),
        make_layer("sum", "add", "w", "back"),
        make_layer("n", "lif", "sum", form="plain", decay=0.5),
        make_layer("out", "linear", "n", weight=EYE / 4),
        **options,
    )


def test_layer_that_reads_itself_does_so_inside_of_a_fused_operator(
    make_network: Make, make_layer: MakeLayer
) -> None:
    network = recurrent(make_network, make_layer)
    wired, fused = compile_network(network), compile_network(network, granularity="stage")
    assert (wired.input.longest_window, fused.input.longest_window) == (1, 4)
    _, loop, _ = fused.nodes.values()
    assert [(e.source, e.delay) for e in loop.edges] == [(fused.input.node, 0)]
    assert [stage.kind for stage in fused.operators[loop.operator].program.stages] == ["loop"]
    spikes = np.zeros((1, 4, 4), np.int64)
    spikes[0, :2, 0] = 1
    assert run_reference(fused, spikes)[0].tolist() == run_reference(wired, spikes)[0].tolist()
    assert run_reference(fused, spikes)[0].any()


def test_fused_operator_that_reads_only_itself_late_and_others_late_still_has_windows(
    make_network: Make, make_layer: MakeLayer
) -> None:
    network = make_network(
        make_layer("n0", "if", "input"),
        make_layer("sum", "add", Source("n0", 2), Source("n1", 1)),
        make_layer("n1", "if", "sum"),
        make_layer("out", "linear", "n1", weight=EYE),
    )
    fused = compile_network(network, granularity="model")
    delays = [[e.delay for e in node.edges] for node in fused.nodes.values()]
    assert delays == [[], [0], [2, 0], [0]]


def test_membrane_values_that_several_layers_read_end_an_operator(
    labels: Labels, make_layer: MakeLayer
) -> None:
    layers = [
        make_layer("w0", "linear", "input", weight=EYE / 3),
        make_layer("x0", "requantise", "w0"),
        make_layer("n1", "if", "x0"),
        make_layer("w1", "linear", "n1", weight=EYE / 3),
        make_layer("sum", "add", "w1", "x0"),
        make_layer("x1", "requantise", "sum"),
        make_layer("n2", "if", "x1"),
    ]
    assert labels(*layers) == ["input", "w0+x0", "n1", "w1+sum+x1+n2+mean"]


def test_masked_sums_of_spike_driven_attention_travel_as_one_value_per_channel(
    labels: Labels, make_layer: MakeLayer
) -> None:
    layers = [
        make_layer("q", "if", "input"),
        make_layer("k", "lif", "input", tau=2.0),
        make_layer("v", "lif", "input", tau=3.0),
        make_layer("kv", "multiply", "k", "v"),
        make_layer("sum", "reduce", "kv", axes=-1, op="sum", keep=True),
        make_layer("mask", "if", "sum"),
        make_layer("out", "multiply", "q", "mask"),
    ]
    cut = labels(*layers, shape=(2, 4))
    assert cut == ["input", "q", "k", "v+kv+sum", "mask+out+mean"]
