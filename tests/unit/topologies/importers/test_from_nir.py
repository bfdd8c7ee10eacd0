from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from tests.unit.topologies.importers.graphs import (
    Document,
    affine,
    graph,
    imported,
    lif,
    node,
    perfect,
    ports,
    result_of,
    spikes_of,
)
from topologies.importers.build import Face
from topologies.model import NetworkError, Source

# A current of 1 for one step makes the neuron behind it fire in that step.
PULSE = [[1], [0], [0], [0], [0], [0]]


def layer(found: Any, name: str) -> Any:
    return next(layer for layer in found.network.layers if layer.name == name)


def loop(weight: float, bias: float = 0.0, **extra: Document) -> Document:
    nodes = {**ports(1, 1), "a": affine([[1.0]]), "n": perfect(), "w": affine([[weight]], [bias])}
    return graph({**nodes, **extra}, "input a n w n output")


def test_chain_becomes_layers_of_the_same_names() -> None:
    document = graph({**ports(2, 3), "fc": affine(np.eye(3, 2)), "cells": lif(3)}, "input fc cells")
    document["edges"].append(("cells", "output"))
    found = imported(document)
    assert [(x.name, x.kind) for x in found.network.layers] == [("fc", "linear"), ("cells", "lif")]
    assert found.network.input.shape == (2,)
    assert found.network.output.readout == "count"
    assert found.neurons == {"cells": "cells"}
    assert found.notes == ()


def test_names_that_are_not_legal_are_changed_and_stay_apart() -> None:
    names = ["my layer", "my/layer", "input_"]
    document = graph({**ports(1, 1), **{name: perfect() for name in names}})
    chain = ["input", *names, "output"]
    document["edges"] = list(pairwise(chain))
    found = imported(document)
    assert [x.name for x in found.network.layers] == ["my_layer", "my_layer_2", "input_"]
    assert found.neurons == dict(zip(names, ["my_layer", "my_layer_2", "input_"], strict=True))


def test_recurrent_spikes_arrive_one_step_later() -> None:
    assert spikes_of(imported(loop(1.0)), "n", PULSE) == [1, 1, 1, 1, 1, 1]
    assert spikes_of(imported(loop(0.5)), "n", PULSE) == [1, 0, 0, 0, 0, 0]
    found = imported(loop(1.0))
    assert Source("n", 1) in [s for x in found.network.layers for s in x.sources]


def test_recurrent_bias_acts_in_step_0_or_from_step_1() -> None:
    silent = np.zeros((6, 1))
    assert spikes_of(imported(loop(0.0, 0.5)), "n", silent) == [0, 1, 0, 1, 0, 1]
    late = imported(loop(0.0, 0.5), recurrent_bias=False)
    assert spikes_of(late, "n", silent) == [0, 0, 1, 0, 1, 0]


def test_recurrent_bias_of_a_convolution_acts_from_step_1() -> None:
    conv = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1, "input_shape": None}
    nodes = {
        "input": node("Input", shape=np.array([2, 1, 2])),
        "output": node("Output", shape=None),
        "n": node("IF", r=np.ones((2, 1, 2)), v_threshold=np.full((2, 1, 2), 0.9)),
        "w": node("Conv2d", weight=np.zeros((2, 2, 1, 1)), bias=np.array([0.5, 0.0]), **conv),
    }
    found = imported(graph(nodes, "input n w n output"), recurrent_bias=False)
    events = np.zeros((4, 2, 1, 2))
    assert spikes_of(found, "n", events) == [[0] * 4, [0] * 4, [1, 1, 0, 0], [0] * 4]


def test_cycle_over_two_neurons_takes_one_step_where_it_closes() -> None:
    nodes = {**ports(1, 1), "a": perfect(), "b": perfect(), "w": affine([[1.0]])}
    found = imported(graph(nodes, "input a b w a", "b output"))
    assert spikes_of(found, "b", PULSE) == [1, 1, 1, 1, 1, 1]
    assert layer(found, "w.late1").sources == (Source("b", 1),)


