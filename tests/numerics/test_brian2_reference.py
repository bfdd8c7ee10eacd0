"""Brian2 as an independent reference: LIF and ALIF spike at the same steps as in Brian2.

There a neuron is differential equations, in float64 and with the time constants of its decays; here
it is float32 operations in a fixed order. So membranes differ in their last bits, and equal spikes
are a matter of the dynamics alone if no membrane comes that close to its threshold, which is
asserted too.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from topologies.stages.alif import Alif
from topologies.stages.base import Array, Clock, ValueType, to_current
from topologies.stages.dynamics import Neuron
from topologies.stages.neuron import Lif

pytestmark = pytest.mark.brian2

N_STEPS, N, UNIT = 250, 24, 10
CLOSEST = 2e-6  # to a threshold; float32 errs by some 1e-7


@dataclass(frozen=True)
class Case:
    """A neuron, and how Brian2 says the same: `ms` is a step.

    `jumps` happen between the equations and the threshold, by the current I of the step.
    """

    neuron: Neuron
    equations: str
    jumps: str
    threshold: str
    reset: str
    margin: str
    method: str = "exact"
    names: Mapping[str, float] | None = None
    refractory: int = 0
    v: float = 0.0  # where membranes start


def tau(decay: float) -> float:
    """The time constant, in steps, of a decay per step."""
    return float(-1.0 / np.log(decay))


LEAK = "dv/dt = -v/(tau*ms) : 1"
ADAPTIVE = f"{LEAK}\nda/dt = -a/(tau_a*ms) : 1\nz : 1"
ALIF = {"decay": 0.9, "rho": 0.95, "v_threshold": 0.7}
NAMES = {"tau": tau(0.9), "tau_a": tau(0.95), "rho": 0.95, "decay": 0.9, "th": 0.7}


def lsnn(refractory: int) -> Case:
    """A spike's reset and its adaptation come with the next step's current."""
    return Case(
        Alif.authored({**ALIF, "form": "lsnn", "beta": 0.3, "refractory": refractory}),
        ADAPTIVE,
        "v += I - z*th\na += z\nz = 0",
        "v > th + beta*a",
        "z = 1",
        "v - th - beta*a",
        names={**NAMES, "beta": 0.3},
        refractory=refractory,
    )


CASES: Mapping[str, Case] = {
    "lif, soft reset": Case(
        Lif.authored({"form": "plain", "decay": 0.9}),
        LEAK, "v += I", "v >= 1", "v -= 1", "v - 1", names=NAMES,
    ),
    "lif, hard reset": Case(
        Lif.authored({"form": "plain", "decay": 0.9, "v_reset": -0.25}),
        LEAK, "v += I", "v >= 1", "v = -0.25", "v - 1", names=NAMES, v=-0.25,
    ),
    "lif of spikingjelly": Case(
        Lif.authored({"tau": 3.0, "v_threshold": 0.3, "v_reset": 0.0}),
        "dv/dt = (I - v)/(3*ms) : 1", "", "v >= 0.3", "v = 0", "v - 0.3", "euler",
    ),
    "lif of spikingjelly, input not decayed": Case(
        Lif.authored({"tau": 3.0, "decay_input": False}),
        "dv/dt = -v/(3*ms) : 1", "v += I", "v >= 1", "v -= 1", "v - 1", "euler",
    ),
    "lif of norse": Case(
        Lif.authored({"form": "norse", "tau_mem_inv": 200.0, "v_leak": 0.1, "v_threshold": 0.3}),
        "dv/dt = 200*Hz*(0.1 + I - v) : 1", "", "v > 0.3", "v -= 0.3", "v - 0.3", "euler", v=0.1,
    ),
    "alif of bellec and others": lsnn(0),
    "alif of bellec and others, refractory": lsnn(3),
    "alif of yin and others": Case(
        Alif.authored({**ALIF, "form": "yin", "beta": 1.8, "r": 8.0}),
        ADAPTIVE,
        "a += (1 - rho)*z\nv += (1 - decay)*8*I - (th + beta*a)*z\nz = 0",
        "v > th + beta*a",
        "z = 1",
        "v - th - beta*a",
        names={**NAMES, "beta": 1.8},
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def sums() -> Array:
    """Sums (T, N) on the grid: noise of several strengths, with a silence in it."""
    rng = np.random.default_rng(11)
    strength = np.linspace(100, 900, N)
    drawn = np.rint(rng.normal(0.35, 1, (N_STEPS, N)) * strength)
    drawn[90:150] = 0
    return drawn


def in_brian2(case: Case, sums: Array) -> tuple[Array, Array]:
    """Spikes (T, N) and how far each membrane was from its threshold."""
    import brian2

    brian2.prefs.codegen.target = "numpy"
    rest = case.refractory
    current = brian2.TimedArray(sums * 2.0**-UNIT, dt=brian2.ms, name="current")
    group = brian2.NeuronGroup(
        N,
        f"{case.equations}\nI = current(t, i) : 1\nmargin = {case.margin} : 1",
        threshold=case.threshold,
        reset=case.reset,
        method=case.method,
        dt=brian2.ms,
        refractory=(rest + 1) * brian2.ms if rest else False,
        namespace={**(case.names or {}), "current": current},
    )
    group.v = case.v
    if case.jumps:
        group.run_regularly(case.jumps, when="before_thresholds")
    spikes = brian2.SpikeMonitor(group)
    margins = brian2.StateMonitor(group, "margin", record=True, when="before_resets")
    network = brian2.Network(group, *group.contained_objects, spikes, margins)
    network.run(N_STEPS * brian2.ms, namespace={})
    fired = np.zeros((N_STEPS, N), np.bool_)
    fired[np.rint(spikes.t / brian2.ms).astype(int), spikes.i] = True
    return fired, np.asarray(margins.margin).T


def here(neuron: Neuron, sums: Array) -> Array:
    value = ValueType((N,), -(2**20), 2**20, UNIT)
    read: Any = neuron.reading(value)
    state = tuple(np.zeros((1, N), dtype) for _, _, dtype in read.state_spec([value]))
    clock = Clock(np.zeros(1, np.int64), np.ones(1, np.bool_))
    spikes: Array = read.run([sums[None].astype(np.int64)], state, clock)[0][0]
    return spikes.astype(np.bool_)


@pytest.mark.filterwarnings("ignore:.*argument is deprecated:DeprecationWarning")
@pytest.mark.parametrize("name", CASES)
def test_neuron_fires_at_the_steps_at_which_it_fires_in_brian2(name: str, sums: Array) -> None:
    case = CASES[name]
    wanted, margins = in_brian2(case, sums)
    assert np.abs(margins).min() > CLOSEST, "another seed: a spike hangs on a rounding"
    assert 200 < wanted.sum() < 0.6 * wanted.size
    assert (wanted[:90].any(axis=0) & wanted[150:].any(axis=0)).sum() > N / 2
    found = here(case.neuron, sums)
    assert np.array_equal(found, wanted), np.argwhere(found != wanted)[:3]


def test_currents_of_the_reference_are_those_that_neurons_read(sums: Array) -> None:
    assert np.array_equal(to_current(sums, UNIT), sums * 2.0**-UNIT)
