"""From a module of PyTorch, as it stands in memory, to a network.

The module tree is walked in the order in which containers call their children; each leaf becomes
layers named after its path. Shapes carry neither batch nor time: an SNN's step is the same whether
a module is called once per step or once for all. Nothing is traced and nothing is run, so a module
with a `forward` of its own cannot be read: it is refused with its path. No library is imported
here: a handler is looked up by the class of a module that exists already.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np

from topologies.importers.build import Builder, Face, Imported, compact
from topologies.model import INPUT, Fault, FloatArray, NetworkError, Source

__all__ = [
    "Flow",
    "Handler",
    "Handlers",
    "Shape",
    "Walk",
    "import_module",
    "refused",
    "steps_at_once",
    "values_of",
]

Shape: TypeAlias = tuple[int, ...]
_LIBRARIES = ("torch", "snntorch", "spikingjelly", "norse")


@dataclass(frozen=True)
class Flow:
    """What passes from one module to the next: a layer's output, its shape, whether it is spikes.

    `lead` is how many axes PyTorch has before it: the batch, or time and batch.
    """

    source: Source
    shape: Shape
    spikes: bool = False
    lead: int = 1


Handler: TypeAlias = Callable[["Walk", str, Any, Flow], Flow]


@dataclass(frozen=True)
class Handlers:
    """What reads which class: `leaves` themselves, `containers` by walking into their children."""

    leaves: Mapping[type, Handler] = field(default_factory=dict)
    containers: Mapping[type, Handler] = field(default_factory=dict)


@dataclass(eq=False)
class Walk:
    """Where the walk has come to. `last` is the readout that the last module asks for.

    `shape` is that of the input.
    """

    handlers: Mapping[type, Handler]
    containers: frozenset[type]
    shape: Shape
    builder: Builder = field(default_factory=Builder)
    last: tuple[str, dict[str, Any]] | None = None

    def enter(self, path: str, module: Any, flow: Flow) -> Flow:
        """Adds the layers of a module. Raises NetworkError, naming the path."""
        if self.last is not None:
            raise refused(path, "it stands behind a module that is read out: nothing may follow.")
        found = self._class_of(module)
        if found is None:
            raise refused(path, f"a {_name(module)} is not known.")
        return self.handlers[found](self, path, module, flow)

    def children(self, path: str, module: Any, flow: Flow) -> Flow:
        """The children of a container, one after the other."""
        for name, child in module.named_children():
            flow = self.enter(f"{path}.{name}" if path else name, child, flow)
        return flow

    def add(self, path: str, kind: str, flow: Flow, out: Shape, /, **given: Any) -> Flow:
        """One layer; `given` are its parameters and, as `arrays`, its arrays."""
        arrays = given.pop("arrays", None)
        source = self.builder.add(path or "module", kind, [flow.source], given, arrays)
        return replace(flow, source=source, shape=out, spikes=False)

    def neuron(
        self, path: str, kind: str, flow: Flow, constants: Mapping[str, Any], name: str = ""
    ) -> Flow:
        """A layer of neurons that stands for the module at `path`."""
        full = {
            key: compact(value, flow.shape) if isinstance(value, np.ndarray) else value
            for key, value in constants.items()
        }
        place = path or "module"
        source = self.builder.add_neuron(place, name or place, kind, [flow.source], full)
        return replace(flow, source=source, spikes=True)

    def unknown(self, path: str, module: Any) -> Iterator[Fault]:
        """Every module that nothing reads, by its path."""
        found = self._class_of(module)
        if found is None:
            kin = any(cls in self.handlers for cls in type(module).__mro__)
            own = "its forward is its own, and " if kin or list(module.children()) else ""
            legal = ", ".join(sorted({cls.__name__ for cls in self.handlers}))
            yield Fault(
                path or "module",
                f"a {_name(module)} is not known: {own}legal are {legal}, and containers that call "
                "their children in order.",
            )
        elif found in self.containers:
            for name, child in module.named_children():
                yield from self.unknown(f"{path}.{name}" if path else name, child)

    def _class_of(self, module: Any) -> type | None:
        """The class that is known: the module's own, or one whose `forward` it has inherited."""
        for cls in type(module).__mro__:
            if cls in self.handlers and type(module).forward is cls.forward:  # type: ignore[attr-defined]
                return cls
        return None


def import_module(module: Any, shape: Shape, face: Face) -> Imported:
    """The network of a module that reads samples, or steps, of `shape` (no batch, no time).

    Raises NetworkError with all modules that are not known, or that cannot be said as layers.
    """
    walk = _walk(shape)
    faults = list(walk.unknown("", module))
    if faults:
        raise NetworkError(faults, face.name)
    flow = walk.enter("", module, Flow(Source(INPUT), shape, lead=1 + steps_at_once(module)))
    if flow.source.layer == INPUT:
        raise refused("module", "it has no layers.")
    readout, readings = walk.last or ("count" if flow.spikes else "mean", {})
    output = face.output(flow.source.layer, readout, readings)
    return walk.builder.finished(face, shape, output)


def _walk(shape: Shape) -> Walk:
    from topologies.importers import from_norse, from_snntorch, from_spikingjelly, from_torch

    modules = (from_torch, from_snntorch, from_spikingjelly, from_norse)
    known = [
        part.handlers()
        for library, part in zip(_LIBRARIES, modules, strict=True)
        if library in sys.modules
    ]
    containers = {cls: handler for one in known for cls, handler in one.containers.items()}
    leaves = {cls: handler for one in known for cls, handler in one.leaves.items()}
    return Walk({**leaves, **containers}, frozenset(containers), shape)


def steps_at_once(module: Any) -> bool:
    """Whether a module is called once for all steps, as SpikingJelly's multi-step modules are."""
    return any(
        getattr(part, "step_mode", "s") == "m"
        or hasattr(part, "lifted_module")
        or hasattr(part, "record_states")
        for part in module.modules()
    )


def values_of(tensor: Any) -> float | FloatArray:
    """A constant of a module: a number, or float64 of the tensor's shape."""
    if hasattr(tensor, "detach"):
        tensor = tensor.detach().cpu().numpy()
    array = np.asarray(tensor, np.float64)
    return float(array.ravel()[0]) if array.size == 1 else array


def refused(path: str, sentence: str) -> NetworkError:
    """The error that names a module by its path."""
    return NetworkError([Fault(path or "module", sentence)])


def _name(module: Any) -> str:
    cls = type(module)
    return f"{cls.__module__}.{cls.__qualname__}"
