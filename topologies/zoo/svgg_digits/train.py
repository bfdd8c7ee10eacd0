"""Train the spiking VGG of digits: see README.md.

    (C8)x2-MP-(C16)x2-MP-(C32)x2-MP-FC64-FC10, T = 4, class = greatest mean of FC10 over the steps.

Needs the extra `torch`:  python -m topologies.zoo.svgg_digits.train
"""

from pathlib import Path

from torch import nn

from topologies.zoo._layers import vgg
from topologies.zoo._recipes import digits_recipe
from topologies.zoo._training import run

__all__ = ["RECIPE", "build"]


def build() -> nn.Module:
    """Build the untrained network: currents (T, B, 1, 8, 8) -> (T, B, 10)."""
    return vgg((8, 16, 32), 64)


RECIPE = digits_recipe("SVGG", build, epochs=40, least=0.97)

if __name__ == "__main__":
    run(RECIPE, Path(__file__).resolve().parent)
