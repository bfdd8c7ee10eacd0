import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import typer
from safetensors.numpy import save_file
from typer.testing import CliRunner, Result

import loadtest.zoo as command
from loadtest.undisturbed import run_streams
from loadtest.zoo_trials import load_trial, records
from router.payload import unpack
from router.records import SPIKES
from topologies.compiled import CompiledNetwork
from topologies.compiler import compile_network
from topologies.loader import NetworkNotFound, load_network, zoo_entry
from topologies.model import Input, Layer, Network, Output, Source
from topologies.stages.base import Array
from topologies.trials import Trial, TrialError

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def network() -> CompiledNetwork:
    return compile_network(load_network("scnn_digits"))


@pytest.fixture
def run() -> Run:
    app = typer.Typer()
    app.command("eval")(command.eval_command)
    app.command("list")(command.list_command)
    runner = CliRunner()
    return lambda *options: runner.invoke(app, list(options), env={"COLUMNS": "120"})


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers come from the reference in this process."""

    async def serve(
        networks: Sequence[CompiledNetwork],
        trial: Trial,
        n_workers: int,
        answered: Callable[[int], None],
    ) -> dict[str, list[Array]]:
        answered(len(trial.streams))
        return {n.name: run_streams(n, np.stack(trial.streams)) for n in networks}

    monkeypatch.setattr(command, "serve", serve)


def test_image_is_a_whole_request(network: CompiledNetwork) -> None:
    trial = load_trial(zoo_entry("scnn_digits").samples, network)
    assert trial.n_samples == len(trial.streams) == 360
    (record,) = records("a", trial.streams[0], network)
    assert record.request
    assert record.shape == (1, 8, 8)


def test_sequence_is_a_stream_that_ends_where_nan_begins(tmp_path: Path) -> None:
    network = compile_network(load_network("srnn_vowels"))
    sequences = np.full((2, 4, 12), np.nan, np.float32)
    sequences[0, :3], sequences[1, :2] = 1.0, 2.0
    path = tmp_path / "samples.safetensors"
    save_file({"sequences": sequences, "labels": np.array([1, 2])}, path)
    trial = load_trial(path, network)
    assert [len(stream) for stream in trial.streams] == [3, 2]
    found = records("a", trial.streams[0], network)
    assert [(r.seq, r.end, r.request) for r in found] == [
        (0, False, False),
        (1, False, False),
        (2, True, False),
    ]


def test_graph_is_told_as_spikes_in_every_step(tmp_path: Path) -> None:
    neurons = Layer("if", "if", (Source("input"),))
    events = Input("tiny", (3, 2), "events", n_steps=2)
    network = compile_network(Network("tiny", events, (neurons,), Output("count", "if")))
    path = tmp_path / "graph.npz"
    np.savez(
        path,
        x_indptr=np.array([0, 1, 3]),
        x_indices=np.array([2, 0, 1]),
        y=np.array([0, 2]),
        test_index=np.array([1]),
    )
    trial = load_trial(path, network)
    assert trial.n_samples == 1
    found = records("a", trial.streams[0], network)
    assert [(r.dtype, r.steps, r.end) for r in found] == [(SPIKES, 1, False), (SPIKES, 1, True)]
    words = unpack([found[0].payload or b""], 1, 6, 0, 1).reshape(3, 2)
    assert words.tolist() == [[0, 1], [0, 1], [1, 0]]


def test_file_without_samples_is_refused(network: CompiledNetwork, tmp_path: Path) -> None:
    path = tmp_path / "samples.safetensors"
    save_file({"pictures": np.zeros(1)}, path)
    with pytest.raises(TrialError, match="images, sequences"):
        load_trial(path, network)


@pytest.mark.usefixtures("in_process")
def test_rows_are_printed_as_json(run: Run) -> None:
    result = run("eval", "scnn-digits", "--json")
    assert result.exit_code == 0
    (row,) = json.loads(result.stdout)["rows"]
    assert row["family"] == "SCNN"
    assert row["network"] == "scnn_digits"
    assert row["data"] == "digits"
    assert row["accuracy"] == row["accuracy_framework"] == pytest.approx(0.975)
    assert row["n_samples"] == 360


@pytest.mark.usefixtures("in_process")
def test_network_below_its_declared_accuracy_ends_with_code_1(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def all_the_same(
        networks: Sequence[CompiledNetwork],
        trial: Trial,
        n_workers: int,
        answered: Callable[[int], None],
    ) -> dict[str, list[Array]]:
        return {n.name: [np.eye(10)[:1]] * len(trial.streams) for n in networks}

    monkeypatch.setattr(command, "serve", all_the_same)
    result = run("eval", "scnn_digits")
    assert result.exit_code == 1
    assert "scnn_digits" in result.stdout


def test_unknown_network_is_refused(run: Run) -> None:
    assert isinstance(run("eval", "nowhere").exception, NetworkNotFound)


def test_list_shows_every_network_with_its_family(run: Run) -> None:
    rows = json.loads(run("list", "--json").stdout)["rows"]
    assert {"scnn_digits"} <= {row["name"] for row in rows}
    assert "SCNN" in run("list").stdout
