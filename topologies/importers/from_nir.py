"""From a parsed NIR graph to a network. Pure.

1. Sub-graphs are opened (nir_graph), cycles get their step (nir_wiring).
2. From the output back, every node becomes layers; what is summed is an `add`.
3. What is read late must be able to travel: spikes, or what pools and shapes make of them. Where a
   late edge leaves a sum of synapses, the synapses are laid behind the delay:
   `w_rec(s)` one step late is `w_rec` of `s` one step late.
4. The bias of such synapses acts from step 0, or, if `recurrent_bias` is false and behind Delay
   nodes always, from the first step at which a spike could have arrived: it comes from a neuron
   that fires in every step.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import numpy as np

from topologies.importers.build import Builder, Face, Imported, compact
from topologies.importers.nir_graph import Graph, Node, open_graph
from topologies.importers.nir_integrators import INTEGRATING, integrator_of, readout_of
from topologies.importers.nir_linear import LINEAR, Shape, linear_layers, refused
from topologies.importers.nir_neurons import SPIKING, neuron_of, parameter_shape
from topologies.importers.nir_options import NirOptions
from topologies.importers.nir_wiring import Wiring, wire
from topologies.model import INPUT, Fault, NetworkError, Output, Source

__all__ = ["import_nir"]

_ROUND = 1e-3  # of a step: a delay that is further from whole steps is refused
_HOMOGENEOUS = ("AvgPool2d", "Flatten", "SumPool2d")


def import_nir(document: Mapping[str, Any], face: Face, options: NirOptions) -> Imported:
    """The network of a NIR graph, as `open_graph` takes it. Raises NetworkError."""
    graph = open_graph(document)
    root, leaf = graph.only("Input"), graph.only("Output")
    delays = {p: _steps(n, options) for p, n in graph.nodes.items() if n.kind == "Delay"}
    delaying = {path for path, steps in delays.items() if steps.min() >= 1}
    sending = {p for p, n in graph.nodes.items() if n.kind in SPIKING or n.kind in INTEGRATING}
    wiring = wire(graph, root.path, delaying, sending | delaying | {root.path})
    work = _Work(graph, options, wiring, delays)
    work.infer_shapes()
    for path in wiring.order:
        if path not in (root.path, leaf.path):
            work.names[path] = work.builder.reserve(path)
    output = work.output(leaf, face)
    unread = [path for path in work.names if path not in work.read]
    for path in unread:
        work.builder.note(path, "nothing that leads to the output reads it; it is left out.")
    return work.builder.finished(face, work.shapes[root.path], output)


def _steps(node: Node, options: NirOptions) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The delays of a node in steps. Raises NetworkError unless they are whole."""
    exact = node.array("delay") / options.seconds(node)
    steps: np.ndarray[Any, np.dtype[np.float64]] = np.rint(exact)
    if (exact < 0).any() or np.abs(exact - steps).max() > _ROUND:
        worst = exact.flat[int(np.abs(exact - steps).argmax())]
        raise refused(
            node,
            f"a delay of {worst} steps: legal are whole steps from 0 on. Choose dt so that it "
            "divides the delays.",
        )
    return steps


