"""Labelled samples as streams, and how many answers to them are right. Pure.

A file of samples holds `images` (B, ...), one sample each, or for an input of events its steps; or
`sequences` (B, L, channels), which end where NaN begin; both with `labels` (B), if there are any.
Or it is a graph (docs/zoo.md): its words in CSR form, `y`, and the nodes of the test.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from topologies.errors import SpikeRouterError
from topologies.manifest import CompiledNetwork, InputSpec
from topologies.reference import run_streams
from topologies.stages.base import Array

__all__ = ["Trial", "TrialError", "trial_of"]

_BATCH = 32  # streams that run at once


class TrialError(SpikeRouterError, ValueError):
    """Arrays are no samples of a known form, or answers do not fit the samples."""


@dataclass(frozen=True, eq=False)
class Trial:
    """Streams, each (S, *shape): S samples, or S steps of events.

    `labels` are (B, n): the classes at the `places` of an answer, which is (classes, all places).
    Without places the values of an answer are those of all classes, and n is 1. Without labels
    they are not known.
    """

    streams: tuple[Array, ...]
    labels: Array | None = None
    places: Array | None = None

    @property
    def n_samples(self) -> int:
        """How many classes are asked for."""
        return len(self.streams) * (1 if self.places is None else len(self.places))

    def first(self, n: int) -> "Trial":
        """The first `n` streams."""
        labels = None if self.labels is None else self.labels[:n]
        return replace(self, streams=self.streams[:n], labels=labels)

    def classes(self, answers: Sequence[Array], n_classes: int) -> Array:
        """(B, n): the class at each place of the last emission (n,) of each stream.

        It is the lowest index of the maximum. Raises TrialError unless every stream has an answer.
        """
        if len(answers) != len(self.streams):
            raise TrialError(f"{len(answers)} answers to {len(self.streams)} streams.")
        if self.places is None:
            return np.array([[answer[-1].argmax()] for answer in answers])
        outputs = np.stack([answer[-1].reshape(n_classes, -1) for answer in answers])
        guesses: Array = outputs.argmax(axis=1)[:, self.places]
        return guesses

    def accuracy(self, answers: Sequence[Array], n_classes: int) -> float:
        """The share of right classes. Raises TrialError as `classes` does, and without labels."""
        if self.labels is None:
            raise TrialError("These samples have no labels.")
        return float((self.classes(answers, n_classes) == self.labels).mean())

    def run(self, network: CompiledNetwork) -> list[Array]:
        """The emissions (K, n) of each stream in one process, those of one length side by side."""
        lengths = defaultdict(list)
        for index, stream in enumerate(self.streams):
            lengths[len(stream)].append(index)
        answers: dict[int, Array] = {}
        for indices in lengths.values():
            for lo in range(0, len(indices), _BATCH):
                part = indices[lo : lo + _BATCH]
                found = run_streams(network, np.stack([self.streams[i] for i in part]))
                answers.update(zip(part, found, strict=True))
        return [answers[index] for index in range(len(self.streams))]


def trial_of(arrays: Mapping[str, Array], spec: InputSpec) -> Trial:
    """The samples of a file, in the shape of a network's input. Raises TrialError."""
    form = next((name for name in _FORMS if name in arrays), None)
    if form is None:
        raise TrialError(
            f"Samples have one of the arrays {', '.join(_FORMS)}; these are {', '.join(arrays)}."
        )
    found = _FORMS[form](arrays, spec)
    if not found.streams or not all(stream.size for stream in found.streams):
        raise TrialError("There are no samples, or some are empty.")
    if not all(_is_legal(stream, spec) for stream in found.streams):
        raise TrialError(
            f"Samples have values that are not legal for the input: legal are {spec.low:g} to "
            f"{spec.high:g}."
        )
    return found


def _is_legal(stream: Array, spec: InputSpec) -> bool:
    return bool((stream >= spec.low).all() and (stream <= spec.high).all())  # not of NaN


def _labels(arrays: Mapping[str, Array], n: int) -> Array | None:
    """(n, 1), if there are any. Raises TrialError unless there is one for each."""
    if "labels" not in arrays:
        return None
    labels = arrays["labels"]
    if labels.shape != (n,):
        raise TrialError(f"{n} samples have labels of shape {labels.shape}: legal is ({n},).")
    return labels[:, None]


def _images(arrays: Mapping[str, Array], spec: InputSpec) -> Trial:
    images = np.atleast_1d(arrays["images"])
    n_values = int(np.prod(spec.shape))
    per_image = images.size // max(1, len(images))
    if per_image % n_values or not per_image or (per_image > n_values and not _is_steps(spec)):
        raise TrialError(
            f"Images of shape {images.shape} are no samples of shape {spec.shape}"
            f" with the encoder {spec.encoder}."
        )
    streams = tuple(images.reshape(len(images), -1, *spec.shape))
    return Trial(streams, _labels(arrays, len(streams)))


def _is_steps(spec: InputSpec) -> bool:
    return spec.encoder == "events"


def _sequences(arrays: Mapping[str, Array], spec: InputSpec) -> Trial:
    sequences = arrays["sequences"]
    if sequences.ndim < 3 or sequences.shape[2:] != spec.shape:
        raise TrialError(
            f"Sequences of shape {sequences.shape} are not (samples, steps, *{spec.shape})."
        )
    first = sequences.reshape(*sequences.shape[:2], -1)[:, :, 0]
    streams = tuple(row[~np.isnan(of)] for row, of in zip(sequences, first, strict=True))
    return Trial(streams, _labels(arrays, len(streams)))


def _graph(arrays: Mapping[str, Array], spec: InputSpec) -> Trial:
    words = np.zeros(spec.shape, np.uint8)
    try:
        nodes = np.repeat(np.arange(len(arrays["y"])), np.diff(arrays["x_indptr"]))
        words[arrays["x_indices"], nodes] = 1
        test = arrays["test_index"].astype(np.int64)
        labels = arrays["y"][test][None]
    except (LookupError, TypeError, ValueError) as error:
        raise TrialError(
            f"The arrays are no graph for an input of {spec.shape}: {error}"
        ) from error
    steps = np.broadcast_to(words, (spec.n_steps or 1, *words.shape))
    return Trial((steps,), labels, test)


_FORMS: Mapping[str, Callable[[Mapping[str, Array], InputSpec], Trial]] = {
    "images": _images,
    "sequences": _sequences,
    "x_indptr": _graph,
}