def test_sum_that_is_read_at_once_and_late_is_laid_twice() -> None:
    nodes = {**ports(1, 1), "a": perfect(), "w": affine([[1.0]]), "b": perfect()}
    found = imported(graph(nodes, "input a w b output", "w a"))
    assert layer(found, "w").sources == (Source("a"),)
    assert layer(found, "w.late1").sources == (Source("a", 1),)
    assert spikes_of(found, "b", PULSE) == [1, 1, 1, 1, 1, 1]


def test_delay_in_a_cycle_takes_the_place_of_the_step() -> None:
    found = imported(
        loop(1.0, d=node("Delay", delay=np.array([3.0])))
        | {
            "edges": [
                ("input", "a"),
                ("a", "n"),
                ("n", "d"),
                ("d", "w"),
                ("w", "n"),
                ("n", "output"),
            ]
        }
    )
    assert spikes_of(found, "n", PULSE) == [1, 0, 0, 1, 0, 0]


def test_delay_behind_the_synapses_of_a_cycle_delays_their_bias_too() -> None:
    found = imported(
        loop(0.0, 0.5, d=node("Delay", delay=np.array([2.0])))
        | {
            "edges": [
                ("input", "a"),
                ("a", "n"),
                ("n", "w"),
                ("w", "d"),
                ("d", "n"),
                ("n", "output"),
            ]
        }
    )
    assert spikes_of(found, "n", np.zeros((6, 1))) == [0, 0, 0, 1, 0, 1]


@pytest.mark.parametrize("order", ["d w", "w d"])
def test_delays_that_differ_are_each_their_own(order: str) -> None:
    nodes = {**ports(2, 2), "w": affine(np.eye(2)), "d": node("Delay", delay=np.array([1.0, 3.0]))}
    found = imported(graph({**nodes, "n": perfect(2)}, f"input {order} n output"))
    events = np.zeros((5, 2))
    events[0] = 1
    assert spikes_of(found, "n", events) == [[0, 0], [1, 0], [0, 0], [0, 1], [0, 0]]


def test_delay_in_seconds_is_counted_in_steps_of_dt() -> None:
    nodes = {**ports(1, 1), "d": node("Delay", delay=np.array([2e-3], np.float32))}
    document = graph({**nodes, "n": perfect(r=1e3)}, "input d n output")
    assert spikes_of(imported(document, dt=1e-3), "n", PULSE) == [0, 0, 1, 0, 0, 0]
    with pytest.raises(NetworkError, match=r"d: a delay of 0.66\d* steps: legal are whole steps"):
        imported(document, dt=3e-3)


def test_uniform_delay_of_sums_is_kept_with_their_bias() -> None:
    nodes = {**ports(1, 1), "w": affine([[0.0]], [1.0]), "d": node("Delay", delay=np.array([2.0]))}
    found = imported(graph({**nodes, "n": perfect()}, "input w d n output"))
    assert spikes_of(found, "n", np.zeros((5, 1))) == [0, 0, 1, 1, 1]


def test_edges_into_one_node_are_summed() -> None:
    nodes = {**ports(1, 1), "a": affine([[0.5]]), "b": affine([[0.5]]), "n": perfect()}
    found = imported(graph(nodes, "input a n output", "input b n"))
    assert layer(found, "n.sum").kind == "add"
    assert spikes_of(found, "n", PULSE) == [1, 0, 0, 0, 0, 0]


def test_parameters_of_shape_1_1_1_hold_for_every_neuron() -> None:
    one = np.ones((1, 1, 1))
    conv = node(
        "Conv2d",
        input_shape=np.array([4, 4]),
        weight=np.ones((3, 1, 2, 2)),
        bias=np.zeros(3),
        stride=np.array([1, 1]),
        padding=np.array([0, 0]),
        dilation=np.array([1, 1]),
        groups=1,
    )
    nodes = {"conv": conv, "n": node("IF", r=one, v_threshold=2 * one, v_reset=0 * one)}
    found = imported(graph(nodes, "conv n"))
    assert found.network.input.shape == (1, 4, 4)
    assert layer(found, "n").params["v_threshold"] == 2.0


