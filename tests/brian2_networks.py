"""Layers of kind brian2, and networks around them, for the tests that run Brian2."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from topologies.model import INPUT, Input, Layer, Network, Output, Source

__all__ = ["LAYERS", "make_network"]

N_IN: Final = 24

LAYERS: Final[Mapping[str, Mapping[str, Any]]] = {
    "leaky": {
        "equations": "dv/dt = (gain*I - v)/tau : 1",
        "threshold": "v > 1",
        "reset": "v = 0",
        "parameters": {"tau": "5*ms", "gain": 2},
        "dt": "1*ms",
    },
    "adaptive, refractory, in volts": {
        "equations": """
            drive = R*I*nA : volt
            dv/dt = (v_rest - v + drive - R*w)/tau : volt (unless refractory)
            dw/dt = (a*(v - v_rest) - w)/tau_w : amp
            n : 1
        """,
        "threshold": "v > -50*mV and n < 1000",
        "reset": "v = v_rest\nw += 50*pA\nn += 1",
        "parameters": {
            "tau": "10*ms",
            "tau_w": "100*ms",
            "R": "30*Mohm",
            "v_rest": "-65*mV",
            "a": "2*nS",
        },
        "initial": {"v": "v_rest"},
        "refractory": "2*ms",
        "method": "euler",
        "dt": "1*ms",
    },
    "exponential": {
        "equations": """
            dv/dt = (g_l*(e_l - v) + g_l*slope*exp(clip((v - v_t)/slope, -20, 20)) + I*nA)/C : volt
        """,
        "threshold": "v > 0*mV",
        "reset": "v = e_l",
        "parameters": {
            "g_l": "10*nS",
            "e_l": "-70*mV",
            "v_t": "-50*mV",
            "slope": "2*mV",
            "C": "50*pF",
        },
        "initial": {"v": "e_l"},
        "method": "rk4",
        "dt": "0.1*ms",
    },
    "izhikevich": {
        "equations": """
            dv/dt = (0.04*v**2 + 5*v + 140 - u + gain*I)/ms : 1
            du/dt = a*(b*v - u)/ms : 1
        """,
        "threshold": "v >= 30",
        "reset": "v = -65\nu += 8",
        "parameters": {"a": 0.02, "b": 0.2, "gain": 12},
        "initial": {"v": -65, "u": -13},
        "method": "euler",
        "dt": "0.25*ms",
    },
}


def make_network(layer: str, n_steps: int | None = 12) -> Network:
    """Events into synapses onto 20 neurons of LAYERS[layer], into 5 whose sums are counted."""
    rng = np.random.default_rng(len(layer))
    one, two = rng.normal(0.15, 0.35, (20, N_IN)), rng.normal(0.2, 0.6, (5, 20))
    layers = (
        Layer("synapses", "linear", (Source(INPUT),), {}, {"weight": one}),
        Layer("cells", "brian2", (Source("synapses"),), LAYERS[layer]),
        Layer("out", "linear", (Source("cells"),), {}, {"weight": two}),
        Layer("last", "lif", (Source("out"),), {"form": "plain", "decay": 0.5}),
    )
    source = Input("brian2", (N_IN,), "events", n_steps=n_steps, longest_window=4)
    return Network("brian2", source, layers, Output("count", "last", {"every": 4}))
