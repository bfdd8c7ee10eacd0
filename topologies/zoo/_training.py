"""Training of the zoo's networks: choice of seed and length, the files that are written.

The training part is split once more, 80/20, stratified, into a fitting and a validation part. Each
seed is trained on the fitting part; the seed and the number of epochs, from half of the schedule
on, are those of the best smoothed validation accuracy. With `refit` the network is then trained
anew with these on the whole training part; without, the weights of that epoch are kept. The test
part is used once, for the figure that is written last.

Needs the extra `torch`, and for MNIST the extra `zoo`.
"""

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from safetensors.numpy import save_file
from sklearn.model_selection import train_test_split
from spikingjelly.activation_based import functional
from torch import Tensor, nn

from topologies.zoo._data import SPLIT_SEED, Part

__all__ = [
    "Arrays",
    "Card",
    "Choice",
    "Recipe",
    "accuracy_of",
    "arrays_of",
    "mean_output",
    "moved",
    "run",
    "train",
    "write",
]

Logits = Callable[[nn.Module, Tensor], Tensor]
Inputs = npt.NDArray[Any]
Arrays = dict[str, npt.NDArray[Any]]


def moved(images: Inputs) -> Inputs:
    """Images (B, H, W), half of them moved by up to one pixel; what enters is empty."""
    n = len(images)
    moves = (torch.randint(-1, 2, (n, 2)) * torch.randint(0, 2, (n, 1))).numpy()
    return np.stack([_moved(image, *move) for image, move in zip(images, moves, strict=True)])


def _moved(image: Inputs, dy: int, dx: int) -> Inputs:
    height, width = image.shape
    padded = np.pad(image, 1)
    return padded[1 + dy : 1 + dy + height, 1 + dx : 1 + dx + width]


def arrays_of(net: nn.Module) -> Arrays:
    """The parameters and statistics of a net, by the names of its `state_dict`."""
    return {
        name: np.ascontiguousarray(value.detach().numpy())
        for name, value in net.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }


@dataclass(frozen=True)
class Recipe:
    """How a network is trained. `logits(net, inputs)`: (B, ...) -> float32 (B, classes).

    `augment` changes inputs (B, ...) at random while training; `arrays` are what is written.
    `smoothing` is the number of epochs averaged before validation accuracies are compared, `least`
    the accuracy that the served network must have on the test part.
    """

    family: str
    data: str
    samples: str
    least: float
    load: Callable[[], tuple[Part, Part]]
    build: Callable[[], nn.Module]
    logits: Logits
    epochs: int
    seeds: int = 1
    smoothing: int = 3
    batch: int = 64
    learning_rate: float = 6e-3
    weight_decay: float = 1e-3
    refit: bool = False
    arrays: Callable[[nn.Module], Arrays] = arrays_of
    augment: Callable[[Inputs], Inputs] = moved


class Choice(NamedTuple):
    """The seed and the number of epochs, their smoothed validation accuracy, the weights then."""

    accuracy: float
    seed: int
    epochs: int
    state: dict[str, Tensor]


def mean_output(n_steps: int, high: float) -> Logits:
    """The mean output (B, 10) of a net in step mode 'm' that is given one image in every step."""

    def logits(net: nn.Module, images: Tensor) -> Tensor:
        functional.reset_net(net)
        current = (images.unsqueeze(1).float() / high).expand(n_steps, -1, -1, -1, -1)
        mean: Tensor = net(current).mean(0)
        return mean

    return logits


