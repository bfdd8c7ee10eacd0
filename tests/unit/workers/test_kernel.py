"""Loading kernels, and what every kernel keeps to."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from topologies.compiled import Group, Operator, Program
from topologies.stages.base import Array, Clock, StageError, ValueType
from topologies.stages.linear import Linear
from topologies.stages.neuron import Lif
from workers.kernel import Kernel, KernelError, check_subnormals, load_kernel

BACKENDS = ["reference", "numpy", pytest.param("torch", marks=pytest.mark.torch)]
PORT = ValueType((30,), 0, 1)


@pytest.fixture(scope="module")
def operator() -> Operator:
    rng = np.random.default_rng(0)
    weight = rng.integers(-300, 400, (20, 30)).astype(np.int16)
    synapses = Linear(weight, np.zeros(20, np.int64), 10, "float32")
    neuron = Lif(form="plain", leak=0.5).reading(synapses.out_type([PORT]))
    return Operator.of(Program((PORT,), (synapses, neuron), ((-1,), (0,))))


@pytest.fixture(params=BACKENDS)
def kernel(request: pytest.FixtureRequest, operator: Operator) -> Kernel:
    return load_kernel(operator, Group(0, 0, 20), request.param)


def _spikes(n_streams: int, n_steps: int) -> Array:
    made: Array = np.random.default_rng(1).random((n_streams, n_steps, 30)) < 0.3
    return made.astype(np.uint8)


def _clock(n: int) -> Clock:
    return Clock(np.zeros(n, np.int64), np.zeros(n, np.bool_))


def test_unknown_backend_is_refused_with_the_known_ones(operator: Operator) -> None:
    with pytest.raises(KernelError, match="'abacus': known are numba, numpy, reference, torch"):
        load_kernel(operator, Group(0, 0, 20), "abacus")


def test_group_beyond_the_operator_is_refused(operator: Operator) -> None:
    with pytest.raises(StageError):
        load_kernel(operator, Group(0, 10, 21), "numpy")


def test_outputs_are_the_groups_slice_in_the_edges_dtype(kernel: Kernel) -> None:
    spikes = _spikes(4, 6)
    whole, _ = kernel.step(kernel.init_state(4), [spikes], _clock(4))
    part = load_kernel(kernel.operator, Group(1, 7, 20))
    output, state = part.step(part.init_state(4), [spikes], _clock(4))
    assert isinstance(output, np.ndarray)
    assert isinstance(whole, np.ndarray)
    assert output.dtype == np.uint8
    assert output.flags.c_contiguous
    assert output.shape == (4, 6, 13)
    assert np.array_equal(output, whole[:, :, 7:])
    assert [array.shape for array in state] == [(4, 13)]


def test_state_is_named_and_of_this_group_only(operator: Operator) -> None:
    part = load_kernel(operator, Group(1, 7, 20))
    assert part.state_spec() == (("1.v", (13,), "float32"),)


def test_state_and_inputs_are_not_written_to(kernel: Kernel) -> None:
    spikes, state = _spikes(3, 5), kernel.init_state(3)
    state[0][...] = 0.25
    before = spikes.copy()
    kernel.step(state, [spikes], _clock(3))
    assert (state[0] == 0.25).all()
    assert np.array_equal(spikes, before)


def test_read_only_and_scattered_inputs_are_taken(kernel: Kernel) -> None:
    spikes = _spikes(3, 5)
    wanted, _ = kernel.step(kernel.init_state(3), [spikes], _clock(3))
    scattered = np.zeros((6, 5, 60), np.uint8)[::2, :, ::2]
    scattered[...] = spikes
    scattered.flags.writeable = False
    state = kernel.init_state(3)
    for array in state:
        array.flags.writeable = False
    found, _ = kernel.step(state, [scattered], _clock(3))
    assert np.array_equal(np.asarray(found), np.asarray(wanted))


def test_window_without_steps_keeps_the_state(kernel: Kernel) -> None:
    state = kernel.init_state(2)
    state[0][...] = 0.25
    output, after = kernel.step(state, [_spikes(2, 0)], _clock(2))
    assert np.asarray(output).shape == (2, 0, 20)
    assert np.array_equal(after[0], state[0])


def test_silence_and_full_input_differ(kernel: Kernel) -> None:
    silent, _ = kernel.step(kernel.init_state(1), [np.zeros((1, 4, 30), np.uint8)], _clock(1))
    loud, _ = kernel.step(kernel.init_state(1), [np.ones((1, 4, 30), np.uint8)], _clock(1))
    assert not np.asarray(silent).any()
    assert np.asarray(loud).any()


def test_subnormals_are_kept_on_every_thread() -> None:
    check_subnormals()
    with ThreadPoolExecutor(2) as threads:
        for done in [threads.submit(check_subnormals) for _ in range(4)]:
            done.result()


def test_thread_that_flushes_subnormals_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(np, "full", lambda n, value, dtype: np.zeros(n, dtype))
    with pytest.raises(KernelError, match="flushes subnormal floats to zero"):
        check_subnormals()


@pytest.mark.torch
@pytest.mark.parametrize("mode", ["BF16", "any", "TF32"])
def test_torch_refuses_to_compute_in_fewer_bits(
    operator: Operator, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    monkeypatch.setenv("ONEDNN_DEFAULT_FPMATH_MODE", mode)
    with pytest.raises(KernelError, match="fewer bits than float32"):
        load_kernel(operator, Group(0, 0, 20), "torch")


@pytest.mark.torch
def test_torch_is_left_without_nnpack_and_with_full_precision(operator: Operator) -> None:
    import torch

    load_kernel(operator, Group(0, 0, 20), "torch")
    assert torch.get_float32_matmul_precision() == "highest"
    assert torch.backends.nnpack.set_flags(False) == (False,)


@pytest.mark.torch
def test_torch_refuses_a_process_without_onednn(
    operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)
    with pytest.raises(KernelError, match="oneDNN is switched off"):
        load_kernel(operator, Group(0, 0, 20), "torch")
