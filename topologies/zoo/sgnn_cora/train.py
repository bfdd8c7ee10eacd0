"""Train the spiking graph network of Cora and write its weights: see README.md beside this file.

    1433 - GCN32 - LIF - GCN7, T = 8, class of a paper = greatest mean output over the steps.

A GCN layer is y = A (W x + b), A = D^-1/2 (edges + self-loops) D^-1/2. Words are divided by their
number in a paper; that divisor is put into the first layer's edges, for what travels are spikes.

Standard split: 140 papers are trained on, the seed and the number of epochs are chosen on the next
500, and 1,000 others are for testing. The figures are those of weights averaged over epochs.

Needs the extra `torch`:  python -m topologies.zoo.sgnn_cora.train
"""

import argparse
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from spikingjelly.activation_based.functional import reset_net
from torch import Tensor, nn
from torch.nn import functional

from topologies.zoo._layers import lif
from topologies.zoo._training import Arrays, Choice, write

__all__ = ["CARD", "Citations", "Net", "load", "main"]

HERE = Path(__file__).resolve().parent
N_STEPS = 8
N_HIDDEN = 32
GAIN = 2.0  # on the initial weights of the first layer, so that neurons fire
DROPOUT = 0.7
EPOCHS = 150
SEEDS = 2
SMOOTHING = 15
N_TRAINING = 140
VALIDATION = slice(140, 640)


@dataclass(frozen=True)
class _Card:
    family: str = "SGNN"
    data: str = "Cora"
    samples: str = "sgnn_cora/cora.npz"
    least: float = 0.80


CARD = _Card()


class Citations(NamedTuple):
    """`words` (n, 1433) bool; `edges` (2, E) int64 with both directions and self-loops;
    `norm` (E,) of A; `labels` (n,); `test` (1000,) nodes."""

    words: npt.NDArray[np.bool_]
    edges: npt.NDArray[np.int64]
    norm: npt.NDArray[np.float64]
    labels: npt.NDArray[np.int64]
    test: npt.NDArray[np.int64]


def load(path: Path) -> Citations:
    """The graph of cora.npz, as the notice in README.md describes it."""
    data = np.load(path)
    n = int(data["shape"][0])
    words = np.zeros((n, int(data["shape"][1])), np.bool_)
    rows = np.repeat(np.arange(n), np.diff(data["x_indptr"]))
    words[rows, data["x_indices"]] = True
    pairs, loops = data["edges"].astype(np.int64).T, np.tile(np.arange(n), (2, 1))
    edges = np.concatenate([pairs, pairs[::-1], loops], axis=1)
    degree = np.bincount(edges[1], minlength=n)
    norm = 1.0 / np.sqrt(degree[edges[0]] * degree[edges[1]])
    labels, test = data["y"].astype(np.int64), data["test_index"].astype(np.int64)
    return Citations(words, edges, norm, labels, test)


class Net(nn.Module):
    """The words of all papers -> the mean output (n, 7) over the steps."""

    def __init__(self, graph: Citations) -> None:
        super().__init__()
        n, n_words = graph.words.shape
        self.words = np.stack(graph.words.nonzero())
        self.shape = (n, n_words)
        self.edges1 = _matrix(graph.edges, first_weights(graph), n)
        self.edges2 = _matrix(graph.edges, graph.norm, n)
        self.fc1 = nn.Linear(n_words, N_HIDDEN, bias=False)
        self.lif = lif()
        self.fc2 = nn.Linear(N_HIDDEN, 7)
        nn.init.xavier_uniform_(self.fc1.weight, GAIN)
        nn.init.xavier_uniform_(self.fc2.weight)

    def forward(self) -> Tensor:
        """(n, 7). The second layer is linear: its mean output is its output of mean spikes."""
        reset_net(self)
        ones = functional.dropout(torch.ones(self.words.shape[1]), DROPOUT, self.training)
        words = torch.sparse_coo_tensor(torch.from_numpy(self.words), ones, self.shape)
        current = torch.sparse.mm(self.edges1, torch.sparse.mm(words, self.fc1.weight.T))
        spikes = self.lif(current.expand(N_STEPS, -1, -1)).mean(0)
        spikes = functional.dropout(spikes, DROPOUT, self.training)
        mean: Tensor = torch.sparse.mm(self.edges2, self.fc2(spikes))
        return mean


