"""Train the spiking transformer of 28 x 28 digits, with spiking self-attention: see README.md.

Needs the extras `torch` and `zoo`:  python -m topologies.zoo.spikformer_mnist.train
"""

from pathlib import Path

from torch import nn

from topologies.zoo._layers import Stem
from topologies.zoo._recipes import mnist_recipe
from topologies.zoo._training import run
from topologies.zoo._transformer import SpikingTransformer

__all__ = ["RECIPE", "build"]


def build() -> nn.Module:
    """Build the untrained network: currents (T, B, 1, 28, 28) -> (T, B, 10)."""
    return SpikingTransformer("ssa", Stem(), pooled_stem=True)


RECIPE = mnist_recipe("S-Transformer", build, epochs=8, least=0.94, learning_rate=3e-3)

if __name__ == "__main__":
    run(RECIPE, Path(__file__).resolve().parent)
