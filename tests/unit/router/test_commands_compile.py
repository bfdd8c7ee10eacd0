from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest
import typer
from safetensors.numpy import save_file
from typer.testing import CliRunner, Result

from router.commands_compile import CompileCommandError, compile_command
from tests.unit.topologies.hostile import NOT_READABLE, make
from topologies.compiler import CapacityError, compile_network
from topologies.errors import SpikeRouterError
from topologies.loader import NetworkNotFound, load_network
from topologies.profiles import ProfileError
from topologies.stages.base import Array

Run = Callable[..., Result]
NETWORK = "scnn_digits"


@pytest.fixture
def run() -> Run:
    app = typer.Typer()
    app.command()(compile_command)
    runner = CliRunner()
    return lambda *options: runner.invoke(app, list(map(str, options)), env={"COLUMNS": "200"})


def test_every_operator_is_printed_with_its_whole_hash(run: Run) -> None:
    result = run(NETWORK)
    assert result.exit_code == 0
    compiled = compile_network(load_network(NETWORK))
    assert all(oid in result.output for oid in compiled.operators)
    assert compiled.version in result.output


def test_granularity_and_capacity_choose_the_cut(run: Run) -> None:
    assert "conv1 lif1 pool1" in run(NETWORK).output
    assert "lif1 pool1 conv2" in run(NETWORK, "--granularity", "model").output
    assert "6 tasks" in run(NETWORK, "--neurons", "256").output


def test_tasks_are_counted_over_partitions(run: Run) -> None:
    assert "10 tasks on 2 partition(s)" in run(NETWORK, "--partitions", "2").output


def test_svg_alone_goes_to_the_output(run: Run) -> None:
    assert ET.fromstring(run(NETWORK, "--draw", "svg").output).tag.endswith("svg")


def test_text_shows_the_graph(run: Run) -> None:
    assert "<- [" in run(NETWORK, "--draw", "text").output


def test_accuracy_is_compared_on_samples(run: Run, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 17, (5, 8, 8)).astype(np.uint8)
    path = tmp_path / "samples.safetensors"
    save_file({"images": images, "labels": np.zeros(5, np.uint8)}, path)
    output = run(NETWORK, "--samples", str(path)).output
    assert "5 samples: 100.00% same class" in output
    assert "accuracy" in output


def test_zoo_network_is_compared_on_its_own_samples(run: Run) -> None:
    output = run(NETWORK).output
    assert "360 samples" in output


def test_profile_cuts_and_reports_what_bits_cost(run: Run, tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 17, (4, 8, 8)).astype(np.uint8)
    path = tmp_path / "samples.safetensors"
    save_file({"images": images, "labels": np.zeros(4, np.uint8)}, path)
    output = run(NETWORK, "--profile", "spinnaker1-core", "--samples", str(path)).output
    rows = [line.split() for line in output.splitlines()]
    assert ["conv1", "lif1", "pool1", "3"] in [row[:4] for row in rows]
    assert {"auto", "8", "4"} <= {row[0] for row in rows if len(row) == 3}


def test_profile_bounds_the_bits_of_weights(run: Run) -> None:
    compiled = compile_network(load_network(NETWORK), bits=8)
    output = run(NETWORK, "--profile", "loihi2-core").output
    assert all(oid in output for oid in compiled.operators)


def test_profile_cuts_what_runs_on_nodes_and_leaves_a_large_readout_to_their_host(run: Run) -> None:
    done = run("sgnn_cora", "--profile", "darwin3-core")
    assert done.exit_code == 0, done.output
    rows = [line.split() for line in done.output.splitlines()]
    assert ["fc1", "graph1", "lif", "32"] in [row[:4] for row in rows]
    assert "1000 samples" in done.output


def test_profile_reports_what_bits_cost_on_sequences_of_any_length(run: Run) -> None:
    output = run("srnn_vowels", "--profile", "loihi2-core").output
    assert "370 samples" in output
    rows = {row[0]: row for row in map(str.split, output.splitlines()) if len(row) == 3}
    coarse, fine = (float(rows[bits][2].rstrip("%")) for bits in ("4", "8"))
    assert coarse < fine <= 100.0


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (["nowhere"], NetworkNotFound),
        ([NETWORK, "--bits", "many"], CompileCommandError),
        ([NETWORK, "--samples", "nowhere"], CompileCommandError),
        ([NETWORK, "--neurons", "3"], CapacityError),
        ([NETWORK, "--profile", "abacus"], ProfileError),
    ],
)
def test_illegal_options_end_in_a_sentence(
    run: Run, options: list[str], error: type[Exception]
) -> None:
    raised = run(*options).exception
    assert isinstance(raised, error)
    assert str(raised).rstrip().endswith((".", ")."))


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", ["a.npz", "a.safetensors"])
@pytest.mark.parametrize("kind", sorted(NOT_READABLE.keys() - {"a zero byte"}))
def test_samples_that_are_no_file_are_refused_and_never_waited_for(
    run: Run, kind: str, name: str, tmp_path: Path
) -> None:
    raised = run(NETWORK, "--samples", make(kind, tmp_path, name)).exception
    assert isinstance(raised, CompileCommandError)
    assert NOT_READABLE[kind] in str(raised)


@pytest.mark.parametrize("name", ["a.npz", "a.safetensors"])
def test_samples_that_hold_none_are_refused(run: Run, name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"PK\x03\x04 no arrays at all")
    raised = run(NETWORK, "--samples", tmp_path / name).exception
    assert isinstance(raised, CompileCommandError)


@pytest.mark.parametrize(
    "arrays",
    [
        {"images": np.float32(1).reshape(())},
        {"images": np.zeros((0, 1, 8, 8))},
        {"images": np.ones((2, 1, 8, 8)), "labels": np.float32(1).reshape(())},
        {"images": np.ones((2, 1, 8, 8)), "labels": np.arange(3)},
        {"images": np.ones((2, 1, 8, 8)) * np.nan},
        {"sequences": np.ones(3)},
        {"sequences": np.arange(24).reshape(2, 3, 4)},
        {"sequences": np.ones((2, 3, 4))},
        {"x_indptr": np.arange(3)},
        {"x_indptr": np.arange(3), "x_indices": np.arange(9), "y": np.arange(2),
         "test_index": np.arange(9)},
    ],
)  # fmt: skip
def test_samples_that_do_not_fit_are_refused_with_a_sentence(
    run: Run, arrays: dict[str, Array], tmp_path: Path
) -> None:
    np.savez(tmp_path / "a.npz", **arrays)  # type: ignore[arg-type]
    raised = run(NETWORK, "--samples", tmp_path / "a.npz").exception
    assert isinstance(raised, SpikeRouterError), repr(raised)
