"""A recurrent layer of adaptive neurons (ALIF) for training: see stages/alif.py, form `yin`.

    i = W x + b + R z;   a = rho a + (1 - rho) z;   t = 1 + beta a
    v = decay v + (1 - decay) i - t z;   z = (v > t)

z on the right is the spike of the step before. decay and rho are learned, one per neuron, and kept
in 0 to 1 by a sigmoid; beta is one number.
"""

import torch
from spikingjelly.activation_based import surrogate
from torch import Tensor, nn

__all__ = ["RecurrentAlif"]


class RecurrentAlif(nn.Module):
    """Sequences (L, B, n_in) -> spikes (L, B, n)."""

    def __init__(self, n_in: int, n: int, beta: float = 1.8) -> None:
        super().__init__()
        self.forth = nn.Linear(n_in, n)
        self.back = nn.Linear(n, n, bias=False)
        nn.init.orthogonal_(self.back.weight)
        self.decay_logit = nn.Parameter(torch.empty(n).uniform_(0.0, 2.5))
        self.rho_logit = nn.Parameter(torch.empty(n).uniform_(1.0, 3.5))
        self.beta = beta
        self.fire = surrogate.ATan()

    def constants(self) -> tuple[Tensor, Tensor]:
        """(decay, rho), each (n,)."""
        return torch.sigmoid(self.decay_logit), torch.sigmoid(self.rho_logit)

    def forward(self, x: Tensor) -> Tensor:
        """Sequences (L, B, n_in) -> spikes (L, B, n)."""
        decay, rho = self.constants()
        currents = self.forth(x)
        z = v = a = torch.zeros_like(currents[0])
        spikes = []
        for current in currents:
            i = current + self.back(z)
            a = rho * a + (1 - rho) * z
            threshold = 1.0 + self.beta * a
            v = decay * v + (1 - decay) * i - threshold * z
            # The surrogate compares with >=; the smallest float32 step above makes it >.
            z = self.fire(v - threshold - torch.finfo(torch.float32).tiny)
            spikes.append(z)
        return torch.stack(spikes)
