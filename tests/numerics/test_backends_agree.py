"""Every backend gives the reference's bits, whole and in groups."""

from collections.abc import Callable

import numpy as np
import pytest

from topologies.compiled import Group, Operator
from topologies.stages.base import Array, Clock
from workers.conformance import check, fingerprint
from workers.kernel import ReferenceKernel, load_kernel

BACKENDS = ["numpy", "numba", pytest.param("torch", marks=pytest.mark.torch)]
Whole = Callable[[Operator], Group]


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_operator_gives_the_bits_of_the_reference(
    operators: dict[str, Operator], whole: Whole, backend: str
) -> None:
    for operator in operators.values():
        group = whole(operator)
        check(load_kernel(operator, group, backend), ReferenceKernel(operator, group), 33)


def test_operators_that_are_compared_neither_sleep_nor_fire_always(
    operators: dict[str, Operator], whole: Whole
) -> None:
    for name, operator in operators.items():
        if operator.kind == "readout":
            continue
        output = _outputs(operator, whole(operator), "reference", _inputs(operator, 4, 12))
        assert 0.01 < output.mean() / operator.output.high < 0.9, name


@pytest.mark.parametrize("backend", BACKENDS)
def test_fingerprint_is_that_of_the_reference(
    operators: dict[str, Operator], whole: Whole, backend: str
) -> None:
    for operator in operators.values():
        group = whole(operator)
        wanted = fingerprint(ReferenceKernel(operator, group), 20)
        assert fingerprint(load_kernel(operator, group, backend), 20) == wanted


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_legal_cut_into_groups_gives_the_bits_of_the_whole(
    operators: dict[str, Operator], whole: Whole, backend: str
) -> None:
    cut = 0
    for operator in operators.values():
        granule = operator.program.granule()
        if granule is None or granule == operator.output.n:
            continue
        cut += 1
        middle = operator.output.n // granule // 2 * granule
        groups = [Group(0, 0, middle), Group(1, middle, operator.output.n)]
        inputs = _inputs(operator, 5, 6)
        parts = [_outputs(operator, group, backend, inputs) for group in groups]
        uncut = _outputs(operator, whole(operator), backend, inputs)
        assert np.concatenate(parts, axis=2).tobytes() == uncut.tobytes()
    assert cut > 10


@pytest.mark.parametrize("backend", BACKENDS)
def test_cut_into_windows_and_batches_gives_the_bits_of_one_run(
    operators: dict[str, Operator], whole: Whole, backend: str
) -> None:
    for operator in operators.values():
        inputs = _inputs(operator, 7, 9)
        kernel = load_kernel(operator, whole(operator), backend)
        start, end = np.zeros(7, np.int64), np.ones(7, np.bool_)
        once, final = kernel.step(kernel.init_state(7), inputs, Clock(start, end))
        for b in (0, 6):
            pieces, state = [], kernel.init_state(1)
            for lo, hi in ((0, 4), (4, 4), (4, 5), (5, 9)):
                clock = Clock(np.array([lo]), np.array([hi == 9]))
                one = [port[b : b + 1, lo:hi] for port in inputs]
                output, state = kernel.step(state, one, clock)
                pieces.append(output[0])
            assert np.concatenate(pieces).tobytes() == np.asarray(once[b]).tobytes()
            for mine, theirs in zip(state, final, strict=True):
                assert mine[0].tobytes() == theirs[b].tobytes()


def _inputs(operator: Operator, n_streams: int, n_steps: int) -> list[Array]:
    rng = np.random.default_rng(9)
    made = []
    for port in operator.program.ports:
        size = (n_streams, n_steps, port.n)
        if port.is_spike:
            made.append((rng.random(size) < 0.3).astype(np.uint8))
        else:
            made.append(rng.integers(port.low, port.high, size, endpoint=True).astype(np.int16))
    return made


def _outputs(operator: Operator, group: Group, backend: str, inputs: list[Array]) -> Array:
    kernel = load_kernel(operator, group, backend)
    n = len(inputs[0])
    clock = Clock(np.zeros(n, np.int64), np.zeros(n, np.bool_))
    output, _ = kernel.step(kernel.init_state(n), inputs, clock)
    assert isinstance(output, np.ndarray)
    return output
