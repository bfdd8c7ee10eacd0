"""Train the digits network and write its weights and its test images.

    C8-LIF-AP2-C16-LIF-AP2-FC32-LIF-FC10, T = 4, class = greatest mean of FC10 over the steps.

The neuron is SpikingJelly's LIFNode(tau=2, decay_input=False, v_reset=None), so one step is

    h = v - v / 2 + i;   s = (h >= 1);   v = h - s

scikit-learn's 1,797 digits are split once, 80/20, stratified, with `SPLIT_SEED`: 360 test images.
The training part is split again, 80/20, into a fitting and a validation part. Each seed is trained
on the fitting part; the seed and the number of epochs are those of the best smoothed validation
accuracy. The network is then trained anew with these on the whole training part. Test images are
used once, for the figure that is printed last.

Needs the extra `torch` and scikit-learn:  python -m topologies.zoo.scnn_digits.train
"""

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from safetensors.numpy import save_file
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from spikingjelly.activation_based import functional, neuron, surrogate
from torch import Tensor, nn

__all__ = ["Part", "build", "load_parts", "logits", "main", "train"]

SPLIT_SEED = 0
N_STEPS = 4
BATCH = 64
SMOOTHING = 9  # epochs averaged before validation accuracies are compared
GAIN = 4.0  # on PyTorch's initial weights, with which hardly a neuron would fire
HERE = Path(__file__).resolve().parent


class Part(NamedTuple):
    """Images (n, 8, 8) uint8 in 0..16 and labels (n,) uint8 in 0..9."""

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.uint8]


def load_parts() -> tuple[Part, Part]:
    """Return (training part, test part): 1,437 and 360 digits, always the same."""
    digits = load_digits()
    images = digits.images.astype(np.uint8)
    labels = digits.target.astype(np.uint8)
    split = train_test_split(
        images, labels, test_size=0.2, random_state=SPLIT_SEED, stratify=labels
    )
    return Part(split[0], split[2]), Part(split[1], split[3])


def build() -> nn.Module:
    """Build the untrained network for one step: (batch, 1, 8, 8) -> (batch, 10)."""

    def lif() -> nn.Module:
        node: nn.Module = neuron.LIFNode(
            tau=2.0,
            decay_input=False,
            v_threshold=1.0,
            v_reset=None,
            surrogate_function=surrogate.ATan(),
            detach_reset=True,
        )
        return node

    net = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        lif(),
        nn.AvgPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1),
        lif(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(64, 32),
        lif(),
        nn.Linear(32, 10),
    )
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.endswith("weight"):
                parameter *= GAIN
    return net


def logits(net: nn.Module, images: Tensor) -> Tensor:
    """Mean output (batch, 10) float32 over `N_STEPS` steps of the same image (batch, 8, 8)."""
    functional.reset_net(net)
    current = images.unsqueeze(1).float() / 16.0
    total: Tensor = net(current)
    for _ in range(N_STEPS - 1):
        total = total + net(current)
    return total / N_STEPS


def train(
    part: Part, epochs: int, total: int, seed: int, after: Callable[[nn.Module], None]
) -> nn.Module:
    """Train for `epochs` of a schedule of `total` epochs; `after` sees the net after each one."""
    torch.manual_seed(seed)
    net = build()
    optimiser = torch.optim.AdamW(net.parameters(), lr=6e-3, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, total, eta_min=1e-4)
    loss_of = nn.CrossEntropyLoss(label_smoothing=0.1)
    for _ in range(epochs):
        net.train()
        for images, labels in _batches(part):
            optimiser.zero_grad()
            loss_of(logits(net, images), labels).backward()
            optimiser.step()
        schedule.step()
        after(net)
    return net


def _batches(part: Part) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield shuffled batches, half of the images moved by up to one pixel."""
    order = torch.randperm(len(part.labels)).numpy()
    for lo in range(0, len(order), BATCH):
        rows = order[lo : lo + BATCH]
        moves = (torch.randint(-1, 2, (len(rows), 2)) * torch.randint(0, 2, (len(rows), 1))).numpy()
        moved = [_moved(part.images[r], *m) for r, m in zip(rows, moves, strict=True)]
        labels = torch.from_numpy(part.labels[rows].astype(np.int64))
        yield torch.from_numpy(np.stack(moved)), labels


def _moved(image: npt.NDArray[np.uint8], dy: int, dx: int) -> npt.NDArray[np.uint8]:
    """Move one image (8, 8) by (dy, dx) pixels; what enters is empty."""
    padded = np.pad(image, 1)
    return padded[1 + dy : 9 + dy, 1 + dx : 9 + dx]


def _accuracy(net: nn.Module, part: Part) -> float:
    net.eval()
    with torch.no_grad():
        guess = logits(net, torch.from_numpy(part.images)).argmax(1).numpy()
    return float((guess == part.labels).mean())


def _choose(part: Part, seeds: int, epochs: int) -> tuple[int, int]:
    """Return the (seed, epochs) with the best smoothed accuracy on a validation part."""
    split = train_test_split(
        *part, test_size=0.2, random_state=SPLIT_SEED + 1, stratify=part.labels
    )
    fitting, validation = Part(split[0], split[2]), Part(split[1], split[3])
    best = (-1.0, 0, 0)
    for seed in range(seeds):
        history = _history(fitting, validation, epochs, seed)
        smooth = np.convolve(history, np.ones(SMOOTHING) / SMOOTHING, mode="valid")
        at = int(smooth.argmax())
        print(f"seed {seed}: validation {smooth[at]:.4f} after {at + SMOOTHING} epochs", flush=True)
        best = max(best, (float(smooth[at]), seed, at + SMOOTHING))
    return best[1], best[2]


def _history(fitting: Part, validation: Part, epochs: int, seed: int) -> list[float]:
    """The validation accuracy after each epoch."""
    history: list[float] = []
    train(fitting, epochs, epochs, seed, lambda net: history.append(_accuracy(net, validation)))
    return history


def main() -> None:
    """Choose, train, and write weights.safetensors and test_images.safetensors."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--out", type=Path, default=HERE)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    training, test = load_parts()
    seed, epochs = _choose(training, options.seeds, options.epochs)
    net = train(training, epochs, options.epochs, seed, lambda _: None)
    names = {"0": "conv1", "3": "conv2", "7": "fc1", "9": "fc2"}
    weights = {
        f"{names[key.split('.')[0]]}.{key.split('.')[1]}": value.numpy()
        for key, value in net.state_dict().items()
    }
    save_file(weights, options.out / "weights.safetensors")
    save_file(
        {"images": test.images, "labels": test.labels}, options.out / "test_images.safetensors"
    )
    print(
        f"seed {seed}, {epochs} epochs: test accuracy {_accuracy(net, test):.4f} before compiling"
    )


if __name__ == "__main__":
    main()