def test_batch_axis_in_parameters_is_dropped() -> None:
    one = np.ones((1, 2, 2, 2))
    nodes = {
        "input": node("Input", shape=np.array([2, 2, 2])),
        "n": node("IF", r=one, v_threshold=one * np.array([1, 2])[:, None, None]),
        "f": node("Flatten", input_type=np.zeros(4), start_dim=1, end_dim=-1),
        "w": affine(np.ones((3, 8))),
        "m": perfect(3),
    }
    found = imported(graph(nodes, "input n f w m"))
    assert layer(found, "n").params["v_threshold"] == [1.0, 2.0]
    assert [x.kind for x in found.network.layers] == ["if", "reshape", "flatten", "linear", "if"]


def test_parameters_per_channel_and_per_neuron_stay_what_they_are() -> None:
    per_channel = np.arange(1.0, 3.0)[:, None, None]
    many = np.linspace(1, 2, 8).reshape(2, 2, 2)
    shape = {"input": node("Input", shape=np.array([2, 2, 2]))}
    for threshold, wanted in ((per_channel, [1.0, 2.0]), (many, many.ravel().tolist())):
        n = node("IF", r=np.ones((2, 2, 2)), v_threshold=threshold, v_reset=np.zeros((2, 2, 2)))
        assert layer(imported(graph({**shape, "n": n}, "input n")), "n").params["v_threshold"] == (
            wanted
        )


@pytest.mark.parametrize("field", ["v_threshold", "r"])
def test_parameters_that_do_not_fit_are_refused_by_the_node(field: str) -> None:
    document = graph({**ports(2, 2), "n": perfect(2, **{field: 1.0})}, "input n output")
    document["nodes"]["n"] = {**perfect(3)}
    with pytest.raises(NetworkError, match=r"n: its parameters have shape \[3\], its input \[2\]"):
        imported(document)


@pytest.mark.parametrize(("start", "wanted"), [(0, [8]), (1, [2, 4]), (-2, [2, 4]), (-1, None)])
def test_flatten_joins_the_axes_that_it_names(start: int, wanted: list[int] | None) -> None:
    flat = node("Flatten", input_type=np.array([2, 2, 2]), start_dim=start, end_dim=-1)
    found = imported(graph({"f": flat, "n": node("IF", r=1.0, v_threshold=1.0)}, "f n"))
    kinds = [(x.kind, x.params.get("shape")) for x in found.network.layers[:-1]]
    assert kinds == {8: [("flatten", None)]}.get(
        (wanted or [0])[0], [("reshape", wanted)] if wanted else []
    )


def test_affine_flattens_an_input_of_as_many_values() -> None:
    document = graph({"w": affine(np.ones((3, 4))), "n": perfect(3)}, "w n")
    document["nodes"]["input"] = node("Input", shape=np.array([1, 2, 2]))
    document["edges"].append(("input", "w"))
    assert [x.kind for x in imported(document).network.layers] == ["flatten", "linear", "if"]
    document["nodes"]["input"] = node("Input", shape=np.array([5]))
    with pytest.raises(NetworkError, match=r"w: it reads \[4\], but is given \[5\]"):
        imported(document)


def test_weights_with_more_axes_hold_one_matrix_for_each_leading_index() -> None:
    rng = np.random.default_rng(0)
    weight = rng.integers(-2, 3, (2, 3, 4)).astype(float)
    document = graph(
        {
            "w": affine(weight, np.ones((2, 3))),
            "d": node("LI", tau=np.full((2, 3), 1.0), r=np.ones((2, 3)), v_leak=np.zeros((2, 3))),
        },
        "w d",
    )
    events = rng.integers(0, 2, (1, 2, 4))
    wanted = np.einsum("boi,bi->bo", weight, events[0]) + 1
    assert result_of(imported(document), events) == wanted.ravel().tolist()


