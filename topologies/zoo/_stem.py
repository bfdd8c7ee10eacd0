"""The front end that several networks of digits share: trained once, in `sew_resnet_digits`."""

from pathlib import Path

from topologies.zoo._layers import Stem

__all__ = ["digits_stem"]


def digits_stem() -> Stem:
    """C16 and its neurons, (T, B, 1, 8, 8) -> (T, B, 16, 8, 8), frozen."""
    return Stem().freeze(Path(__file__).parent / "sew_resnet_digits" / "weights.safetensors")
