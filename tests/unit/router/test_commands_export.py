from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from router.commands_export import export_command
from router.commands_import import import_command
from topologies.importers.nir_file import read_nir
from topologies.loader import NetworkNotFound, load_network

pytestmark = pytest.mark.torch
Run = Callable[..., Result]


@pytest.fixture
def run() -> Run:
    app = typer.Typer()
    app.command("export")(export_command)
    app.command("import")(import_command)
    runner = CliRunner()
    return lambda *options: runner.invoke(app, list(map(str, options)), env={"COLUMNS": "200"})


def test_file_is_one_that_the_reference_reader_takes(run: Run, tmp_path: Path) -> None:
    import nir

    out = tmp_path / "net.nir"
    result = run("export", "scnn_digits", "-o", out)
    assert result.exit_code == 0, result.output
    graph = nir.read(out)
    assert {type(node).__name__ for node in graph.nodes.values()} == {
        *("Input", "Conv2d", "LIF", "AvgPool2d", "Flatten", "Affine", "Output"),
    }
    assert "Read it again with --dt 0.0001 --reset subtract --fire '>='" in result.output
    assert "note: NIR says nothing of the readout 'mean'" in result.output


def test_file_that_was_written_is_imported_again(run: Run, tmp_path: Path) -> None:
    out, again = tmp_path / "net.nir", tmp_path / "again.yaml"
    run("export", "scnn_digits", "-o", out)
    options = ("--dt", "1e-4", "--reset", "subtract", "--fire", ">=", "--readout", "mean")
    encoder = ("--encoder", "direct", "--high", 16, "--grid", 0, "--unit", 4, "--steps", 4)
    result = run("import", out, "-o", again, *options, *encoder)
    assert result.exit_code == 0, result.output
    names = [layer.name for layer in load_network("scnn_digits").layers]
    assert [layer.name for layer in load_network(again).layers] == names
    assert read_nir(out)["type"] == "NIRGraph"


def test_network_that_is_not_there_is_refused(run: Run, tmp_path: Path) -> None:
    failed = run("export", "no_such_network", "-o", tmp_path / "net.nir")
    assert isinstance(failed.exception, NetworkNotFound)