@pytest.mark.parametrize(
    ("padding", "wanted"), [("same", 1), ("valid", 0), (b"same", 1), (np.array([1, 0]), [1, 0])]
)
def test_padding_may_be_words_or_numbers(padding: Any, wanted: Any) -> None:
    found = imported(conv_graph(padding=padding))
    assert layer(found, "conv").params.get("padding", 0) == wanted


def test_padding_that_cannot_be_equal_on_both_sides_is_refused() -> None:
    with pytest.raises(NetworkError, match=r"conv: padding 'same' of a kernel \(2, 2\)"):
        imported(conv_graph(kernel=2, padding="same"))


def conv_graph(kernel: int = 3, **fields: Any) -> Document:
    usual = {"stride": 1, "dilation": 1, "groups": 1, "input_shape": np.array([5, 5])}
    weight = np.ones((1, 1, kernel, kernel))
    conv = node("Conv2d", weight=weight, bias=np.zeros(1), **{**usual, **fields})
    return graph({"conv": conv, "n": node("IF", r=1.0, v_threshold=1.0)}, "conv n")


def test_convolution_in_one_dimension_keeps_stride_dilation_and_groups() -> None:
    conv = node(
        "Conv1d",
        input_shape=9,
        weight=np.ones((2, 1, 3)),
        bias=np.zeros(2),
        stride=2,
        padding=1,
        dilation=2,
        groups=2,
    )
    found = imported(graph({"conv": conv, "n": node("IF", r=1.0, v_threshold=1.0)}, "conv n"))
    assert found.network.input.shape == (2, 9)
    assert layer(found, "conv").params == {"stride": 2, "dilation": 2, "padding": 1, "groups": 2}


def test_pools_sum_and_average() -> None:
    numbers = {"kernel_size": np.array([2, 2]), "stride": np.array([2, 2]), "padding": np.zeros(2)}
    nodes = {
        "input": node("Input", shape=np.array([1, 4, 4])),
        "sum": node("SumPool2d", **numbers),
        "mean": node("AvgPool2d", **numbers),
        "li": node("LI", tau=1.0, r=1.0, v_leak=0.0),
    }
    found = imported(graph(nodes, "input sum mean li"))
    assert [x.kind for x in found.network.layers] == ["sum_pool", "avg_pool"]
    assert result_of(found, np.ones((1, 1, 4, 4))) == [4.0]


def test_scale_multiplies_each_value() -> None:
    nodes = {**ports(2, 2), "s": node("Scale", scale=np.array([0.5, 2.0]))}
    nodes["li"] = node("LI", tau=np.ones(2), r=np.ones(2), v_leak=np.zeros(2))
    assert result_of(imported(graph(nodes, "input s li output")), [[1, 1]]) == [0.5, 2.0]


def test_threshold_fires_without_memory() -> None:
    nodes = {**ports(1, 1), "w": affine([[0.6]]), "t": node("Threshold", threshold=np.array([1.0]))}
    face = Face("net", high=4)
    found = imported(graph(nodes, "input w t output"), face)
    assert spikes_of(found, "t", [[1], [1], [2], [1], [2]]) == [0, 0, 1, 0, 1]


@pytest.mark.parametrize(("fire", "wanted"), [(">", 0), (">=", 1)])
def test_membrane_at_the_threshold_fires_as_the_option_says(fire: str, wanted: int) -> None:
    document = graph({**ports(1, 1), "n": lif()}, "input n output")
    assert spikes_of(imported(document, fire=fire), "n", [[1]]) == [wanted]


