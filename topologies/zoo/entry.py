"""What is known of a network of the zoo beside its topology: `figures.json`. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

__all__ = ["Entry"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One network: where its test samples lie, and the accuracies it had and must have on them.

    `accuracy_framework` was measured by the training script, before compiling.
    """

    name: str
    family: str
    data: str
    samples: Path
    least_accuracy: float
    accuracy_framework: float

    @classmethod
    def of(cls, name: str, figures: Mapping[str, Any], zoo: Path) -> Self:
        """From the fields of `figures.json`; `samples` is a path in the folder of the zoo."""
        return cls(
            name=name,
            family=str(figures["family"]),
            data=str(figures["data"]),
            samples=zoo / figures["samples"],
            least_accuracy=float(figures["least_accuracy"]),
            accuracy_framework=float(figures["accuracy_framework"]),
        )
