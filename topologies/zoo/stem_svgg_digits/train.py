"""Train the spiking VGG of digits with the shared stem: see README.md.

    (C16)x2-MP-(C16)x2-MP-(C32)x2-MP-FC64-FC10, the first C16 frozen, T = 4.

Needs the extra `torch`:  python -m topologies.zoo.stem_svgg_digits.train
"""

from pathlib import Path

from torch import nn

from topologies.zoo._layers import vgg
from topologies.zoo._recipes import digits_recipe
from topologies.zoo._stem import digits_stem
from topologies.zoo._training import run

__all__ = ["RECIPE", "build"]


def build() -> nn.Module:
    """Build the untrained network: currents (T, B, 1, 8, 8) -> (T, B, 10); its stem is trained."""
    return vgg((16, 16, 32), 64, digits_stem())


RECIPE = digits_recipe("SVGG", build, epochs=30, least=0.96)

if __name__ == "__main__":
    run(RECIPE, Path(__file__).resolve().parent)