@pytest.mark.parametrize(
    ("reset", "wanted"),
    [
        ("file", [1, 0, 0]),  # v: 3 -> -1, then 0 and 1
        ("zero", [1, 0, 1]),  # 3 -> 0, 1, 2
        ("subtract", [1, 1, 1]),  # 3 -> 1.5, 2.5 -> 1, 2
        ("snntorch", [1, 1, 1]),
        ("snntorch-zero", [1, 0, 1]),
    ],
)
def test_reset_is_the_one_that_is_asked_for(reset: str, wanted: list[int]) -> None:
    n = perfect(v_threshold=1.5, v_reset=-1.0)
    document = graph({**ports(1, 1), "n": n}, "input n output")
    found = imported(document, Face("net", high=4), reset=reset)
    assert spikes_of(found, "n", [[3], [1], [1]]) == wanted


def test_subtraction_one_step_later_leaks_before_it_is_taken() -> None:
    document = graph({**ports(1, 1), "n": lif(tau=2.0, r=2.0, v_threshold=1.0)}, "input n output")
    face = Face("net", high=8)
    # v = 4; then 0.5 * (4 - 1) = 1.5 fires, but 0.5 * 4 - 1 = 1 does not.
    at_once = imported(document, face, reset="subtract")
    later = imported(document, face, reset="snntorch")
    assert spikes_of(at_once, "n", [[4], [0], [0]]) == [1, 1, 0]
    assert spikes_of(later, "n", [[4], [0], [0]]) == [1, 0, 0]
    assert layer(later, "n").params["reset_delayed"] is True


def test_several_spikes_in_a_step_subtract_several_thresholds() -> None:
    document = graph({**ports(1, 1), "n": perfect(v_threshold=1.0)}, "input n output")
    found = imported(document, Face("net", high=8), reset="subtract", max_spikes=4)
    assert spikes_of(found, "n", [[3], [0], [7], [0]]) == [3, 0, 4, 3]


@pytest.mark.parametrize("kind", ["LIF", "CubaLIF"])
def test_several_spikes_in_a_step_leave_leaky_neurons_too(kind: str) -> None:
    one = np.ones(1)
    fields = {"tau": 2 * one} if kind == "LIF" else {"tau_syn": one, "tau_mem": 2 * one}
    n = node(kind, r=2 * one, v_leak=0 * one, v_threshold=one, **fields)
    document = graph({**ports(1, 1), "n": n}, "input n output")
    found = imported(document, Face("net", high=8), reset="subtract", max_spikes=9)
    # 5 -> 0, then 3.5 would need fractions: 2 -> 0.
    assert spikes_of(found, "n", [[5], [0], [2]]) == [5, 0, 2]


def test_if_charges_per_second_or_per_step() -> None:
    document = graph({**ports(1, 1), "n": perfect()}, "input n output")
    slow = imported(document, dt=0.5)
    assert spikes_of(slow, "n", [[1]] * 4) == [0, 1, 0, 1]
    assert "pass --if-per-step" in slow.notes[0]
    quick = imported(document, dt=None, if_per_step=True, fire=">=")
    assert spikes_of(quick, "n", [[1]] * 4) == [1, 1, 1, 1]
    assert quick.notes == ()


def test_time_constants_without_dt_are_refused_by_the_node() -> None:
    with pytest.raises(NetworkError, match=r"cells: a LIF has times in seconds.*--dt; 1e-4"):
        imported(graph({**ports(1, 1), "cells": lif()}, "input cells output"), dt=None)


def test_time_constant_below_a_step_needs_the_exponential_integrator() -> None:
    document = graph({**ports(1, 1), "n": lif(tau=0.5)}, "input n output")
    with pytest.raises(NetworkError, match=r"n: tau is 0.5 s, less than a step of 1.0 s"):
        imported(document)
    assert imported(document, integrator="exp").neurons == {"n": "n"}