def first_weights(graph: Citations) -> npt.NDArray[np.float64]:
    """(E,) of the first layer: A, and how many more words than the average paper a source has."""
    counts = graph.words.sum(1)
    weights: npt.NDArray[np.float64] = graph.norm * (counts.mean() / counts)[graph.edges[0]]
    return weights


def _matrix(edges: npt.NDArray[Any], weight: npt.NDArray[Any], n: int) -> Tensor:
    """The sparse matrix (targets, sources), float32."""
    values = torch.from_numpy(weight.astype(np.float32))
    return torch.sparse_coo_tensor(torch.from_numpy(edges[::-1].copy()), values, (n, n)).coalesce()


def train(graph: Citations, seed: int) -> Choice:
    """The best epoch of one seed, of weights averaged over the last ten epochs or so."""
    torch.manual_seed(seed)
    net = Net(graph)
    averaged = deepcopy(net).eval()
    groups = [
        {"params": net.fc1.parameters(), "weight_decay": 5e-3},
        {"params": net.fc2.parameters(), "weight_decay": 5e-4},
    ]
    optimiser = torch.optim.Adam(groups, lr=1e-2)
    labels = torch.from_numpy(graph.labels)
    history: list[float] = []
    states: list[dict[str, Tensor]] = []
    for _ in range(EPOCHS):
        net.train()
        optimiser.zero_grad()
        functional.cross_entropy(net()[:N_TRAINING], labels[:N_TRAINING]).backward()
        optimiser.step()
        with torch.no_grad():
            for mean, now in zip(averaged.parameters(), net.parameters(), strict=True):
                mean.lerp_(now, 0.1)
        history.append(accuracy_of(averaged, graph, VALIDATION))
        states.append({name: value.clone() for name, value in averaged.state_dict().items()})
    smooth = np.convolve(history, np.ones(SMOOTHING) / SMOOTHING, mode="valid")
    epochs = int(smooth.argmax()) + SMOOTHING
    accuracy = float(smooth.max())
    print(f"seed {seed}: validation {accuracy:.4f} after {epochs} epochs", flush=True)
    return Choice(accuracy, seed, epochs, states[epochs - 1])


def accuracy_of(net: nn.Module, graph: Citations, nodes: slice | npt.NDArray[np.int64]) -> float:
    """The share of right classes among these papers."""
    with torch.no_grad():
        guesses = net().argmax(1).numpy()
    return float((guesses == graph.labels)[nodes].mean())


def arrays(net: nn.Module, graph: Citations) -> Arrays:
    """Weights as the layers of network.yaml need them: fully connected is a kernel of 1."""
    edges = graph.edges.astype(np.int32)
    return {
        "fc1.weight": net.fc1.weight.detach().numpy()[:, :, None],
        "fc2.weight": net.fc2.weight.detach().numpy()[:, :, None],
        "fc2.bias": net.fc2.bias.detach().numpy(),
        "graph.edges": edges,
        "graph1.weight": first_weights(graph).astype(np.float32),
        "graph2.weight": graph.norm.astype(np.float32),
    }


def main() -> None:
    """Choose among seeds, and write weights, figures and the samples of the test."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--data", type=Path, default=HERE / "cora.npz")
    parser.add_argument("--out", type=Path, default=HERE)
    options = parser.parse_args()
    torch.set_num_threads(1)
    graph = load(options.data)
    chosen = max((train(graph, seed) for seed in range(SEEDS)), key=lambda found: found[:3])
    net = Net(graph).eval()
    net.load_state_dict(chosen.state)
    write(CARD, options.out, arrays(net, graph), chosen, accuracy_of(net, graph, graph.test))


if __name__ == "__main__":
    main()
