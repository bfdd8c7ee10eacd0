"""Train the residual network of digits with spike-element-wise (SEW) ADD: see README.md.

Needs the extra `torch`:  python -m topologies.zoo.sew_resnet_digits.train
"""

from pathlib import Path

from torch import nn

from topologies.zoo._recipes import digits_recipe
from topologies.zoo._resnet import SpikeResNet
from topologies.zoo._training import run

__all__ = ["RECIPE", "build"]


def build() -> nn.Module:
    """Build the untrained network: currents (T, B, 1, 8, 8) -> (T, B, 10)."""
    return SpikeResNet()


RECIPE = digits_recipe("S-ResNet", build, epochs=14, least=0.98)

if __name__ == "__main__":
    run(RECIPE, Path(__file__).resolve().parent)
