"""The test samples of the zoo's networks, as streams, and how many answers to them are right.

A file of samples holds either `images` (B, H, W) and `labels`; or `sequences` (B, L, channels),
which end where NaN begin, and `labels`; or a graph (docs/zoo.md): its words in CSR form, `y`, and
the nodes of the test.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from loadtest.traffic import sample_record
from router.payload import pack
from router.records import SPIKES, Data
from topologies.compiled import CompiledNetwork
from topologies.errors import SpikeRouterError
from topologies.stages.base import Array

__all__ = ["Trial", "TrialError", "load_trial", "records"]


class TrialError(SpikeRouterError, ValueError):
    """A file holds no samples of a known form, or fewer answers came than samples were sent."""


@dataclass(frozen=True, eq=False)
class Trial:
    """Streams, each (S, *shape): S samples, or S steps of events.

    `labels` are (B, n): the classes at the `places` of an answer, which is (classes, all places);
    an answer to an image has but one.
    """

    streams: tuple[Array, ...]
    labels: Array
    places: Array

    @property
    def n_samples(self) -> int:
        """How many classes are asked for."""
        return int(self.labels.size)

    def first(self, n: int) -> "Trial":
        """The first `n` streams."""
        return replace(self, streams=self.streams[:n], labels=self.labels[:n])

    def accuracy(self, answers: Sequence[Array], n_classes: int) -> float:
        """The share of right classes in the last emission (n,) of each stream.

        A class is the lowest index of the maximum. Raises TrialError unless every stream has one.
        """
        if len(answers) != len(self.streams):
            raise TrialError(f"{len(answers)} answers to {len(self.streams)} streams.")
        outputs = np.stack([answer[-1].reshape(n_classes, -1) for answer in answers])
        guesses = outputs.argmax(axis=1)[:, self.places]
        return float((guesses == self.labels).mean())


def load_trial(path: Path, network: CompiledNetwork) -> Trial:
    """The samples of a file, in the shape of the network's input. Raises TrialError."""
    arrays = dict(np.load(path)) if path.suffix == ".npz" else load_file(path)
    form = next((name for name in _FORMS if name in arrays), None)
    if form is None:
        raise TrialError(f"{path} holds none of {', '.join(_FORMS)}, but {', '.join(arrays)}.")
    return _FORMS[form](arrays, network)


def _images(arrays: Mapping[str, Array], network: CompiledNetwork) -> Trial:
    images = arrays["images"].reshape(-1, 1, *network.input.shape)
    return Trial(tuple(images), arrays["labels"][:, None], np.array([0]))


def _sequences(arrays: Mapping[str, Array], network: CompiledNetwork) -> Trial:
    streams = tuple(row[~np.isnan(row[:, 0])] for row in arrays["sequences"])
    return Trial(streams, arrays["labels"][:, None], np.array([0]))


def _graph(arrays: Mapping[str, Array], network: CompiledNetwork) -> Trial:
    nodes = np.repeat(np.arange(len(arrays["y"])), np.diff(arrays["x_indptr"]))
    words = np.zeros(network.input.shape, np.uint8)
    words[arrays["x_indices"], nodes] = 1
    steps = np.broadcast_to(words, (network.input.n_steps or 1, *words.shape))
    test = arrays["test_index"].astype(np.int64)
    return Trial((steps,), arrays["y"][test][None], test)


_FORMS: dict[str, Callable[[Mapping[str, Array], CompiledNetwork], Trial]] = {
    "images": _images,
    "sequences": _sequences,
    "x_indptr": _graph,
}


def records(name: str, stream: Array, network: CompiledNetwork) -> list[Data]:
    """The input records of a stream (S, *shape): a whole request if one says all."""
    if network.input.encoder == "events":
        found = [_spikes(name, step) for step in stream]
    else:
        found = [sample_record(name, sample) for sample in stream]
    if len(found) == 1:
        return [replace(found[0], request=True)]
    last = len(found) - 1
    return [replace(record, seq=i, end=i == last) for i, record in enumerate(found)]


def _spikes(name: str, step: Array) -> Data:
    (payload,) = pack(step.reshape(1, 1, -1), 0, 1)
    return Data(name=name, payload=payload, dtype=SPIKES, steps=1)
