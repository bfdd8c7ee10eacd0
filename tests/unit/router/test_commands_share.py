import json
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
import typer
from typer.testing import CliRunner, Result

from router.commands_share import ShareCommandError, share_command
from topologies.loader import NetworkNotFound
from topologies.sharing import SharingError

Run = Callable[..., Result]
NETWORK = "scnn_digits"


@pytest.fixture
def run() -> Run:
    app = typer.Typer()
    app.command()(share_command)
    runner = CliRunner()
    return lambda *options: runner.invoke(app, list(options), env={"COLUMNS": "100"})


def test_table_counts_operators_and_spares(run: Run) -> None:
    result = run(NETWORK)
    assert result.exit_code == 0
    row = next(line.split() for line in result.output.splitlines() if NETWORK in line)
    assert row == [NETWORK, "5", "5", "5", "4", "0", "0", "1.00"]
    assert "per signature class" in result.output


def test_json_has_the_same_numbers(run: Run) -> None:
    told = json.loads(run(NETWORK, "--json").output)
    assert told["total"]["operators"] == 5
    assert told["total"]["distinct"] == {"exact": 5, "signature": 5, "kind": 4}
    assert [row["pool"] for row in told["spares"]] == ["per model", "exact", "signature", "kind"]
    assert told["spares"][0]["saved"] == 0


def test_coarser_services_are_fewer(run: Run) -> None:
    told = json.loads(run(NETWORK, "--granularity", "model", "--json").output)
    assert told["total"]["operators"] == 2


def test_picture_is_written(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "sharing.svg"
    assert str(path)[:20] in run(NETWORK, "--svg", str(path)).output
    assert ET.fromstring(path.read_text()).tag.endswith("svg")


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (["nowhere"], NetworkNotFound),
        ([NETWORK, NETWORK], SharingError),
        ([NETWORK, "--svg", "/nowhere/sharing.svg"], ShareCommandError),
    ],
)
def test_illegal_options_end_in_a_sentence(
    run: Run, options: list[str], error: type[Exception]
) -> None:
    raised = run(*options).exception
    assert isinstance(raised, error)
    assert str(raised).rstrip().endswith(".")
