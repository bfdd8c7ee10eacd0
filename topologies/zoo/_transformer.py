"""A spiking transformer: convolutions to tokens (SPS), blocks of attention and MLP, mean of tokens.

    x = x + lif(proj(attention(q, k, v)));   x = x + lif(mlp2(lif(mlp1(x))))

with q, k, v = lif(norm(linear(x))), so x holds small integers. Two kinds of attention:

    SSA     y = lif((q k^T) v * scale),  threshold 0.5                              (Spikformer)
    SDSA    y = q * lif(sum over tokens of k * v),  threshold 0.5, one mask per channel

Values are (T, B, channels, tokens). Sources: Zhou et al., Spikformer, ICLR 2023, arXiv:2209.15425;
Yao et al., Spike-driven Transformer, NeurIPS 2023, arXiv:2307.01694.
"""

from itertools import pairwise
from typing import Literal

import torch
from spikingjelly.activation_based import layer
from torch import Tensor, nn

from topologies.zoo._layers import Conv, Stem, Token, lif

__all__ = ["Attention", "SpikingTransformer"]

Attention = Literal["ssa", "sdsa"]
SCALE = 0.125


class _Block(nn.Module):
    def __init__(self, n: int, n_hidden: int, attention: Attention) -> None:
        super().__init__()
        self.attention = attention
        self.q, self.q_lif = Token(n, n), lif()
        self.k, self.k_lif = Token(n, n), lif()
        self.v, self.v_lif = Token(n, n), lif()
        self.lif = lif(0.5)
        self.proj, self.proj_lif = Token(n, n), lif()
        self.mlp1, self.mlp1_lif = Token(n, n_hidden), lif()
        self.mlp2, self.mlp2_lif = Token(n_hidden, n), lif()

    def forward(self, x: Tensor) -> Tensor:
        """Integers (T, B, n, N) -> the same."""
        x = x + self.proj_lif(self.proj(self._attend(x)))
        y: Tensor = x + self.mlp2_lif(self.mlp2(self.mlp1_lif(self.mlp1(x))))
        return y

    def _attend(self, x: Tensor) -> Tensor:
        q, k, v = self.q_lif(self.q(x)), self.k_lif(self.k(x)), self.v_lif(self.v(x))
        spikes: Tensor
        if self.attention == "ssa":
            scores = torch.matmul(q.transpose(-2, -1), k)  # (T, B, N of q, N of k)
            spikes = self.lif(torch.matmul(v, scores.transpose(-2, -1)) * SCALE)
        else:
            spikes = q * self.lif((k * v).sum(-1, keepdim=True))
        return spikes


class SpikingTransformer(nn.Module):
    """Currents (T, B, 1, H, W) -> (T, B, 10).

    After the stem comes one spiking convolution for each of `channels`, the last as wide as the
    tokens. A max pool stands behind the stem, if `pooled_stem`, and behind the first of these.
    """

    def __init__(
        self,
        attention: Attention,
        stem: Stem,
        channels: tuple[int, ...] = (32, 48),
        *,
        pooled_stem: bool = False,
        n_blocks: int = 1,
    ) -> None:
        super().__init__()
        self.stem = stem
        self.pooled = {0: pooled_stem, 1: True}
        pairs = pairwise((16, *channels))
        self.sps = nn.ModuleList(Conv(a, b) for a, b in pairs)
        self.sps_lif = nn.ModuleList(lif() for _ in channels)
        self.pool = layer.MaxPool2d(2, step_mode="m")
        n = channels[-1]
        self.blocks = nn.ModuleList(_Block(n, 2 * n, attention) for _ in range(n_blocks))
        self.head = layer.Linear(n, 10, step_mode="m")

    def forward(self, x: Tensor) -> Tensor:
        """Currents (T, B, 1, H, W) -> (T, B, 10)."""
        x = self.stem(x)
        for number, (conv, node) in enumerate(zip(self.sps, self.sps_lif, strict=True)):
            x = self.pool(x) if self.pooled.get(number) else x
            x = node(conv(x))
        x = x.flatten(-2)
        for block in self.blocks:
            x = block(x)
        y: Tensor = self.head(x.mean(-1))
        return y
