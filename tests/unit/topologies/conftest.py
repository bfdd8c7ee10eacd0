from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors.numpy import save_file

from topologies.model import INPUT, Input, Layer, Network, Output, Source
from topologies.stages.base import Array

MakeFile = Callable[[dict[str, Any], dict[str, Array]], Path]


@pytest.fixture
def document() -> dict[str, Any]:
    """A legal network file: conv, batch norm, neurons, average pool, linear."""
    return {
        "format": 1,
        "name": "tiny",
        "input": {"shape": [1, 4, 4], "encoder": {"kind": "direct"}, "n_steps": 3},
        "layers": [
            {"name": "conv", "kind": "conv2d", "padding": 1},
            {"name": "norm", "kind": "batch_norm", "eps": 0.001},
            {"name": "lif", "kind": "lif", "tau": 2.0},
            {"name": "pool", "kind": "avg_pool", "kernel": 2},
            {"name": "flat", "kind": "flatten"},
            {"name": "fc", "kind": "linear", "weights": "last"},
        ],
        "output": {"readout": "mean", "labels": ["a", "b"]},
    }


@pytest.fixture
def arrays() -> dict[str, Array]:
    """The arrays of `document`, float32."""
    rng = np.random.default_rng(7)
    shapes = {
        "conv.weight": (3, 1, 3, 3),
        "conv.bias": (3,),
        "norm.weight": (3,),
        "norm.bias": (3,),
        "norm.running_mean": (3,),
        "norm.running_var": (3,),
        "last.weight": (2, 12),
    }
    made = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    made["norm.running_var"] = np.abs(made["norm.running_var"])
    return made


@pytest.fixture
def write_network(tmp_path: Path) -> MakeFile:
    """Writes network.yaml and weights.safetensors into a folder; returns the folder."""

    def write(document: dict[str, Any], arrays: dict[str, Array]) -> Path:
        (tmp_path / "network.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
        save_file(arrays, tmp_path / "weights.safetensors")
        return tmp_path

    return write


def layer(name: str, kind: str, *sources: str | Source, **params: Any) -> Layer:
    arrays: dict[str, Array] = {
        key: np.asarray(params.pop(key), np.float64)
        for key in ("weight", "bias", "running_mean", "running_var")
        if key in params
    }
    reads = tuple(Source(s) if isinstance(s, str) else s for s in sources)
    return Layer(name, kind, reads, params, arrays)


@pytest.fixture
def make_layer() -> Callable[..., Layer]:
    """make_layer(name, kind, *sources, **params and arrays)."""
    return layer


@pytest.fixture
def make_network() -> Callable[..., Network]:
    """make_network(*layers, shape=..., readout=...): reads events, ends in a mean."""

    def make(
        *layers: Layer, shape: tuple[int, ...] = (4,), readout: str = "mean", **options: Any
    ) -> Network:
        source = Input("in", shape, "events", n_steps=4, **options)
        return Network("net", source, layers, Output(readout, layers[-1].name if layers else INPUT))

    return make
