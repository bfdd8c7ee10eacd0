"""Two spiking residual networks for 8 x 8 images: spikes added (SEW), or membranes (MS).

    stem C16, then blocks of 16, 32 with stride 2, and 32 channels, mean over space, FC10

A block of the first kind adds its spikes to those it read, or to those of a 1 x 1 convolution with
stride 2. One of the second kind begins with neurons, ends with a convolution, and adds currents to
the membrane values that it read, or to their 1 x 1 convolution; each sum is rounded to 2**-10.

Sources: Fang et al., Deep residual learning in spiking neural networks, NeurIPS 2021,
arXiv:2102.04159; Hu et al., Advancing spiking neural networks towards deep residual learning, 2024,
doi:10.1109/TNNLS.2024.3355393.
"""

from spikingjelly.activation_based import layer
from torch import Tensor, nn

from topologies.zoo._layers import Conv, Requantise, Stem, lif

__all__ = ["MembraneResNet", "SpikeResNet"]

_BLOCKS = ((16, 16, 1), (16, 32, 2), (32, 32, 1))


class _SpikeBlock(nn.Module):
    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.lif1 = Conv(n_in, n_out, stride=stride), lif()
        self.conv2, self.lif2 = Conv(n_out, n_out), lif()
        self.down = Conv(n_in, n_out, kernel=1, stride=stride) if stride > 1 else None
        self.lif3 = lif() if stride > 1 else None

    def forward(self, x: Tensor) -> Tensor:
        """Spikes -> small integers."""
        y: Tensor = self.lif2(self.conv2(self.lif1(self.conv1(x))))
        return y + (x if self.down is None or self.lif3 is None else self.lif3(self.down(x)))


class _MembraneBlock(nn.Module):
    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.lif1, self.conv1 = lif(), Conv(n_in, n_out, stride=stride)
        self.lif2, self.conv2 = lif(), Conv(n_out, n_out)
        self.down = Conv(n_in, n_out, kernel=1, stride=stride) if stride > 1 else None
        self.requantise = Requantise()

    def forward(self, x: Tensor) -> Tensor:
        """Membrane values on the grid -> the same."""
        y = self.conv2(self.lif2(self.conv1(self.lif1(x))))
        rounded: Tensor = self.requantise(y + (x if self.down is None else self.down(x)))
        return rounded


class _Head(nn.Module):
    """Mean over the 4 x 4 pixels that are left, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = layer.AvgPool2d(4, step_mode="m")
        self.flat = layer.Flatten(step_mode="m")
        self.fc = layer.Linear(32, 10, step_mode="m")

    def forward(self, x: Tensor) -> Tensor:
        """(T, B, 32, 4, 4) -> (T, B, 10)."""
        y: Tensor = self.fc(self.flat(self.pool(x)))
        return y


class SpikeResNet(nn.Module):
    """Residual blocks that add spikes: currents (T, B, 1, 8, 8) -> (T, B, 10)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = Stem()
        self.block1, self.block2, self.block3 = (_SpikeBlock(*shape) for shape in _BLOCKS)
        self.head = _Head()

    def forward(self, x: Tensor) -> Tensor:
        """Currents (T, B, 1, 8, 8) -> (T, B, 10)."""
        y: Tensor = self.head(self.block3(self.block2(self.block1(self.stem(x)))))
        return y


class MembraneResNet(nn.Module):
    """Residual blocks that add membrane values: currents (T, B, 1, 8, 8) -> (T, B, 10)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.requantise = Conv(1, 16), Requantise()
        self.block1, self.block2, self.block3 = (_MembraneBlock(*shape) for shape in _BLOCKS)
        self.lif = lif()
        self.head = _Head()

    def forward(self, x: Tensor) -> Tensor:
        """Currents (T, B, 1, 8, 8) -> (T, B, 10)."""
        x = self.requantise(self.stem(x))
        y: Tensor = self.head(self.lif(self.block3(self.block2(self.block1(x)))))
        return y
