"""A trained module of SpikingJelly is imported with its accuracy: the digits of the zoo."""

import re
import sys
from pathlib import Path

import pytest
import typer
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner

import topologies.zoo.scnn_digits as zoo
from router.commands_import import import_command
from topologies.compiler.compile import compile_network
from topologies.loader import load_network

pytestmark = pytest.mark.torch
ZOO = Path(str(zoo.__file__)).parent
MODULE = """
from torch import nn
from spikingjelly.activation_based.neuron import LIFNode

def cells():
    return LIFNode(2.0, decay_input=False, v_threshold=1.0, v_reset=None)

def net():
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), cells(), nn.AvgPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1), cells(), nn.AvgPool2d(2),
        nn.Flatten(), nn.Linear(64, 32), cells(), nn.Linear(32, 10),
    )
"""
PLACES = {"conv1": "0", "conv2": "3", "fc1": "7", "fc2": "9"}


def test_trained_module_keeps_its_accuracy_and_its_operators(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "digits_net.py").write_text(MODULE, encoding="utf-8")
    arrays = load_file(ZOO / "weights.safetensors")
    state = {
        f"{PLACES[name.partition('.')[0]]}.{name.partition('.')[2]}": array
        for name, array in arrays.items()
    }
    save_file(state, tmp_path / "state.safetensors")
    samples = load_file(ZOO / "test_images.safetensors")
    save_file(
        {"images": samples["images"][:, None].copy(), "labels": samples["labels"]},
        tmp_path / "samples.safetensors",
    )
    app = typer.Typer()
    app.command()(import_command)
    arguments = (
        "digits_net:net -o digits.yaml --name scnn_digits --weights state.safetensors "
        "--samples samples.safetensors --encoder direct --high 16 --grid 0 --unit 4 --steps 4 "
        "--readout mean --every 4"
    )
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, arguments.split(), env={"COLUMNS": "120"})
    sys.modules.pop("digits_net", None)
    assert result.exit_code == 0, result.output
    original, compiled = map(
        float, re.findall(r"accuracy: ([\d.]+)% original, ([\d.]+)% compiled", result.output)[0]
    )
    assert original >= 97
    assert abs(original - compiled) <= 0.6
    (agreement,) = re.findall(r"spike agreement: ([\d.]+)%", result.output)
    assert float(agreement) > 99.5
    mine, theirs = (compile_network(load_network(n)) for n in ("digits.yaml", "scnn_digits"))
    assert set(mine.operators) == set(theirs.operators)
