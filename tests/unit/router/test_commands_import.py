import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import typer
from safetensors.numpy import save_file
from typer.testing import CliRunner, Result

from router.commands_import import ImportCommandError, import_command
from tests.unit.topologies.hostile import NOT_READABLE, make
from topologies.files import FileError
from topologies.importers.nir_file import NirFileError, write_nir
from topologies.importers.source import SourceError
from topologies.loader import load_network
from topologies.model import NetworkError
from topologies.stages.encoder import EncodingError

pytestmark = pytest.mark.torch
Run = Callable[..., Result]
MODULE = """
import torch
from spikingjelly.activation_based import neuron

def net():
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(12, 10), neuron.LIFNode(2.0, v_threshold=0.1),
        torch.nn.Linear(10, 3), neuron.IFNode(0.2),
    )

def nothing():
    return 7
"""


@pytest.fixture
def run() -> Run:
    app = typer.Typer()
    app.command()(import_command)
    runner = CliRunner()
    return lambda *options: runner.invoke(app, list(map(str, options)), env={"COLUMNS": "200"})


@pytest.fixture
def nir_file(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    one = np.ones(3, np.float32)
    lif = {"tau": 2e-3 * one, "r": one, "v_leak": 0 * one, "v_threshold": 0.3 * one}
    nodes = {
        "input": {"type": "Input", "shape": np.array([4])},
        "fc": {"type": "Affine", "weight": rng.normal(size=(3, 4)), "bias": np.zeros(3)},
        "lif": {"type": "LIF", **lif, "v_reset": 0 * one},
        "output": {"type": "Output", "shape": np.array([3])},
    }
    edges = [("input", "fc"), ("fc", "lif"), ("lif", "output")]
    write_nir(tmp_path / "net.nir", {"type": "NIRGraph", "nodes": nodes, "edges": edges})
    return tmp_path / "net.nir"


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    (tmp_path / "my_nets.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    yield "my_nets:net"
    sys.modules.pop("my_nets", None)


def test_nir_file_becomes_a_network_file_that_is_loaded(run: Run, nir_file: Path) -> None:
    out = nir_file.with_name("topology.yaml")
    result = run(nir_file, "-o", out, "--dt", "1e-3", "--steps", "20", "--high", "2")
    assert result.exit_code == 0, result.output
    network = load_network(out)
    assert [layer.name for layer in network.layers] == ["fc", "lif"]
    assert (network.name, network.input.n_steps, network.input.high) == ("topology", 20, 2)
    assert "reset file, fire >" in out.read_text()
    assert "Compared with the graph before quantising on 16 random samples of 20 steps" in (
        result.output
    )
    assert "spike agreement: " in result.output
    assert "accuracy" not in result.output


def test_module_is_compared_with_its_library_on_samples(
    run: Run, module: str, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    images = (rng.random((5, 20, 3, 4)) < 0.4).astype(np.uint8)
    samples = tmp_path / "samples.safetensors"
    save_file({"images": images, "labels": np.zeros(5, np.int64)}, samples)
    result = run(module, "-o", tmp_path / "a.yaml", "--samples", samples, "--encoder", "events")
    assert result.exit_code == 0, result.output
    assert "Compared with spikingjelly on 5 given samples of 20 steps" in result.output
    assert "same class" in result.output
    assert "accuracy: " in result.output
    assert load_network(tmp_path / "a.yaml").input.shape == (3, 4)


def test_state_dict_is_read_from_safetensors(run: Run, module: str, tmp_path: Path) -> None:
    weights = {
        "1.weight": np.full((10, 12), 0.25, np.float32),
        "1.bias": np.zeros(10, np.float32),
        "3.weight": np.zeros((3, 10), np.float32),
        "3.bias": np.zeros(3, np.float32),
    }
    save_file(weights, tmp_path / "w.safetensors")
    out = tmp_path / "a.yaml"
    result = run(module, "-o", out, "--shape", "3,4", "--weights", tmp_path / "w.safetensors")
    assert result.exit_code == 0, result.output
    assert (load_network(out).layers[1].arrays["weight"] == 0.25).all()
    save_file({"other": np.zeros(1, np.float32)}, tmp_path / "w.safetensors")
    failed = run(module, "-o", out, "--shape", "3,4", "--weights", tmp_path / "w.safetensors")
    assert isinstance(failed.exception, SourceError)


def test_integers_are_not_guessed_to_be_events(run: Run, module: str, tmp_path: Path) -> None:
    save_file({"images": np.zeros((5, 20, 3, 4), np.uint8)}, tmp_path / "samples.safetensors")
    failed = run(module, "-o", tmp_path / "a.yaml", "--samples", tmp_path / "samples.safetensors")
    assert isinstance(failed.exception, ImportCommandError)
    assert "say --encoder events if they are (samples, steps, ...)" in str(failed.exception)


def test_range_of_events_is_that_of_the_samples(run: Run, module: str, tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 4, (5, 20, 3, 4)).astype(np.uint8)
    save_file({"images": images}, tmp_path / "samples.safetensors")
    out = tmp_path / "a.yaml"
    options = ("--samples", tmp_path / "samples.safetensors", "--encoder", "events")
    assert run(module, "-o", out, *options).exit_code == 0
    assert load_network(out).input.high == 3
    failed = run(module, "-o", out, *options, "--high", 1)
    assert isinstance(failed.exception, EncodingError)


def test_module_that_cannot_be_run_is_still_written(run: Run, module: str, tmp_path: Path) -> None:
    (tmp_path / "my_nets.py").write_text(
        "import snntorch, torch\n"
        "net = torch.nn.Sequential(snntorch.Leaky(0.5), torch.nn.Linear(4, 3))\n"
    )
    failed = run("my_nets:net", "-o", tmp_path / "a.yaml", "--shape", "4")
    assert isinstance(failed.exception, ImportCommandError)
    assert "is written, but the original cannot be run: " in str(failed.exception)
    assert load_network(tmp_path / "a.yaml").layers[1].kind == "linear"
    again = run("my_nets:net", "-o", tmp_path / "a.yaml", "--shape", "4", "--no-check")
    assert again.exit_code == 0


@pytest.mark.parametrize("name", ["net.pt", "net.pth", "net.pkl"])
def test_pickles_are_never_opened(run: Run, name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"cos\nsystem\n(S'touch harm'\ntR.")
    failed = run(tmp_path / name, "-o", tmp_path / "a.yaml")
    assert isinstance(failed.exception, SourceError)
    assert "may be a pickle, which runs code when it is loaded" in str(failed.exception)


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("no_such", "is neither a file nor a module"),
        ("no_such.nir", "there is no such file"),
        ("no_such_package:net", "cannot be found: No module named 'no_such_package'"),
        ("my_nets:other", "cannot be found: module 'my_nets' has no attribute 'other'"),
        ("my_nets:nothing", "gives a int, not a module"),
    ],
)
def test_source_that_is_none_is_refused(
    run: Run, module: str, source: str, sentence: str, tmp_path: Path
) -> None:
    failed = run(source, "-o", tmp_path / "a.yaml")
    assert isinstance(failed.exception, SourceError)
    assert sentence in str(failed.exception)


def test_module_without_a_shape_asks_for_it(run: Run, module: str, tmp_path: Path) -> None:
    failed = run(module, "-o", tmp_path / "a.yaml")
    assert isinstance(failed.exception, ImportCommandError)
    assert "legal is the shape of one sample or step, such as 1,8,8" in str(failed.exception)


def test_nir_file_without_dt_asks_for_it(run: Run, nir_file: Path) -> None:
    failed = run(nir_file, "-o", nir_file.with_name("a.yaml"))
    assert isinstance(failed.exception, NetworkError)
    assert "lif: a LIF has times in seconds" in str(failed.exception)
    assert not nir_file.with_name("a.yaml").exists()


@pytest.mark.parametrize(
    "kind", ["a folder", "a pipe", "a device", "no parent", "a parent that is a file"]
)
def test_place_where_no_file_can_be_is_refused_before_the_work(
    run: Run, nir_file: Path, kind: str, tmp_path: Path
) -> None:
    result = run(nir_file, "--dt", "1e-4", "-o", make(kind, tmp_path, "net.yaml"))
    assert isinstance(result.exception, FileError)
    assert "cannot be written" in str(result.exception)
    assert not (tmp_path / "net.safetensors").exists()


def test_network_file_does_not_take_the_place_of_its_own_weights(
    run: Run, nir_file: Path, tmp_path: Path
) -> None:
    result = run(nir_file, "--dt", "1e-4", "-o", tmp_path / "net.safetensors")
    assert "cannot be a network file" in str(result.exception)


@pytest.mark.timeout(30)
@pytest.mark.parametrize("option", ["--samples", "--weights"])
@pytest.mark.parametrize("kind", sorted(NOT_READABLE.keys() - {"a zero byte"}))
def test_option_that_names_no_file_is_refused_and_never_waited_for(
    run: Run, module: str, kind: str, option: str, tmp_path: Path
) -> None:
    path = make(kind, tmp_path, "a.safetensors")
    result = run(module, "-o", tmp_path / "net.yaml", "--shape", "12", option, path)
    assert isinstance(result.exception, ImportCommandError | SourceError)
    assert NOT_READABLE[kind] in str(result.exception)


@pytest.mark.timeout(30)
@pytest.mark.parametrize("kind", ["a folder", "a pipe", "a device", "a terabyte"])
def test_source_that_is_no_file_is_refused_and_never_waited_for(
    run: Run, kind: str, tmp_path: Path
) -> None:
    result = run(make(kind, tmp_path, "a.h5"), "-o", tmp_path / "net.yaml")
    assert isinstance(result.exception, NirFileError)
    assert NOT_READABLE[kind] in str(result.exception)


def test_name_that_no_topic_may_have_is_refused(run: Run, nir_file: Path, tmp_path: Path) -> None:
    for name in (".", "..", "snn.in.x"):
        result = run(nir_file, "--dt", "1e-4", "-o", tmp_path / "a.yaml", "--name", name)
        assert isinstance(result.exception, NetworkError)
