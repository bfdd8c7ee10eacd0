"""Train the residual network of digits with membrane shortcuts (MS): see README.md.

Needs the extra `torch`:  python -m topologies.zoo.ms_resnet_digits.train
"""

from pathlib import Path

from torch import nn

from topologies.zoo._recipes import digits_recipe
from topologies.zoo._resnet import MembraneResNet
from topologies.zoo._training import run

__all__ = ["RECIPE", "build"]


def build() -> nn.Module:
    """Build the untrained network: currents (T, B, 1, 8, 8) -> (T, B, 10)."""
    return MembraneResNet()


RECIPE = digits_recipe("S-ResNet", build, epochs=14, least=0.98)

if __name__ == "__main__":
    run(RECIPE, Path(__file__).resolve().parent)