def test_exponential_leak_is_rounded_once() -> None:
    document = graph({**ports(1, 1), "n": lif(tau=3.0, r=3.0)}, "input n output")
    params = layer(imported(document, integrator="exp"), "n").params
    assert params["form"] == "plain"
    assert params["decay"] == 0.7165313105737893  # exp(-1/3) = 0.716531310573789250...


@pytest.mark.parametrize(
    ("fields", "kind", "form"),
    [
        ({"r": 1.0, "v_leak": 0.3}, "lif", "norse"),
        ({"r": 2.0}, "lif", "plain"),
        ({"r": 3.0}, "cubalif", "plain"),
        ({"r": 2.0, "v_leak": 0.1}, "cubalif", "plain"),
    ],
)
def test_lif_becomes_the_first_kind_that_says_the_same(
    fields: dict[str, Any], kind: str, form: str
) -> None:
    found = layer(imported(graph({**ports(1, 1), "n": lif(**fields)}, "input n output")), "n")
    assert (found.kind, found.params["form"]) == (kind, form)


@pytest.mark.parametrize("integrator", ["euler", "exp"])
@pytest.mark.parametrize("fields", [{"r": 1.0}, {"r": 4.0}, {"r": 3.0, "v_leak": 0.3}])
def test_lif_spikes_are_those_of_the_equation(fields: dict[str, Any], integrator: str) -> None:
    """v = v_leak + d * (v - v_leak) + g * r * i, and what the file says of threshold and reset."""
    n = lif(tau=4.0, v_threshold=0.7, v_reset=-0.1, **fields)
    found = imported(graph({**ports(1, 1), "n": n}, "input n output"), integrator=integrator)
    g = 0.25
    decay = 1 - g if integrator == "euler" else np.exp(-g)
    events = (np.random.default_rng(1).random((300, 1)) < 0.6).astype(int)
    v_leak, r = fields.get("v_leak", 0.0), fields["r"]
    v, wanted = v_leak if (layer(found, "n").params["form"] == "norse") else -0.1, []
    for x in events[:, 0]:
        v = v_leak + decay * (v - v_leak) + g * r * x
        wanted.append(int(v > 0.7))
        v = -0.1 if v > 0.7 else v
    assert spikes_of(found, "n", events) == wanted
    assert 0 < sum(wanted) < 300


def test_cubalif_spikes_are_those_of_the_equation() -> None:
    constants = {"tau_syn": 2.0, "tau_mem": 4.0, "r": 3.0, "v_leak": 0.1, "w_in": 1.5}
    fields = {name: np.full(1, value) for name, value in constants.items()}
    n = node("CubaLIF", **fields, v_threshold=np.full(1, 0.7))
    found = imported(graph({**ports(1, 1), "n": n}, "input n output"))
    events = (np.random.default_rng(1).random((300, 1)) < 0.3).astype(int)
    v, i, wanted = 0.0, 0.0, []
    for x in events[:, 0]:
        i = i + 0.5 * (1.5 * x - i)
        v = v + 0.25 * ((0.1 - v) + 3.0 * i)
        wanted.append(int(v > 0.7))
        v = 0.0 if v > 0.7 else v
    assert spikes_of(found, "n", events) == wanted
    assert 0 < sum(wanted) < 300


def test_last_integrator_is_the_readout() -> None:
    li = node("LI", tau=np.array([2.0, 4.0]), r=np.full(2, 2.0), v_leak=np.zeros(2))
    found = imported(graph({**ports(2, 2), "li": li}, "input li output"))
    assert found.network.output.readout == "leaky"
    # v = v + g * (2 i - v): 1 and 0.5; then 0.5 and 0.375.
    assert result_of(found, [[1, 1], [0, 0]]) == [0.5, 0.375]


