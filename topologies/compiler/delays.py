"""Put delay layers onto the edges behind them, where they cost nothing and may close a cycle."""

from dataclasses import replace

from topologies.compiler.order import signals_of
from topologies.model import Layer, Network, Source
from topologies.stages.base import StageError
from topologies.stages.delay import Delay

__all__ = ["delays_on_edges"]


def delays_on_edges(network: Network) -> Network:
    """Without the layers that delay all values of something that travels by one number of steps.

    What remains are stages with a state: delays that differ, delays of sums, and one that the
    readout reads.
    """
    signals = signals_of(network)
    for name in [layer.name for layer in network.layers]:
        layer = next(layer for layer in network.layers if layer.name == name)
        steps = _steps(layer)
        if steps is None or name == network.output.source:
            continue
        (source,) = layer.sources
        if source.layer in signals and source.layer != name:
            network = _without(network, layer, Source(source.layer, source.delay + steps))
    return network


def _steps(layer: Layer) -> int | None:
    if layer.kind != Delay.kind or len(layer.sources) != 1:
        return None
    try:
        return Delay.uniform(layer.params, layer.arrays)
    except StageError:
        return None  # a fault of the layer, found elsewhere


def _without(network: Network, gone: Layer, instead: Source) -> Network:
    def moved(source: Source) -> Source:
        if source.layer != gone.name:
            return source
        return Source(instead.layer, instead.delay + source.delay)

    layers = tuple(
        replace(layer, sources=tuple(map(moved, layer.sources)))
        for layer in network.layers
        if layer.name != gone.name
    )
    return replace(network, layers=layers)