@dataclass(eq=False)
class _Work:
    graph: Graph
    options: NirOptions
    wiring: Wiring
    delays: Mapping[str, np.ndarray[Any, np.dtype[np.float64]]]
    builder: Builder = field(default_factory=Builder)
    names: dict[str, str] = field(default_factory=dict)
    shapes: dict[str, Shape] = field(default_factory=dict)
    done: dict[tuple[str, int, bool], Source] = field(default_factory=dict)
    read: set[str] = field(default_factory=set)

    def infer_shapes(self) -> None:
        """The shapes of all outputs, from the input on. Raises NetworkError with all misfits."""
        root = self.graph.only("Input")
        readers = (self.graph.nodes[path] for path in self.graph.targets(root.path))
        shape = root.shape or next(filter(None, map(_declared, readers)), ())
        if not shape:
            raise refused(root, "its shape is not declared, and no reader declares what it reads.")
        self.shapes[root.path] = shape
        faults: list[Fault] = []
        for path in self.wiring.order:
            node = self.graph.nodes[path]
            before = [self.shapes[a] for a in self._ahead(path) if a in self.shapes]
            if before and path != root.path:
                try:
                    self.shapes[path] = _shape_out(node, before[0])
                except NetworkError as error:
                    faults += error.faults
        faults += self._misfits()
        if faults or (faults := list(self._unreached())):
            raise NetworkError(faults)

    def _unreached(self) -> Iterator[Fault]:
        """What leads to the output but is not reached from the input."""
        leaf = self.graph.only("Output").path
        before, stack = {leaf}, [leaf]
        while stack:
            new = [a for a in self.graph.sources(stack.pop()) if a not in before]
            before.update(new)
            stack += new
        for path in self.graph.nodes:
            if path in before and path not in self.shapes:
                yield Fault(path, "it leads to the output, but the input does not lead to it.")

    def _ahead(self, path: str) -> list[str]:
        sources = self.graph.sources(path)
        return [source for source in sources if (source, path) not in self.wiring.closing]

    def _misfits(self) -> Iterator[Fault]:
        for path in self.graph.nodes:
            known = {a: self.shapes[a] for a in self.graph.sources(path) if a in self.shapes}
            if len(set(known.values())) > 1:
                given = ", ".join(f"{a} of shape {list(shape)}" for a, shape in known.items())
                yield Fault(path, f"it adds {given}: legal is one shape.")

    def output(self, leaf: Node, face: Face) -> Output:
        """Layers up to the output, and the readout there."""
        sources = self.graph.sources(leaf.path)
        if not sources:
            raise refused(leaf, "nothing leads to it.")
        last = self.graph.nodes[sources[0]]
        if len(sources) == 1 and face.readout is None and last.kind in INTEGRATING:
            shape = self.shapes[last.path]
            found = readout_of(last, self.options, shape)
            if found is not None:
                self.read.add(last.path)
                reading, readings = found
                return face.output(self._input_of(last, 0, True).layer, reading, readings)
        source = self._input_of(leaf, 0, True)
        if source.delay or source.layer == INPUT:
            source = self.builder.add("late", "reshape", [source], {"shape": [-1]})
        readout = "count" if all(self._spikes(path) for path in sources) else "mean"
        if len(sources) == 1 and last.kind in INTEGRATING:
            return face.output(source.layer, "membrane", {"decay": 0.0})
        return face.output(source.layer, readout, {})

    def _spikes(self, path: str) -> bool:
        return self.graph.nodes[path].kind in SPIKING

    # What is read

    def _input_of(self, node: Node, delay: int, bias: bool) -> Source:
        """What a node reads, `delay` steps late: the sum over its edges."""
        found = []
        for path in self.graph.sources(node.path):
            more = 1 if (path, node.path) in self.wiring.late else 0
            kept = bias and (not more or self.options.recurrent_bias)
            found.append(self._source(path, delay + more, kept))
        if not found:
            raise refused(node, "nothing leads to it.")
        if len(found) == 1:
            return found[0]
        return self.builder.add(f"{self.names.get(node.path, 'output')}.sum", "add", found)

    def _travels(self, path: str) -> bool:
        kind = self.graph.nodes[path].kind
        if kind in SPIKING or kind in INTEGRATING or kind == "Input":
            return True
        if kind not in _HOMOGENEOUS or path in self.wiring.cyclic:
            return False
        return all(map(self._travels, self.graph.sources(path)))

    def _source(self, path: str, delay: int, bias: bool) -> Source:
        """The output of a node, `delay` steps late; see the module, 3 and 4, for `bias`."""
        self.read.add(path)
        node = self.graph.nodes[path]
        if node.kind == "Input":
            return Source(INPUT, delay)
        if delay and self._travels(path):
            found = self._source(path, 0, True)
            return Source(found.layer, found.delay + delay)
        key = (path, delay, bias or not delay)
        if key not in self.done:
            if self._travels(path) and node.kind not in _HOMOGENEOUS:
                self.done[key] = Source(self.names[path])  # it may read itself
            self.done[key] = self._emit(node, delay, bias)
        return self.done[key]

    # What is written

    def _emit(self, node: Node, delay: int, bias: bool) -> Source:
        if node.kind == "Delay":
            return self._delay(node, delay)
        if node.kind in SPIKING or node.kind in INTEGRATING:
            return self._neuron(node)
        shape = self.shapes[self.graph.sources(node.path)[0]]
        source = self._input_of(node, delay, bias)
        name = self.names[node.path] if not delay else f"{self.names[node.path]}.late{delay}"
        if not delay or bias or not self._has_bias(node):
            return linear_layers(self.builder, name, node, source, shape)[0]
        bare = Node(node.path, node.kind, {**node.fields, "bias": np.zeros(len(_bias(node)))})
        found, out = linear_layers(self.builder, name, bare, source, shape)
        late_bias = self._late_bias(name, _bias(node), out, delay)
        return self.builder.add(f"{name}.biased", "add", [found, late_bias])

    def _has_bias(self, node: Node) -> bool:
        return "bias" in node.fields and bool(_bias(node).any())

    def _late_bias(self, name: str, bias: Any, shape: Shape, delay: int) -> Source:
        """The bias from step `delay` on, of a neuron that fires in every step."""
        rows = np.repeat(bias, prod(shape) // len(bias))[:, None]
        always = self.builder.always(self.shapes[self.graph.only("Input").path])
        late = replace(always, delay=delay)
        found = self.builder.add(f"{name}.bias", "linear", [late], {}, {"weight": rows})
        if len(shape) == 1:
            return found
        return self.builder.add(f"{name}.bias.shape", "reshape", [found], {"shape": list(shape)})

    def _neuron(self, node: Node) -> Source:
        shape, name = self.shapes[node.path], self.names[node.path]
        source = self._input_of(node, 0, True)
        if node.kind in INTEGRATING:
            kind, constants = integrator_of(node, self.options, shape)
            return self.builder.add_constants(name, kind, [source], constants)
        kind, constants = neuron_of(node, self.options, shape)
        self._note_on_if(node)
        return self.builder.add_neuron(node.path, name, kind, [source], constants)

    def _note_on_if(self, node: Node) -> None:
        if node.kind == "IF" and not self.options.if_per_step and (node.array("r") == 1).all():
            dt = self.options.seconds(node)
            if dt != 1:
                self.builder.note(
                    node.path,
                    f"r is 1 per second, so that a current of 1 charges it by {dt} in a step; "
                    "where 1 per step is meant (Norse, sinabs), pass --if-per-step.",
                )

    def _delay(self, node: Node, delay: int) -> Source:
        steps = compact(self.delays[node.path], self.shapes[node.path])
        least = int(np.min(steps))
        sources = self.graph.sources(node.path)
        able = self._travels(sources[0]) or node.path in self.wiring.cyclic
        on_edge = least if len(sources) == 1 and able else 0
        source = self._input_of(node, delay + on_edge, not delay + on_edge)
        left = np.asarray(steps) - on_edge
        if not left.any():
            return source
        name = self.names[node.path] if not delay else f"{self.names[node.path]}.late{delay}"
        late = {"steps": left if left.ndim else int(left)}
        return self.builder.add_constants(name, "delay", [source], late)


def _shape_out(node: Node, shape: Shape) -> Shape:
    """The shape of what a node gives. Raises NetworkError where its parameters do not fit."""
    if node.kind == "Output":
        return shape
    if node.kind in LINEAR:
        return linear_layers(Builder(), "", node, Source(INPUT), shape)[1]
    if node.kind not in SPIKING and node.kind not in INTEGRATING and node.kind != "Delay":
        raise refused(node, f"a {node.kind} cannot stand inside a graph.")
    wanted = parameter_shape(node)
    try:
        compact(np.zeros(wanted), shape)
    except ValueError as error:
        raise refused(
            node, f"its parameters have shape {list(wanted)}, its input {list(shape)}."
        ) from error
    return shape


def _bias(node: Node) -> Any:
    return node.array("bias").ravel()


def _declared(node: Node) -> Shape:
    """The shape that a node declares to read, if it does."""
    rank = node.array("weight").ndim if "weight" in node.fields else 0
    if node.kind in ("Affine", "Linear") and rank > 1:
        weight = node.array("weight")
        return (*weight.shape[:-2], weight.shape[-1])
    if (
        rank > 1
        and node.kind in ("Conv1d", "Conv2d")
        and node.fields.get("input_shape") is not None
    ):
        return (node.array("weight").shape[1] * node.whole("groups")[0], *node.whole("input_shape"))
    if node.kind == "Flatten" and node.fields.get("input_type") is not None:
        shape = tuple(node.whole("input_type"))
        return shape if all(shape) else ()  # sinabs writes zeros
    if node.kind in SPIKING or node.kind in INTEGRATING or node.kind in ("Scale", "Delay"):
        return parameter_shape(node)
    return ()
