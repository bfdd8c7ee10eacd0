"""Train the digits network and write its weights and its test images.

    C8-LIF-AP2-C16-LIF-AP2-FC32-LIF-FC10, T = 4, class = greatest mean of FC10 over the steps.

The neuron is SpikingJelly's LIFNode(tau=2, decay_input=False, v_reset=None), so one step is

    h = v - v / 2 + i;   s = (h >= 1);   v = h - s

Six seeds are tried on a validation part; see `topologies.zoo._training`.

Needs the extra `torch`:  python -m topologies.zoo.scnn_digits.train
"""

from collections import OrderedDict
from pathlib import Path

import torch
from spikingjelly.activation_based import functional, neuron, surrogate
from torch import Tensor, nn

from topologies.zoo._data import digits
from topologies.zoo._training import Recipe, run

__all__ = ["RECIPE", "build", "logits"]

N_STEPS = 4
GAIN = 4.0  # on PyTorch's initial weights, with which hardly a neuron would fire


def build() -> nn.Module:
    """Build the untrained network for one step: (batch, 1, 8, 8) -> (batch, 10)."""

    def lif() -> nn.Module:
        node: nn.Module = neuron.LIFNode(
            tau=2.0,
            decay_input=False,
            v_threshold=1.0,
            v_reset=None,
            surrogate_function=surrogate.ATan(),
            detach_reset=True,
        )
        return node

    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv1=nn.Conv2d(1, 8, 3, padding=1),
        lif1=lif(),
        pool1=nn.AvgPool2d(2),
        conv2=nn.Conv2d(8, 16, 3, padding=1),
        lif2=lif(),
        pool2=nn.AvgPool2d(2),
        flat=nn.Flatten(),
        fc1=nn.Linear(64, 32),
        lif3=lif(),
        fc2=nn.Linear(32, 10),
    )
    net = nn.Sequential(layers)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.endswith("weight"):
                parameter *= GAIN
    return net


def logits(net: nn.Module, images: Tensor) -> Tensor:
    """Mean output (batch, 10) float32 over `N_STEPS` steps of the same image (batch, 8, 8)."""
    functional.reset_net(net)
    current = images.unsqueeze(1).float() / 16.0
    total: Tensor = net(current)
    for _ in range(N_STEPS - 1):
        total = total + net(current)
    return total / N_STEPS


RECIPE = Recipe(
    family="SCNN",
    data="digits",
    samples="scnn_digits/test_images.safetensors",
    least=0.97,
    load=digits,
    build=build,
    logits=logits,
    epochs=200,
    seeds=6,
    smoothing=9,
    refit=True,
)

if __name__ == "__main__":
    run(RECIPE, Path(__file__).resolve().parent)
