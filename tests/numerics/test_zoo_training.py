"""What is trained is what is served: the zoo's modules beside the compiled networks."""

from importlib import import_module
from pathlib import Path
from shutil import copyfile

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file, save_file

import topologies.zoo as zoo
from loadtest.undisturbed import run_streams
from loadtest.zoo_trials import load_trial
from topologies.compiler import compile_network
from topologies.loader import load_network, zoo_entry, zoo_networks
from topologies.stages.alif import Alif
from topologies.stages.base import Array

pytestmark = pytest.mark.torch

HERE = Path(str(zoo.__file__)).parent
IMAGES = [
    name for name in zoo_networks() if zoo_entry(name).samples.name == "test_images.safetensors"
]
N_IMAGES = 120


@pytest.mark.parametrize("name", IMAGES)
def test_compiled_network_says_what_the_trained_one_says(name: str) -> None:
    import torch

    recipe = import_module(f"topologies.zoo.{name}.train").RECIPE
    net = recipe.build()
    weights = load_file(HERE / name / "weights.safetensors")
    state = {key: torch.from_numpy(array) for key, array in weights.items()}
    wrong = net.load_state_dict(state, strict=False)
    assert not wrong.unexpected_keys
    assert all(key.endswith("num_batches_tracked") for key in wrong.missing_keys)
    network = compile_network(load_network(name))
    trial = load_trial(zoo_entry(name).samples, network).first(N_IMAGES)
    images = np.stack(trial.streams)[:, 0, 0]
    with torch.no_grad():
        wanted = recipe.logits(net.eval(), torch.from_numpy(images)).argmax(1).numpy()
    found = np.concatenate(run_streams(network, np.stack(trial.streams))).argmax(axis=1)
    assert (found == wanted).mean() >= 0.98


@pytest.mark.parametrize(
    "name",
    [
        "ms_resnet_digits",
        "scnn_mnist",
        "sdsa_digits",
        "sew_resnet_digits",
        "spikformer_digits",
        "spikformer_mnist",
        "stem_scnn_digits",
        "stem_svgg_digits",
        "svgg_digits",
    ],
)
def test_network_file_describes_the_module_that_is_trained(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from topologies.zoo._layers import Stem

    script = import_module(f"topologies.zoo.{name}.train")
    monkeypatch.setattr(script, "digits_stem", Stem, raising=False)
    torch.manual_seed(0)
    net = script.build().train()
    shape = _image_shape(HERE / name)
    images = np.random.default_rng(0).integers(0, 17, (16, *shape)).astype(np.uint8)
    script.RECIPE.logits(net, torch.from_numpy(images))  # fills the statistics of batch norms
    copyfile(HERE / name / "network.yaml", tmp_path / "network.yaml")
    save_file(script.RECIPE.arrays(net), tmp_path / "weights.safetensors")
    network = compile_network(load_network(tmp_path))
    with torch.no_grad():
        wanted = script.RECIPE.logits(net.eval(), torch.from_numpy(images)).numpy()
    found = np.concatenate(run_streams(network, images[:, None, None]))
    # A current that rounding moves over the threshold moves an output by a weight or two.
    assert np.median(np.abs(found - wanted)) < 0.02 * wanted.std()


def _image_shape(folder: Path) -> tuple[int, int]:
    document = yaml.safe_load((folder / "network.yaml").read_text())
    height, width = document["input"]["shape"][1:]
    return height, width


def test_neuron_in_one_piece_gives_the_spikes_and_gradients_of_spikingjelly() -> None:
    import torch
    from spikingjelly.activation_based.neuron import LIFNode

    from topologies.zoo._layers import lif

    currents = torch.randn(6, 500, generator=torch.Generator().manual_seed(0))
    found: list[Array] = []
    wanted: list[Array] = []
    for results, plain in ((found, False), (wanted, True)):
        node, x = lif(0.5), currents.clone().requires_grad_()
        spikes = LIFNode.multi_step_forward(node, x) if plain else node(x)
        (spikes * currents.flip(0)).sum().backward()
        results += [spikes.detach().numpy(), x.grad.numpy()]
    assert found[0].any()
    assert all(map(np.array_equal, found, wanted))


def test_recurrent_cells_in_training_fire_as_the_stage_that_is_served() -> None:
    import torch

    from topologies.zoo._alif import RecurrentAlif

    torch.manual_seed(0)
    cells = RecurrentAlif(3, 20)
    with torch.no_grad():
        cells.forth.weight *= 8.0
        frames = torch.randn(40, 1, 3)
        spikes = cells(frames).numpy()[:, 0]
        forth = cells.forth(frames).numpy()[:, 0]
        decay, rho = (constant.numpy() for constant in cells.constants())
    stage = Alif(form="yin", decay=decay, rho=rho, beta=1.8, fire=">")
    v = a = np.zeros((1, 20), np.float32)
    state: tuple[Array, ...] = (v, a, np.zeros((1, 20), np.uint8))
    back = cells.back.weight.detach().numpy()
    found = []
    for current in forth:
        z = state[2].astype(np.float32)
        s, state = stage.advance(state, current[None] + z @ back.T)
        found.append(s[0])
    assert 0.02 < np.mean(found) < 0.9
    assert (np.array(found) == spikes).mean() > 0.999
