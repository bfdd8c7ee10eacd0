"""The examples of docs/importing.md do what the page says: each is run as it stands there."""

import re
import runpy
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from router.commands_import import import_command
from topologies.compiler.compile import compile_network
from topologies.loader import load_network

pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:FutureWarning"),
]
PAGE = (Path(__file__).parents[2] / "docs" / "importing.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"```python\n# (\w+\.py)\n(.*?)```", PAGE, re.S))
COMMANDS = [
    line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.S) for line in block.splitlines()
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in FILES:
        sys.modules.pop(name.removesuffix(".py"), None)


def run(command: str) -> Result:
    app = typer.Typer()
    app.command()(import_command)
    program, _, *arguments = shlex.split(command)
    assert program == "spikerouter"
    return CliRunner().invoke(app, arguments, env={"COLUMNS": "120"})


def test_page_has_an_example_of_each_library() -> None:
    assert set(FILES) == {
        *("nets_snntorch.py", "nets_spikingjelly.py", "nets_norse.py", "make_nir.py"),
    }
    assert len(COMMANDS) == len(FILES) + 1


@pytest.mark.parametrize("library", ["snntorch", "spikingjelly", "norse", "nir"])
def test_example_is_imported_and_agrees_with_its_library(library: str, folder: Path) -> None:
    if library == "nir":
        runpy.run_path(str(folder / "make_nir.py"))
    (command,) = [line for line in COMMANDS if f"-o {library}.yaml" in line]
    result = run(command)
    assert result.exit_code == 0, result.output
    against = "the graph before quantising" if library == "nir" else library
    assert f"Compared with {against} on 16 random samples" in result.output
    (agreement,) = re.findall(r"spike agreement: ([\d.]+)%", result.output)
    assert float(agreement) > 99
    rates = re.findall(r"%\s+([\d.]+)\s+([\d.]+)", result.output)
    assert all(float(there) > 0.001 for there, _ in rates)
    compile_network(load_network(folder / f"{library}.yaml"))


def test_error_that_the_page_shows_is_the_one_that_is_given(folder: Path) -> None:
    text = "import torch\n\nclass Residual(torch.nn.Linear):\n    def forward(self, x):\n"
    text += "        return x\n\nnet = torch.nn.Sequential(torch.nn.Linear(4, 4), "
    text += "torch.nn.Sequential(torch.nn.GELU()), Residual(4, 4))\n"
    (folder / "nets_odd.py").write_text(text)
    result = run("spikerouter import nets_odd:net -o topology.yaml --shape 4")
    sys.modules.pop("nets_odd")
    sentence = str(result.exception)
    assert "2 faults of network 'topology'" in sentence
    assert "1.0: a torch.nn.modules.activation.GELU is not known: legal are" in sentence
    assert "2: a nets_odd.Residual is not known: its forward is its own, and legal are" in sentence
