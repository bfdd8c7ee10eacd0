import numpy as np

from topologies.compiled import Group
from topologies.compiler import compile_network
from topologies.samples import dense_network, random_spikes
from topologies.stages.base import Array, Clock
from workers.backends import numba as backend
from workers.backends.numba import NumbaKernel
from workers.kernel import ReferenceKernel

SIZES = (40, 30, 20, 10)


def _step(kernel: NumbaKernel | ReferenceKernel, x: Array) -> Array:
    clock = Clock(np.zeros(len(x), np.int64), np.zeros(len(x), np.bool_))
    output, _ = kernel.step(kernel.init_state(len(x)), [x], clock)
    assert isinstance(output, np.ndarray)
    return output


def test_products_of_spikes_and_neurons_do_not_run_on_numpy() -> None:
    network = compile_network(dense_network(SIZES))
    for operator in network.operators.values():
        if operator.kind == "synaptic":
            kernel = NumbaKernel(operator, Group(0, 0, operator.output.n))
            assert [op.__module__ for op in kernel._ops] == [
                backend.__name__,
                "workers.backends.numpy",
            ]
            assert isinstance(kernel._ops[1].__closure__[0].cell_contents, backend._Advance)  # type: ignore[attr-defined]


def test_any_density_gives_the_bits_of_the_reference() -> None:
    network = compile_network(dense_network(SIZES))
    operator = next(o for o in network.operators.values() if o.kind == "synaptic")
    group = Group(0, 0, operator.output.n)
    n = operator.program.ports[0].n
    for density in (0.0, 0.01, 0.29, 0.31, 0.99):
        x = random_spikes(5, 6, n, density, seed=3)
        found = _step(NumbaKernel(operator, group), x)
        assert found.tobytes() == _step(ReferenceKernel(operator, group), x).tobytes()


def test_rows_left_over_from_passes_of_four_count_too() -> None:
    columns = np.arange(60, dtype=np.int16).reshape(12, 5)
    bias = np.array([1, -2, 3, -4, 5], np.int32)
    for n_active in range(12):
        x = np.zeros((1, 1, 12), np.uint8)
        x[0, 0, :n_active] = 1
        out = np.empty((1, 1, 5), np.float32)
        backend._add_rows(x, columns, bias, np.float32(0.5), out)
        assert out[0, 0].tolist() == ((columns[:n_active].sum(axis=0) + bias) * 0.5).tolist()
