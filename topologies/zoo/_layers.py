"""Modules of which the zoo's networks are built, in SpikingJelly's step mode 'm': (T, B, ...).

The neuron is `LIFNode(tau=2, decay_input=False, v_reset=None)`, so one step is

    h = v - v / 2 + i;   s = (h >= v_threshold);   v = h - s * v_threshold
"""

from collections import OrderedDict
from pathlib import Path
from typing import Any, Self

import torch
from safetensors.numpy import load_file
from spikingjelly.activation_based import layer, neuron, surrogate
from torch import Tensor, nn

__all__ = ["Conv", "Lif", "Requantise", "Stem", "Token", "lif", "vgg"]


class _Window(torch.autograd.Function):
    """All steps of the neuron at once: half the time of SpikingJelly's own, and equal gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, v_threshold: float) -> Tensor:
        """Currents (T, ...) -> spikes."""
        h, s = torch.empty_like(x), torch.empty_like(x)
        h[0].copy_(x[0])
        for t in range(len(x)):
            if t:
                torch.add(x[t], h[t - 1] - s[t - 1] * v_threshold, alpha=0.5, out=h[t])
            torch.ge(h[t], v_threshold, out=s[t])
        ctx.save_for_backward(h)
        ctx.v_threshold = v_threshold
        return s

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        """Of ATan with alpha = 2, and through the membrane, but not through the reset."""
        (h,) = ctx.saved_tensors
        d = h.sub(ctx.v_threshold).mul_(torch.pi).square_().add_(1).reciprocal_().mul_(grad)
        for t in range(len(d) - 2, -1, -1):
            d[t].add_(d[t + 1], alpha=0.5)
        return d, None


class Lif(neuron.LIFNode):
    """SpikingJelly's neuron; while it is trained its windows are computed in one piece."""

    def multi_step_forward(self, x_seq: Tensor) -> Tensor:
        """Currents (T, ...) -> spikes; the membrane begins at 0."""
        spikes: Tensor
        if self.training:
            spikes = _Window.apply(x_seq.contiguous(), self.v_threshold)
        else:
            spikes = super().multi_step_forward(x_seq)
        return spikes


def lif(v_threshold: float = 1.0) -> nn.Module:
    """The neuron of the zoo, over many steps."""
    node: nn.Module = Lif(
        tau=2.0,
        decay_input=False,
        v_threshold=v_threshold,
        v_reset=None,
        surrogate_function=surrogate.ATan(),
        detach_reset=True,
        step_mode="m",
    )
    return node


def _conv(n_in: int, n_out: int, kernel: int, stride: int) -> nn.Module:
    made: nn.Module = layer.Conv2d(
        n_in, n_out, kernel, stride=stride, padding=kernel // 2, bias=False, step_mode="m"
    )
    return made


class Conv(nn.Module):
    """A convolution without a bias, and its batch norm: (T, B, C, H, W)."""

    def __init__(self, n_in: int, n_out: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__()
        self.conv = _conv(n_in, n_out, kernel, stride)
        self.norm = layer.BatchNorm2d(n_out, step_mode="m")

    def forward(self, x: Tensor) -> Tensor:
        """Spikes or an image -> currents."""
        currents: Tensor = self.norm(self.conv(x))
        return currents


class Stem(nn.Module):
    """The first convolution of a network, its batch norm and its neurons.

    Once frozen it stays as it is, statistics included, in training too.
    """

    def __init__(self, n_out: int = 16) -> None:
        super().__init__()
        self.conv = _conv(1, n_out, 3, 1)
        self.norm = layer.BatchNorm2d(n_out, step_mode="m")
        self.lif = lif()
        self.frozen = False

    def freeze(self, weights: Path) -> Self:
        """Take over, and keep, the layers `stem.*` of a file of weights."""
        for name, array in load_file(weights).items():
            if name.startswith("stem."):
                self.state_dict()[name.removeprefix("stem.")].copy_(torch.from_numpy(array))
        self.requires_grad_(False)
        self.frozen = True
        return self

    def train(self, mode: bool = True) -> Self:
        """Training mode, unless frozen."""
        return super().train(mode and not self.frozen)  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        """Currents (T, B, 1, H, W) -> spikes (T, B, n_out, H, W)."""
        spikes: Tensor = self.lif(self.norm(self.conv(x)))
        return spikes


class Token(nn.Module):
    """One linear layer for every token, and its batch norm: (T, B, D, N)."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.conv = layer.Conv1d(n_in, n_out, 1, bias=False, step_mode="m")
        self.norm = layer.BatchNorm1d(n_out, step_mode="m")

    def forward(self, x: Tensor) -> Tensor:
        """Spikes -> currents."""
        currents: Tensor = self.norm(self.conv(x))
        return currents


class Requantise(nn.Module):
    """Values rounded to 2**-10, half to even, and kept in 16 bits; gradients pass as they are."""

    def forward(self, x: Tensor) -> Tensor:
        """Membrane values -> the same on the grid."""
        limit = (2.0**15 - 1) / 2.0**10
        on_grid = (torch.round(x.detach() * 2.0**10) / 2.0**10).clamp(-limit, limit)
        return x + (on_grid - x.detach())


def vgg(channels: tuple[int, ...], n_hidden: int, stem: Stem | None = None) -> nn.Module:
    """Two spiking convolutions of each number of channels and a pool, FC, FC: for 8 x 8 images.

    Layers are conv1 and norm1, lif1, conv2, ..., pool1, ..., fc1, lif7, fc2. A `stem` is the first
    convolution, and its layers are stem.conv and so on.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    n_in = 1
    for number in range(1, 2 * len(channels) + 1):
        n_out = channels[(number - 1) // 2]
        if number == 1 and stem is not None:
            layers["stem"] = stem
        else:
            layers[f"conv{number}"] = _conv(n_in, n_out, 3, 1)
            layers[f"norm{number}"] = layer.BatchNorm2d(n_out, step_mode="m")
            layers[f"lif{number}"] = lif()
        if number % 2 == 0:
            layers[f"pool{number // 2}"] = layer.MaxPool2d(2, step_mode="m")
        n_in = n_out
    layers["flat"] = layer.Flatten(step_mode="m")
    layers["fc1"] = layer.Linear(n_in, n_hidden, step_mode="m")
    layers[f"lif{2 * len(channels) + 1}"] = lif()
    layers["fc2"] = layer.Linear(n_hidden, 10, step_mode="m")
    return nn.Sequential(layers)
