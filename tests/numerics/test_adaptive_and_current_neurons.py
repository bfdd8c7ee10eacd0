"""PLIF, CubaLIF and ALIF, bit for bit: against libraries where these have them, else against the
published recurrence written out for one neuron at a time, in float32.

Libraries: SpikingJelly 2.0.0 (ParametricLIFNode), snnTorch 1.0.0 (Synaptic), Norse 1.1.0 (LIFCell).
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from topologies.stages.alif import Alif
from topologies.stages.base import Array, ValueType, to_current
from topologies.stages.cubalif import CubaLif
from topologies.stages.dynamics import Neuron, Resetting
from topologies.stages.plif import Plif

N_STREAMS, N_STEPS, N, UNIT = 2, 260, 33, 10
# One step of a library: the current (B, n) -> spikes, and its states in the order of ours.
Step = Callable[[Any], tuple[Any, ...]]
f32 = np.float32


@pytest.fixture(scope="module")
def currents() -> Array:
    """Float32 (T, B, n): noise of several strengths, then 150 silent steps, then noise again."""
    rng = np.random.default_rng(5)
    strength = np.linspace(10, 3000, N)
    sums = np.rint(rng.normal(0.2, 1, (N_STEPS, N_STREAMS, N)) * strength)
    sums[70:220] = 0
    sums[:, 1] = 0
    sums[0, 1] = -900
    return to_current(sums, UNIT)


def bits(values: Any) -> Array:
    return np.ascontiguousarray(values, np.float32).view(np.uint32)


def start(neuron: Neuron) -> tuple[Array, ...]:
    zeros = np.zeros((N_STREAMS, N), np.float32)
    spec = neuron.state_spec([ValueType((N,), 0, 1)])
    found = tuple(zeros.astype(dtype) for _, _, dtype in spec)
    return neuron.begun(found, np.zeros(N_STREAMS, np.int64))


def assert_same_bits(neuron: Neuron, step: Step, currents: Array) -> None:
    """Every spike and every state, by their bits."""
    state, n_spikes = start(neuron), 0
    for t, current in enumerate(currents):
        spikes, state = neuron.advance(state, current)
        wanted, *theirs = step(current)
        assert np.array_equal(spikes, np.asarray(wanted) == 1), f"spikes of step {t}"
        for mine, other in zip(state, theirs, strict=False):
            assert np.array_equal(bits(mine), bits(other)), f"states of step {t}"
        n_spikes += int(spikes.sum())
    assert 100 < n_spikes < 0.9 * currents.size


@pytest.mark.torch
@pytest.mark.parametrize("v_reset", [None, 0.0, -0.3])
@pytest.mark.parametrize("decay_input", [True, False])
@pytest.mark.parametrize("w", [-0.7, 0.0, 1.3])
def test_plif_is_parametric_lif_node_of_spikingjelly(
    currents: Array, w: float, decay_input: bool, v_reset: float | None
) -> None:
    import torch
    from spikingjelly.activation_based.neuron import ParametricLIFNode

    node = ParametricLIFNode(v_threshold=0.6, v_reset=v_reset, decay_input=decay_input)
    node.w.data = torch.tensor(w)
    tau_inv = float(node.w.data.sigmoid())

    def step(current: Array) -> tuple[Any, ...]:
        with torch.no_grad():
            spikes = node(torch.from_numpy(current.copy()))
        return spikes.numpy(), node.v.numpy()

    params = {"tau_inv": tau_inv, "v_threshold": 0.6, "v_reset": v_reset}
    mine = Plif.authored({**params, "decay_input": decay_input})
    assert_same_bits(mine, step, currents)


@pytest.mark.torch
@pytest.mark.parametrize("delayed", [True, False])
@pytest.mark.parametrize(("mechanism", "v_reset"), [("subtract", None), ("zero", 0.0)])
@pytest.mark.parametrize(("alpha", "beta"), [(0.5, 0.9), (0.0, 0.7), (0.93, 1.0)])
def test_cubalif_is_synaptic_of_snntorch(
    currents: Array, alpha: float, beta: float, mechanism: str, v_reset: float | None, delayed: bool
) -> None:
    import snntorch
    import torch

    node = snntorch.Synaptic(alpha, beta, 0.73, reset_mechanism=mechanism, reset_delay=delayed)
    syn, mem = torch.zeros(N_STREAMS, N), torch.zeros(N_STREAMS, N)

    def step(current: Array) -> tuple[Any, ...]:
        nonlocal syn, mem
        spikes, syn, mem = node(torch.from_numpy(current.copy()), syn, mem)
        return spikes.detach().numpy(), mem.detach().numpy(), syn.detach().numpy()

    leaks = {"form": "snntorch", "alpha": alpha, "beta": beta}
    rest = {"v_threshold": 0.73, "v_reset": v_reset, "reset_delayed": delayed}
    assert_same_bits(CubaLif.authored({**leaks, **rest}), step, currents)


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:FutureWarning")
@pytest.mark.parametrize("v_leak", [0.0, 0.05])
@pytest.mark.parametrize("v_reset", [0.0, -0.1])
@pytest.mark.parametrize(("mem_inv", "syn_inv"), [(100.0, 200.0), (333.0, 77.0)])
def test_cubalif_is_lif_cell_of_norse(
    currents: Array, mem_inv: float, syn_inv: float, v_reset: float, v_leak: float
) -> None:
    import torch
    from norse.torch import LIFCell
    from norse.torch.functional.lif import LIFParameters

    cell = LIFCell(
        LIFParameters(
            tau_mem_inv=torch.as_tensor(mem_inv),
            tau_syn_inv=torch.as_tensor(syn_inv),
            v_leak=torch.as_tensor(v_leak),
            v_th=torch.as_tensor(0.3),
            v_reset=torch.as_tensor(v_reset),
        )
    )
    state = None

    def step(current: Array) -> tuple[Any, ...]:
        nonlocal state
        spikes, state = cell(torch.from_numpy(current.copy()), state)
        return spikes.detach().numpy(), state.v.detach().numpy(), state.i.detach().numpy()

    rates = {"form": "norse", "tau_mem_inv": mem_inv, "tau_syn_inv": syn_inv}
    rest = {"v_threshold": 0.3, "v_reset": v_reset, "v_leak": v_leak}
    assert_same_bits(CubaLif.authored({**rates, **rest}), step, currents)


def one_by_one(step: Callable[..., tuple[Any, ...]], *initial: float) -> Step:
    """A recurrence of one neuron, run for each; it takes and returns float32 numbers."""
    states = np.zeros((len(initial), N_STREAMS, N), np.float32)
    states += np.array(initial, np.float32)[:, None, None]

    def run(current: Array) -> tuple[Any, ...]:
        spikes = np.zeros(current.shape, np.bool_)
        for at in np.ndindex(current.shape):
            spikes[at], *after = step(at[1], current[at], *states[(slice(None), *at)])
            states[(slice(None), *at)] = after
        return (spikes, *states)

    return run


CONSTANTS: Mapping[str, Any] = {
    "one for all": (0.9, 0.95, 0.4, 0.7),
    "one per neuron": tuple(
        np.linspace(lo, hi, N) for lo, hi in ((0.3, 0.99), (0.5, 1.0), (0.1, 1.0), (0.2, 1.2))
    ),
}


def at(value: Any, n: int) -> np.float32:
    return f32(value[n] if isinstance(value, np.ndarray) else value)


@pytest.mark.parametrize("name", CONSTANTS)
def test_alif_is_the_recurrence_of_bellec_and_others(currents: Array, name: str) -> None:
    decay, rho, beta, threshold = CONSTANTS[name]

    def step(n: int, i: np.float32, v: Any, a: Any, z: Any) -> tuple[Any, ...]:
        v = f32(f32(at(decay, n) * v) + i)
        v = f32(v - f32(z * at(threshold, n)))
        a = f32(f32(at(rho, n) * a) + z)
        s = v > f32(at(threshold, n) + f32(at(beta, n) * a))
        return s, v, a, f32(s)

    mine = Alif(form="lsnn", decay=decay, rho=rho, beta=beta, v_threshold=threshold, fire=">")
    assert_same_bits(mine, one_by_one(step, 0.0, 0.0, 0.0), currents)


@pytest.mark.parametrize("n_refractory", [1, 2, 6])
def test_refractory_alif_is_the_recurrence_of_bellec_and_others(
    currents: Array, n_refractory: int
) -> None:
    """As its authors write it: n_refractory counts the step of the spike."""
    decay, rho, beta, threshold = CONSTANTS["one per neuron"]

    def step(n: int, i: np.float32, v: Any, a: Any, z: Any, r: Any) -> tuple[Any, ...]:
        v = f32(f32(f32(at(decay, n) * v) + i) - f32(z * at(threshold, n)))
        a = f32(f32(at(rho, n) * a) + z)
        s = f32(r == 0 and v > f32(at(threshold, n) + f32(at(beta, n) * a)))
        return s, v, a, s, min(max(r + n_refractory * s - 1, 0), n_refractory)

    constants = {"decay": decay, "rho": rho, "beta": beta, "v_threshold": threshold}
    mine = Alif(form="lsnn", **constants, fire=">", refractory=n_refractory - 1)
    assert_same_bits(mine, one_by_one(step, 0.0, 0.0, 0.0, 0.0), currents)


@pytest.mark.parametrize("name", CONSTANTS)
def test_alif_is_the_recurrence_of_yin_and_others(currents: Array, name: str) -> None:
    decay, rho, beta, threshold = CONSTANTS[name]

    def step(n: int, i: np.float32, v: Any, a: Any, z: Any) -> tuple[Any, ...]:
        a = f32(f32(at(rho, n) * a) + f32(f32(f32(1) - at(rho, n)) * z))
        now = f32(at(threshold, n) + f32(at(beta, n) * a))
        charge = f32(f32(f32(f32(1) - at(decay, n)) * f32(3.0)) * i)
        v = f32(f32(f32(at(decay, n) * v) + charge) - f32(now * z))
        s = v > now
        return s, v, a, f32(s)

    mine = Alif(form="yin", decay=decay, rho=rho, beta=beta, v_threshold=threshold, r=3.0, fire=">")
    assert_same_bits(mine, one_by_one(step, 0.0, 0.0, 0.0), currents)


@pytest.mark.parametrize("name", CONSTANTS)
def test_plain_cubalif_is_the_euler_recurrence_of_nir(currents: Array, name: str) -> None:
    decay, decay_syn, r, threshold = CONSTANTS[name]

    def step(n: int, x: np.float32, v: Any, i: Any) -> tuple[Any, ...]:
        i = f32(f32(at(decay_syn, n) * i) + f32(f32(0.8) * x))
        v = f32(f32(0.1) + f32(f32(at(decay, n) * f32(v - f32(0.1))) + f32(at(r, n) * i)))
        s = v >= at(threshold, n)
        return s, f32(-0.2) if s else v, i

    mine = CubaLif(
        form="plain", leak=decay, leak_syn=decay_syn, r=r, v_threshold=threshold, w_in=0.8,
        v_leak=0.1, v_reset=-0.2,
    )  # fmt: skip
    assert_same_bits(mine, one_by_one(step, -0.2, 0.0), currents)


@pytest.mark.parametrize(
    "neuron",
    [
        Plif(tau_inv=0.5, v_reset=0.25),
        CubaLif(form="norse", leak=0.1, leak_syn=0.2, v_leak=0.25, fire=">"),
    ],
)
def test_membranes_start_at_their_resting_value(neuron: Resetting) -> None:
    assert (start(neuron)[0] == 0.25).all()
