"""Train the spiking CNN of digits with the shared stem: see README.md beside this file.

    C16-C16-AP2-C16-AP2-FC32-FC10, the first C16 frozen, T = 4, class = greatest mean of FC10.

Needs the extra `torch`:  python -m topologies.zoo.stem_scnn_digits.train
"""

from collections import OrderedDict
from pathlib import Path

from spikingjelly.activation_based import layer
from torch import nn

from topologies.zoo._layers import Conv, lif
from topologies.zoo._recipes import digits_recipe
from topologies.zoo._stem import digits_stem
from topologies.zoo._training import run

__all__ = ["RECIPE", "build"]


def build() -> nn.Module:
    """Build the untrained network: currents (T, B, 1, 8, 8) -> (T, B, 10); its stem is trained."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        stem=digits_stem(),
        conv2=Conv(16, 16),
        lif2=lif(),
        pool2=layer.AvgPool2d(2, step_mode="m"),
        conv3=Conv(16, 16),
        lif3=lif(),
        pool3=layer.AvgPool2d(2, step_mode="m"),
        flat=layer.Flatten(step_mode="m"),
        fc1=layer.Linear(64, 32, step_mode="m"),
        lif4=lif(),
        fc2=layer.Linear(32, 10, step_mode="m"),
    )
    return nn.Sequential(layers)


RECIPE = digits_recipe("SCNN", build, epochs=16, least=0.965)

if __name__ == "__main__":
    run(RECIPE, Path(__file__).resolve().parent)
