"""Operators of Brian2: the same bits on every backend, in every batch, cut and window, after every
restart; on one machine with one installation (docs/numerics.md, rule 18)."""

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
import yaml
from safetensors.numpy import save_file
from typer.testing import CliRunner

from router.commands_compile import compile_command
from router.commands_share import share_command
from tests.brian2_networks import LAYERS, N_IN, make_network
from topologies.compiled import CompiledNetwork, Group, Operator, run_reference
from topologies.compiler import Capacity, compile_network
from topologies.compiler.cut import Granularity
from topologies.model import Layer, NetworkError, Source
from topologies.stages.base import Array, Clock, StageError, ValueType
from topologies.stages.brian2 import Brian2
from workers.conformance import admit, fingerprint
from workers.kernel import Kernel, load_kernel

pytestmark = pytest.mark.brian2

BACKENDS = ["reference", "numpy", "numba", pytest.param("torch", marks=pytest.mark.torch)]
ROOT = Path(__file__).parents[2]
VALUE = ValueType((4,), -300, 500, 6)


def cells_of(network: CompiledNetwork) -> Operator:
    """The operator with the layer of Brian2."""
    (found,) = [
        o for o in network.operators.values()
        if any(isinstance(stage, Brian2) for stage in o.program.stages)
    ]  # fmt: skip
    return found


@pytest.fixture(scope="module")
def networks() -> Mapping[str, CompiledNetwork]:
    return {name: compile_network(make_network(name)) for name in LAYERS}


def whole(operator: Operator) -> Group:
    return Group(0, 0, operator.output.n)


def spikes(n_streams: int, n_steps: int) -> Array:
    return (np.random.default_rng(3).random((n_streams, n_steps, N_IN)) < 0.4).astype(np.uint8)


def stepped(kernel: Kernel, x: Array, *cuts: int) -> tuple[Array, tuple[Array, ...]]:
    """All windows between the cuts, and the last state."""
    state, parts = kernel.init_state(len(x)), []
    for lo, hi in zip((0, *cuts), (*cuts, x.shape[1]), strict=True):
        clock = Clock(np.full(len(x), lo, np.int64), np.full(len(x), hi == x.shape[1]))
        output, state = kernel.step(state, [x[:, lo:hi]], clock)
        parts.append(output)
    return np.concatenate(parts, axis=1), state


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", LAYERS)
def test_every_backend_is_admitted(
    networks: Mapping[str, CompiledNetwork], name: str, backend: str
) -> None:
    operator = cells_of(networks[name])
    kernel = admit(operator, whole(operator), backend, 33)
    output, _ = stepped(kernel, spikes(5, 60))
    assert 0.005 < output.mean() < 0.9


@pytest.mark.parametrize("name", LAYERS)
def test_batches_windows_and_groups_change_no_bit(
    networks: Mapping[str, CompiledNetwork], name: str
) -> None:
    operator, x = cells_of(networks[name]), spikes(7, 30)
    once, final = stepped(load_kernel(operator, whole(operator)), x)
    for b in (0, 6):
        alone, after = stepped(load_kernel(operator, whole(operator)), x[b : b + 1], 4, 5, 17)
        assert alone[0].tobytes() == once[b].tobytes()
        assert [a[0].tobytes() for a in after] == [a[b].tobytes() for a in final]
    groups = [Group(0, 0, 3), Group(1, 3, operator.output.n)]
    cut = [stepped(load_kernel(operator, group), x, 9) for group in groups]
    assert np.concatenate([c[0] for c in cut], axis=2).tobytes() == once.tobytes()
    for mine, (left, right) in zip(final, zip(*(c[1] for c in cut), strict=True), strict=True):
        assert np.concatenate([left, right], axis=1).tobytes() == mine.tobytes()


def test_compiling_cuts_neurons_into_groups_and_keeps_the_result(
    networks: Mapping[str, CompiledNetwork],
) -> None:
    authored = make_network("leaky")
    cut = compile_network(authored, capacity=Capacity(10, None))
    oid = cells_of(cut).id
    assert [group.hi - group.lo for group in cut.groups[oid]] == [10, 10]
    assert oid == cells_of(networks["leaky"]).id
    x, seeds = spikes(3, 12), np.zeros(3, np.uint64)
    wanted = run_reference(networks["leaky"], x, seeds)
    for mine, right in zip(run_reference(cut, x, seeds), wanted, strict=True):
        assert mine.tobytes() == right.tobytes()


