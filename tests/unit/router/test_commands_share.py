import json
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
import typer
from typer.testing import CliRunner, Result

from router.commands_share import ShareCommandError, share_command
from topologies.loader import NetworkNotFound, find_network, zoo_networks
from topologies.sharing import SharingError

Run = Callable[..., Result]
NETWORK = "scnn_digits"
DOCS = Path(__file__).parents[3] / "docs"


@pytest.fixture
def run() -> Run:
    app = typer.Typer()
    app.command()(share_command)
    runner = CliRunner()
    return lambda *options: runner.invoke(app, list(options), env={"COLUMNS": "100"})


def test_table_counts_operators_and_spares(run: Run) -> None:
    result = run(NETWORK)
    assert result.exit_code == 0
    rows = [line.split() for line in result.output.splitlines()]
    assert [NETWORK, "5", "5", "5", "4", "0", "0"] in rows
    assert ["SCNN", "1", "5", "5", "(1.00)", "5", "(1.00)", "4", "(1.25)"] in rows
    assert ["SCNN", "5", "5", "(0%)", "5", "(0%)", "4", "(20%)"] in rows


def test_json_has_the_same_numbers_of_networks_families_and_all(run: Run) -> None:
    told = json.loads(run(NETWORK, "--json").output)
    for row, name in ((told["networks"][0], NETWORK), (told["families"][0], "SCNN")):
        assert row == {**told["total"], "name": name}
    total = told["total"]
    assert (total["operators"], total["networks"]) == (5, [NETWORK])
    assert total["distinct"] == {"exact": 5, "signature": 5, "kind": 4}
    assert [row["pool"] for row in total["spares"]] == ["per model", "exact", "signature", "kind"]
    assert [row["saved"] for row in total["spares"]] == [0, 0, 0, 0.2]


def test_whole_zoo_is_counted_by_its_six_families_as_documented(run: Run) -> None:
    """docs/sharing.md has the rows of families."""
    result = run()
    families = {"S-ResNet", "SCNN", "SGNN", "SRNN", "SVGG", "S-Transformer", "all"}
    lines = [" ".join(line.split()) for line in result.output.splitlines()]
    found = [line for line in lines if line.split(" ")[0] in families and "(" in line]
    assert {line.split(" ")[0] for line in found} == families
    text = " ".join((DOCS / "sharing.md").read_text().replace("|", " ").split())
    assert [line for line in found if line not in text] == []


def test_picture_of_the_documents_is_of_the_whole_zoo() -> None:
    title = ET.parse(DOCS / "sharing-zoo.svg").getroot()[0].text or ""
    assert set(title.removeprefix("Operators of ").split(", ")) == set(zoo_networks())


def test_networks_from_elsewhere_are_a_family_of_their_own(run: Run, tmp_path: Path) -> None:
    for file in find_network(NETWORK).parent.glob("*.*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    told = json.loads(run(str(tmp_path), "svgg11", "srnn_vowels", "--json").output)
    assert {row["name"]: row["networks"] for row in told["families"]} == {
        "other": [NETWORK, "svgg11"],
        "SRNN": ["srnn_vowels"],
    }


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
