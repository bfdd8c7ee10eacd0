"""Whatever a NIR file holds, it is read or refused with a sentence; nothing else is raised."""

import copy
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from topologies.compiler.compile import compile_network
from topologies.importers.build import Face
from topologies.importers.from_nir import import_nir
from topologies.importers.nir_options import NirOptions
from topologies.model import NetworkError

ONE = np.ones(2)
CONV = {"stride": 1, "padding": np.array([1, 1]), "dilation": 1, "groups": 1, "input_shape": None}
POOL = {"kernel_size": np.array([2, 2]), "stride": np.array([2, 2]), "padding": np.array([0, 0])}
LIF = {"tau": ONE * 4, "r": ONE, "v_leak": 0 * ONE, "v_threshold": ONE / 2, "v_reset": 0 * ONE}
RNN = {
    "type": "NIRGraph",
    "nodes": {
        "in": {"type": "Input", "shape": np.array([2])},
        "lif": {"type": "LIF", **LIF},
        "w": {"type": "Affine", "weight": np.eye(2), "bias": ONE},
        "out": {"type": "Output", "shape": np.array([2])},
    },
    "edges": [("in", "lif"), ("lif", "w"), ("w", "lif"), ("lif", "out")],
}
CHAIN = ("input", "conv", "if", "pool", "flat", "fc", "rnn", "late", "scale", "li", "output")
DOCUMENT: dict[str, Any] = {
    "type": "NIRGraph",
    "nodes": {
        "input": {"type": "Input", "shape": np.array([1, 4, 4])},
        "conv": {"type": "Conv2d", "weight": np.ones((3, 1, 3, 3)), "bias": np.ones(3), **CONV},
        "if": {"type": "IF", "r": np.ones(1), "v_threshold": np.ones((3, 1, 1))},
        "pool": {"type": "SumPool2d", **POOL},
        "flat": {"type": "Flatten", "start_dim": 0, "end_dim": -1, "input_type": None},
        "fc": {"type": "Linear", "weight": np.ones((2, 12))},
        "rnn": RNN,
        "late": {"type": "Delay", "delay": np.array([1.0, 2.0])},
        "scale": {"type": "Scale", "scale": ONE},
        "li": {"type": "LI", "tau": ONE * 2, "r": ONE, "v_leak": 0 * ONE},
        "output": {"type": "Output", "shape": np.array([2])},
    },
    "edges": list(pairwise(CHAIN)),
}
JUNK: tuple[Any, ...] = (
    *(None, b"\xff", "same", "NIRGraph", "Input", -1, 0, 1, 2**40, 0.5, np.nan, True),
    *(np.array([]), np.array([0]), np.array([1, 2, 3]), np.zeros((2, 3)), np.full((1, 1, 1), -2.0)),
    *(np.array([b"a", b"b"], object), {}, {"type": "LIF"}, [("rnn", "rnn")], [1, 2], "x" * 200),
)


def places(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    for key, value in node.items():
        yield (*path, key)
        if isinstance(value, dict):
            yield from places(value, (*path, key))


PLACES = sorted(places(DOCUMENT))


def planted(changes: list[tuple[tuple[Any, ...], Any, bool]]) -> dict[str, Any]:
    document = copy.deepcopy(DOCUMENT)
    for path, value, gone in changes:
        at: Any = document
        for key in path[:-1]:
            at = at.get(key) if isinstance(at, dict) else None
        if isinstance(at, dict):
            if gone:
                at.pop(path[-1], None)
            else:
                at[path[-1]] = value
    return document


def test_document_itself_is_legal() -> None:
    found = import_nir(DOCUMENT, Face("net"), NirOptions(dt=1.0))
    assert set(found.neurons) == {"if", "rnn.lif"}


@settings(max_examples=400)
@given(
    st.lists(
        st.tuples(st.sampled_from(PLACES), st.sampled_from(JUNK), st.booleans()),
        min_size=1,
        max_size=3,
    )
)
def test_junk_is_read_or_refused(changes: list[tuple[tuple[Any, ...], Any, bool]]) -> None:
    try:
        found = import_nir(planted(changes), Face("net"), NirOptions(dt=1.0))
    except NetworkError:
        return
    compile_network(found.network)