def test_integrator_with_a_current_or_a_leak_potential_is_read_out_on_a_grid() -> None:
    one = np.ones(1)
    cuba = node("CubaLI", tau_syn=2 * one, tau_mem=2 * one, r=2 * one, v_leak=0 * one, w_in=2 * one)
    found = imported(graph({**ports(1, 1), "li": cuba}, "input li output"))
    assert (layer(found, "li").kind, found.network.output.readout) == ("integrator", "membrane")
    # i = 1, 0.5; v = 1, 1.
    assert result_of(found, [[1], [0]]) == [1.0]


def test_integrators_inside_a_graph_pass_on_their_membranes() -> None:
    one = np.ones(1)
    nodes = {
        **ports(1, 1),
        "i": node("I", r=0.5 * one),
        "w": affine([[2.0]]),
        "t": node("Threshold", threshold=one),
    }
    found = imported(graph(nodes, "input i w t output"))
    assert spikes_of(found, "t", [[1], [0], [1], [0]]) == [0, 0, 1, 1]


def test_what_leads_nowhere_is_left_out_and_noted() -> None:
    nodes = {**ports(1, 1), "n": lif(), "side": affine([[1.0]])}
    found = imported(graph(nodes, "input n output", "n side"))
    assert [x.name for x in found.network.layers] == ["n"]
    assert found.notes == ("side: nothing that leads to the output reads it; it is left out.",)


def test_cycle_without_a_neuron_is_refused() -> None:
    nodes = {**ports(1, 1), "a": affine([[1.0]]), "b": affine([[1.0]]), "n": lif()}
    with pytest.raises(NetworkError, match="a, b lie on a cycle without a neuron"):
        imported(graph(nodes, "input a b a", "b n output"))


@pytest.mark.parametrize("reset", ["snntorch", "snntorch-zero"])
def test_resets_of_snntorch_refuse_a_leak_potential(reset: str) -> None:
    document = graph({**ports(1, 1), "n": lif(v_leak=0.1)}, "input n output")
    with pytest.raises(NetworkError, match="n: its v_leak is not 0"):
        imported(document, reset=reset)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"dt": 0.0}, "dt: 0.0 seconds: legal is a number above 0"),
        ({"integrator": "rk4"}, "integrator: 'rk4': legal are euler, exp"),
        ({"reset": "none"}, "reset: 'none': legal are file, zero, subtract, snntorch, snntorch-z"),
        ({"max_spikes": 3}, "max_spikes: 3 needs reset subtract, not file"),
        ({"reset": "subtract", "max_spikes": 300}, "max_spikes: 300: legal is 1 to 255"),
        ({"fire": ">=", "reset": "snntorch"}, "fire: '>=': snnTorch compares with '>' only"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(NetworkError, match=sentence):
        imported(graph({**ports(1, 1), "n": lif()}, "input n output"), **options)


def test_readout_that_is_asked_for_is_taken() -> None:
    face = Face("net", readout="mean", readings={"every": 2}, labels=("yes",))
    output = imported(graph({**ports(1, 1), "n": lif()}, "input n output"), face).network.output
    assert (output.readout, output.params, output.labels) == ("mean", {"every": 2}, ("yes",))


def test_what_the_input_does_not_reach_is_named() -> None:
    nodes = {**ports(1, 1), "n": lif(), "m": lif(), "lost": lif()}
    with pytest.raises(NetworkError, match="lost: it leads to the output, but the input does not"):
        imported(graph(nodes, "input n m output", "lost m"))


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        (
            {"stride": 0},
            r"conv: its stride is \[0\]: legal is one number per axis, or for all, from 1",
        ),
        ({"dilation": np.ones(3)}, r"conv: its dilation is \[1, 1, 1\]: legal is one"),
        ({"padding": np.array([1, -1])}, r"conv: its padding is \[1, -1\]: legal is one"),
        ({"groups": np.ones(2)}, r"conv: its groups is \[1, 1\]: legal is one"),
    ],
)
def test_numbers_of_a_convolution_that_make_no_sense_are_refused(
    fields: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(NetworkError, match=sentence):
        imported(conv_graph(**{"padding": 0, **fields}))