def train(
    recipe: Recipe, part: Part, epochs: int, seed: int, after: Callable[[nn.Module, int], None]
) -> nn.Module:
    """Train for `epochs` of the recipe's schedule; `after` sees the net after each, from 1 on."""
    torch.manual_seed(seed)
    net = recipe.build()
    parameters = [p for p in net.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(
        parameters, lr=recipe.learning_rate, weight_decay=recipe.weight_decay
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, recipe.epochs, eta_min=1e-4)
    loss_of = nn.CrossEntropyLoss(label_smoothing=0.1)
    for epoch in range(1, epochs + 1):
        net.train()
        for inputs, labels in _batches(recipe, part):
            optimiser.zero_grad()
            loss_of(recipe.logits(net, inputs), labels).backward()
            optimiser.step()
        schedule.step()
        after(net, epoch)
    return net


def _batches(recipe: Recipe, part: Part) -> Iterator[tuple[Tensor, Tensor]]:
    order = torch.randperm(len(part.labels)).numpy()
    for lo in range(0, len(order), recipe.batch):
        rows = order[lo : lo + recipe.batch]
        inputs = recipe.augment(part.inputs[rows])
        labels = torch.from_numpy(part.labels[rows].astype(np.int64))
        yield torch.from_numpy(inputs), labels


def accuracy_of(recipe: Recipe, net: nn.Module, part: Part) -> float:
    """The share of right classes, in evaluation mode."""
    net.eval()
    guesses = []
    with torch.no_grad():
        for lo in range(0, len(part.labels), 256):
            inputs = torch.from_numpy(part.inputs[lo : lo + 256])
            guesses.append(recipe.logits(net, inputs).argmax(1).numpy())
    return float((np.concatenate(guesses) == part.labels).mean())


def choose(recipe: Recipe, part: Part) -> Choice:
    """The best of all seeds and epochs on a validation part."""
    split = train_test_split(
        *part, test_size=0.2, random_state=SPLIT_SEED + 1, stratify=part.labels
    )
    fitting, validation = Part(split[0], split[2]), Part(split[1], split[3])
    found = [_follow(recipe, fitting, validation, seed) for seed in range(recipe.seeds)]
    return max(found, key=lambda choice: choice[:3])


def _follow(recipe: Recipe, fitting: Part, validation: Part, seed: int) -> Choice:
    """The best smoothed epoch of one seed."""
    history: list[float] = []
    states: list[dict[str, Tensor]] = []

    def after(net: nn.Module, epoch: int) -> None:
        if epoch > recipe.epochs // 2:
            history.append(accuracy_of(recipe, net, validation))
            states.append({name: value.clone() for name, value in net.state_dict().items()})
            print(f"seed {seed}, epoch {epoch}: validation {history[-1]:.4f}", flush=True)

    train(recipe, fitting, recipe.epochs, seed, after)
    smooth = np.convolve(history, np.ones(recipe.smoothing) / recipe.smoothing, mode="valid")
    last = int(smooth.argmax()) + recipe.smoothing - 1
    epochs = recipe.epochs // 2 + last + 1
    return Choice(float(smooth.max()), seed, epochs, states[last])


def run(recipe: Recipe, folder: Path) -> None:
    """Choose, train, and write weights, figures.json, and the samples where they are its own."""
    parser = argparse.ArgumentParser(description=run.__doc__)
    parser.add_argument("--out", type=Path, default=folder)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    training, test = recipe.load()
    chosen = choose(recipe, training)
    if recipe.refit:
        net = train(recipe, training, chosen.epochs, chosen.seed, lambda *_: None)
    else:
        net = recipe.build()
        net.load_state_dict(chosen.state)
    accuracy = accuracy_of(recipe, net, test)
    if Path(recipe.samples).parent.name == folder.name:
        _write_samples(options.out / Path(recipe.samples).name, test)
    write(recipe, options.out, recipe.arrays(net), chosen, accuracy)


def _write_samples(path: Path, test: Part) -> None:
    form = "images" if test.inputs.dtype == np.uint8 else "sequences"
    save_file({form: test.inputs, "labels": test.labels}, path)


class Card(Protocol):
    """What of a network is told beside its accuracies; a `Recipe` is one."""

    @property
    def family(self) -> str: ...
    @property
    def data(self) -> str: ...
    @property
    def samples(self) -> str: ...
    @property
    def least(self) -> float: ...


def write(card: Card, out: Path, arrays: Arrays, chosen: Choice, accuracy: float) -> None:
    """Write the weights, and what `spikerouter zoo` shows of the network."""
    save_file(arrays, out / "weights.safetensors")
    figures = {
        "family": card.family,
        "data": card.data,
        "samples": card.samples,
        "least_accuracy": card.least,
        "accuracy_framework": round(accuracy, 6),
        "framework": f"spikingjelly {version('spikingjelly')}, torch {version('torch')}",
        "seed": chosen.seed,
        "epochs": chosen.epochs,
        "accuracy_validation": round(chosen.accuracy, 6),
    }
    (out / "figures.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    print(f"seed {chosen.seed}, {chosen.epochs} epochs: test accuracy {accuracy:.4f}")
