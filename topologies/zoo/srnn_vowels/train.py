"""Train the recurrent network of spoken vowels: see README.md.

    12 - ALIF128, recurrent - FC9, one step per frame, speaker = greatest mean of FC9.

Needs the extras `torch` and `zoo`:  python -m topologies.zoo.srnn_vowels.train
"""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from topologies.zoo._alif import RecurrentAlif
from topologies.zoo._data import vowels
from topologies.zoo._training import Arrays, Recipe, arrays_of, run

__all__ = ["RECIPE", "build", "logits"]

GRID = 2.0**8  # inputs are multiples of its reciprocal, as the network's encoder makes them
NOISE = 0.1  # standard deviation, of the inputs' 0.43


class Net(nn.Module):
    """Frames (L, B, 12) -> (L, B, 9)."""

    def __init__(self) -> None:
        super().__init__()
        self.cells = RecurrentAlif(12, 128)
        self.fc = nn.Linear(128, 9)

    def forward(self, x: Tensor) -> Tensor:
        """Frames (L, B, 12) -> (L, B, 9)."""
        y: Tensor = self.fc(self.cells(x))
        return y


def build() -> nn.Module:
    """Build the untrained network."""
    net = Net()
    with torch.no_grad():
        net.cells.forth.weight *= 8.0  # hardly a neuron would fire with PyTorch's
        net.cells.back.weight *= 0.5
    return net


def logits(net: nn.Module, sequences: Tensor) -> Tensor:
    """Mean output (B, 9) over the frames of sequences (B, L, 12), which end where NaN begin."""
    there = (~sequences[..., 0].isnan()).float().T.unsqueeze(-1)
    frames = torch.round(sequences.nan_to_num() * GRID) / GRID
    mean: Tensor = (net(frames.transpose(0, 1)) * there).sum(0) / there.sum(0)
    return mean


def arrays(net: nn.Module) -> Arrays:
    """What is written: the leaks themselves in place of the numbers they are the sigmoid of."""
    found = arrays_of(net)
    for name, value in zip(("decay", "rho"), net.cells.constants(), strict=True):
        found[f"cells.{name}"] = value.detach().numpy()
        del found[f"cells.{name}_logit"]
    return found


def noisy(sequences: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The sequences with a little noise."""
    noise = torch.randn(sequences.shape).numpy() * np.float32(NOISE)
    changed: npt.NDArray[Any] = sequences + noise
    return changed


RECIPE = Recipe(
    family="SRNN",
    data="JapaneseVowels",
    samples="srnn_vowels/test_sequences.safetensors",
    least=0.93,
    load=vowels,
    build=build,
    logits=logits,
    epochs=60,
    refit=True,
    smoothing=9,
    arrays=arrays,
    batch=32,
    learning_rate=1e-2,
    augment=noisy,
)

if __name__ == "__main__":
    run(RECIPE, Path(__file__).resolve().parent)