def test_neurons_that_read_themselves_may_be_one_operator_or_several() -> None:
    network = make_network("leaky")
    first, cells, *others = network.layers
    weight = np.random.default_rng(1).normal(0.0, 0.3, (20, 20))
    layers = (
        first,
        Layer("back", "linear", (Source("cells", 2),), {}, {"weight": weight}),
        Layer("sum", "add", (Source("synapses"), Source("back"))),
        replace(cells, sources=(Source("sum"),)),
        *others,
    )
    source = replace(network.input, longest_window=2)
    recurrent = replace(network, layers=layers, input=source)
    x, seeds, found = spikes(3, 12), np.zeros(3, np.uint64), []
    granularities: tuple[Granularity, ...] = ("layer", "model")
    for granularity in granularities:
        compiled = compile_network(recurrent, granularity=granularity)
        extras = [operator.program.extras for operator in compiled.operators.values()]
        assert extras == [(), ("brian2",), ()]
        found.append([a.tobytes() for a in run_reference(compiled, x, seeds)])
    assert found[0] == found[1]
    assert len(set(found[0])) == 3


def test_artifact_of_the_operator_reads_back_with_its_hash(
    networks: Mapping[str, CompiledNetwork],
) -> None:
    operator = cells_of(networks["adaptive, refractory, in volts"])
    again = Operator.from_bytes(operator.to_bytes(), expected=operator.id)
    x = spikes(2, 20)
    one, two = (stepped(load_kernel(o, whole(o)), x)[0] for o in (operator, again))
    assert one.tobytes() == two.tobytes()


