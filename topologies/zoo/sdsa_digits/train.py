"""Train the spiking transformer of digits, with spike-driven self-attention: see README.md.

Needs the extra `torch`:  python -m topologies.zoo.sdsa_digits.train
"""

from pathlib import Path

from torch import nn

from topologies.zoo._recipes import digits_recipe
from topologies.zoo._stem import digits_stem
from topologies.zoo._training import run
from topologies.zoo._transformer import SpikingTransformer

__all__ = ["RECIPE", "build"]


def build() -> nn.Module:
    """Build the untrained network: currents (T, B, 1, 8, 8) -> (T, B, 10); its stem is trained."""
    return SpikingTransformer("sdsa", digits_stem())


RECIPE = digits_recipe("S-Transformer", build, epochs=18, least=0.97)

if __name__ == "__main__":
    run(RECIPE, Path(__file__).resolve().parent)
