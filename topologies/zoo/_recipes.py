"""How networks of one data set are trained, but for their shape and length."""

from collections.abc import Callable

from torch import nn

from topologies.zoo._data import digits, mnist
from topologies.zoo._training import Recipe, mean_output

__all__ = ["digits_recipe", "mnist_recipe"]

Build = Callable[[], nn.Module]


def digits_recipe(family: str, build: Build, epochs: int, least: float) -> Recipe:
    """8 x 8 digits in sixteenths, T = 4; trained anew on the validation part too."""
    return Recipe(
        family=family,
        data="digits",
        samples="scnn_digits/test_images.safetensors",
        least=least,
        load=digits,
        build=build,
        logits=mean_output(4, 16.0),
        epochs=epochs,
        refit=True,
    )


def mnist_recipe(
    family: str, build: Build, epochs: int, least: float, learning_rate: float
) -> Recipe:
    """28 x 28 digits in 256ths, T = 4; the weights are those of the epoch that is chosen."""
    return Recipe(
        family=family,
        data="mnist_5k",
        samples="scnn_mnist/test_images.safetensors",
        least=least,
        load=mnist,
        build=build,
        logits=mean_output(4, 256.0),
        epochs=epochs,
        smoothing=1,
        learning_rate=learning_rate,
    )