def test_threads_that_step_at_once_do_not_meet(networks: Mapping[str, CompiledNetwork]) -> None:
    operator, x = cells_of(networks["izhikevich"]), spikes(6, 40)
    wanted, _ = stepped(load_kernel(operator, whole(operator)), x)
    found: dict[int, Array] = {}

    def work(b: int) -> None:
        kernel = load_kernel(operator, whole(operator))
        found[b] = stepped(kernel, x[b : b + 1], *range(1, 40))[0]

    threads = [threading.Thread(target=work, args=(b,)) for b in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(found[b][0].tobytes() == wanted[b].tobytes() for b in range(6))


_OTHER_PROCESS = """
import json, os, signal, sys, tempfile, threading
before = signal.getsignal(signal.SIGINT)
from tests.brian2_networks import LAYERS, make_network
from tests.numerics.test_brian2_operator import cells_of, whole
from topologies.compiler import compile_network
from workers.conformance import fingerprint
from workers.kernel import load_kernel
found = {}
def work():
    for name in reversed(LAYERS):
        operator = cells_of(compile_network(make_network(name)))
        found[name] = [operator.id, fingerprint(load_kernel(operator, whole(operator)), 3)]
thread = threading.Thread(target=work)
thread.start()
thread.join()
hooks = [sys.excepthook is sys.__excepthook__, signal.getsignal(signal.SIGINT) is before]
files = [name for name in os.listdir(tempfile.gettempdir()) if "brian" in name]
print(json.dumps({"found": found, "hooks": hooks, "files": files}))
"""


@pytest.fixture(scope="module")
def other_process(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What a process of other hashes of strings found, whose Brian2 ran on a thread."""
    place = str(tmp_path_factory.mktemp("temporary"))
    done = subprocess.run(
        [sys.executable, "-c", _OTHER_PROCESS],
        cwd=ROOT, capture_output=True, text=True, timeout=100,
        env={**os.environ, "PYTHONHASHSEED": "4711", "TMPDIR": place},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_another_process_with_other_hashes_of_strings_gives_the_same_bits(
    networks: Mapping[str, CompiledNetwork], other_process: Any
) -> None:
    for name, network in networks.items():
        operator = cells_of(network)
        mine = [operator.id, fingerprint(load_kernel(operator, whole(operator)), 3)]
        assert other_process["found"][name] == mine


def test_brian2_takes_over_neither_exceptions_nor_interrupts_and_leaves_no_files(
    other_process: Any,
) -> None:
    assert other_process["hooks"] == [True, True]
    assert other_process["files"] == []


def run(layer: Mapping[str, Any], sums: Array) -> tuple[Array, tuple[Array, ...]]:
    """Streams (B, T, 4) of sums, from step 0."""
    stage = Brian2.lowered(layer, {}, [VALUE])
    state = tuple(np.zeros((len(sums), 4), dtype) for _, _, dtype in stage.state_spec([VALUE]))
    clock = Clock(np.zeros(len(sums), np.int64), np.zeros(len(sums), np.bool_))
    return stage.run([sums], state, clock)


def test_current_is_the_exact_sum_in_units_of_the_input() -> None:
    layer = {
        "equations": "dv/dt = I/ms : 1", "threshold": "v > 1e9", "dt": "1*ms", "method": "euler",
    }  # fmt: skip
    sums = np.random.default_rng(1).integers(-300, 500, (2, 9, 4))
    _, (v,) = run(layer, sums)
    assert np.array_equal(v, sums.sum(axis=1) / 64)


@pytest.mark.parametrize("n_silent", [0, 1, 4])
def test_refractory_neuron_is_silent_and_pauses_for_its_time(n_silent: int) -> None:
    layer = {
        "equations": "dv/dt = I/ms : 1 (unless refractory)",
        "threshold": "v > 0.5",
        "reset": "v = 0",
        "refractory": f"{n_silent + 1}*ms",
        "dt": "1*ms",
        "method": "euler",
    }
    fired, _ = run(layer, np.full((1, 24, 4), 64))
    assert set(np.diff(np.flatnonzero(fired[0, :, 0]))) == {n_silent + 1}


def test_state_that_is_no_number_any_more_ends_its_stream_with_an_error() -> None:
    layer = {
        "equations": "dv/dt = v**2*I/ms + I/ms : 1",
        "threshold": "v < -1",
        "dt": "1*ms",
        "method": "euler",
    }
    stage = Brian2.build({**Brian2.authored(layer).params(), "unit": 6}, {})
    state, clock = (np.zeros((1, 4)),), Clock(np.zeros(1, np.int64), np.zeros(1, np.bool_))
    with pytest.raises(StageError, match="state v of a brian2 neuron is no finite number"):
        stage.run([np.full((1, 30, 4), 500)], state, clock)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"equations": "dv/dt = (I*volt - v)/tau : 1"}, "uses inconsistent units"),
        ({"equations": "dv/dt = gain*I : 1"}, "does not have the expected unit"),
        ({"equations": "dv/dt = (exp(v) - gain*I)/tau : 1"}, "conditionally linear"),
        ({"threshold": "v > 1*mV"}, "different units"),
        ({"reset": "v = 1*mV"}, "unit"),
        ({"dt": 1}, "dt is 1.0: it must be a time"),
        ({"dt": "0*ms"}, r"dt is \(0.0 \* ms\): it must be a time"),
        ({"refractory": "-1*ms"}, "refractory is .*: it must be a time"),
        ({"initial": {"v": "1*mV"}}, "has another unit than v"),
        ({"parameters": {"tau": "1/0*ms", "gain": 1}}, "division by zero"),
        ({"parameters": {"tau": "5*ms", "gain": 1, "mole": 1}}, "mole is a unit"),
        ({"equations": "dv/dt = 1e300*(I + 1)*(v + 1e300)/tau : 1"}, "refuses .*'inf'"),
        (
            {
                "equations": "dv/dt = (1e200*v*v + I + 9)/ms : 1",
                "threshold": "v < -1",
                "method": "euler",
            },
            "no finite number",
        ),
    ],
)
def test_what_brian2_would_refuse_is_a_fault_of_the_network_file(
    changes: Mapping[str, Any], sentence: str
) -> None:
    with pytest.raises(StageError, match=sentence):
        Brian2.lowered({**LAYERS["leaky"], **changes}, {}, [VALUE])


def test_example_of_the_documents_is_legal() -> None:
    text = (ROOT / "docs" / "topology-format.md").read_text()
    (block,) = [b for b in re.findall(r"```yaml\n(.*?)```", text, re.S) if "kind: brian2" in b]
    (layer,) = yaml.safe_load(block)
    params = {name: value for name, value in layer.items() if name not in ("name", "kind")}
    fired, _ = run(params, np.full((1, 50, 4), 300))
    assert 0 < fired.sum() < fired.size


@pytest.mark.parametrize("command", [compile_command, share_command])
def test_commands_say_which_operators_are_not_portable(
    tmp_path: Path, command: Callable[..., None]
) -> None:
    network = make_network("leaky")
    arrays = {f"{x.name}.{n}": a for x in network.layers for n, a in x.arrays.items()}
    save_file(
        {n: a.astype(np.float32) for n, a in arrays.items()}, tmp_path / "weights.safetensors"
    )
    file = {
        "format": 1,
        "name": network.name,
        "input": {"shape": [N_IN], "encoder": {"kind": "events"}, "n_steps": 12},
        "layers": [{"name": x.name, "kind": x.kind, **x.params} for x in network.layers],
        "output": {"readout": "count"},
    }
    (tmp_path / "network.yaml").write_text(yaml.safe_dump(file))
    app = typer.Typer()
    app.command()(command)
    done = CliRunner().invoke(app, [str(tmp_path)], env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    assert "not portable: synapses+cells: same bits on one machine" in done.output


def test_faults_of_a_layer_are_told_with_their_place() -> None:
    network = make_network("leaky")
    first, cells, *others = network.layers
    wrong = replace(cells, params={**cells.params, "threshold": "v.real > 1"})
    with pytest.raises(NetworkError, match=r"cells.*threshold has 'v.real'"):
        compile_network(replace(network, layers=(first, wrong, *others)))
