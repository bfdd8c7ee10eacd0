"""Train the spiking CNN of 28 x 28 digits and write its weights: see README.md beside this file.

    C16-MP-C32-MP-FC128-FC10, T = 4, class = greatest mean of FC10 over the steps.

Needs the extras `torch` and `zoo`:  python -m topologies.zoo.scnn_mnist.train
"""

from collections import OrderedDict
from pathlib import Path

from spikingjelly.activation_based import layer
from torch import nn

from topologies.zoo._layers import Conv, lif
from topologies.zoo._recipes import mnist_recipe
from topologies.zoo._training import run

__all__ = ["RECIPE", "build"]


def build() -> nn.Module:
    """Build the untrained network: currents (T, B, 1, 28, 28) -> (T, B, 10)."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv1=Conv(1, 16),
        lif1=lif(),
        pool1=layer.MaxPool2d(2, step_mode="m"),
        conv2=Conv(16, 32),
        lif2=lif(),
        pool2=layer.MaxPool2d(2, step_mode="m"),
        flat=layer.Flatten(step_mode="m"),
        fc1=layer.Linear(32 * 7 * 7, 128, step_mode="m"),
        lif3=lif(),
        fc2=layer.Linear(128, 10, step_mode="m"),
    )
    return nn.Sequential(layers)


RECIPE = mnist_recipe("SCNN", build, epochs=5, least=0.95, learning_rate=2e-3)

if __name__ == "__main__":
    run(RECIPE, Path(__file__).resolve().parent)
