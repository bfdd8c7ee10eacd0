"""What one hardware node can hold, and whether a synapse group fits. Pure.

A profile describes one node: a core of a neuromorphic chip, or a machine. None means that nothing
limits a quantity, or that the source does not say. Counts follow these rules:

- *fan-in*: synapses per neuron, over all branches that are summed.
- *weight bits*: those of the largest weight in units of the grid, sign included.
- *state bits*: those of one state variable. A float32 counts with the 24 bits of its significand:
  a node of fixed-point numbers keeps the exponent as a scale of its own.
- *delay*: in steps, on an edge of the network.
- *payload bits*: those of the largest value that a spike carries, sign included; plain spikes: 1.

Ingest and readouts run beside the nodes, on their host, and are not counted.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Final

import numpy as np

from topologies.compiled import CompiledNetwork, Operator
from topologies.compiler.groups import Capacity
from topologies.errors import SpikeRouterError
from topologies.program import Program
from topologies.stages.base import ValueType

__all__ = [
    "LIMITS",
    "PROFILES",
    "Misfit",
    "Needs",
    "Profile",
    "ProfileError",
    "find_profile",
    "misfits",
    "needs_of",
    "operator_needs",
]


class ProfileError(SpikeRouterError, ValueError):
    """A profile is unknown, or a network does not fit one."""


@dataclass(frozen=True, slots=True)
class Needs:
    """What one synapse group asks of its node, in the units of the module."""

    neurons: int
    synapses: int
    fan_in: int
    weight_bits: int
    state_bits: int
    delay: int
    payload_bits: int


LIMITS: Final = tuple(field.name for field in fields(Needs))


@dataclass(frozen=True, slots=True)
class Profile:
    """The most of each quantity that a node holds; `source` is where the numbers are from."""

    name: str
    neurons: int | None = None
    synapses: int | None = None
    fan_in: int | None = None
    weight_bits: int | None = None
    state_bits: int | None = None
    delay: int | None = None
    payload_bits: int | None = None
    source: str = ""

    @property
    def limits(self) -> tuple[int | None, ...]:
        """The most of each quantity, in the order of `Needs`."""
        return tuple(getattr(self, name) for name in LIMITS)

    @property
    def capacity(self) -> Capacity:
        """What the compiler cuts synapse groups for."""
        return Capacity(self.neurons, self.synapses, readouts=False)

    def exceeded(self, needs: Needs) -> tuple[str, ...]:
        """The quantities of which the group needs more than there is."""
        return tuple(name for name in LIMITS if _above(getattr(needs, name), getattr(self, name)))


PROFILES: Mapping[str, Profile] = {
    profile.name: profile
    for profile in (
        Profile("cpu", source="A machine with memory to spare."),
        Profile(
            "darwin3-core",
            neurons=4096,
            source="Ma et al. 2024, doi:10.1093/nsr/nwae102.",
        ),
        Profile(
            "loihi2-core",
            neurons=8192,
            weight_bits=8,
            state_bits=24,
            payload_bits=32,
            source="Intel Labs 2021, technology brief 'Taking Neuromorphic Computing to the Next "
            "Level with Loihi 2'; 24-bit state as of Davies et al. 2018, "
            "doi:10.1109/MM.2018.112130359.",
        ),
        Profile(
            "spinnaker1-core",
            neurons=255,
            weight_bits=16,
            delay=16,
            source="sPyNNaker: Rhodes et al. 2018, doi:10.3389/fnins.2018.00816.",
        ),
    )
}


def find_profile(name: str) -> Profile:
    """The preset of this name. Raises ProfileError."""
    if name not in PROFILES:
        raise ProfileError(f"No profile {name!r}: legal are {', '.join(sorted(PROFILES))}.")
    return PROFILES[name]


@dataclass(frozen=True, slots=True)
class Misfit:
    """A synapse group that needs more of something than the profile has."""

    label: str
    group: int
    limit: str
    needed: int
    most: int

    def __str__(self) -> str:
        """A sentence without its full stop."""
        what = self.limit.replace("_", " ")
        return (
            f"group {self.group} of {self.label} needs {what} {self.needed}, there is {self.most}"
        )


def misfits(network: CompiledNetwork, profile: Profile) -> tuple[Misfit, ...]:
    """Everything of a compiled network that does not fit, group by group."""
    labels = {node.operator: network.labels.get(node.id, "") for node in network.nodes.values()}
    found = []
    for oid, operator in network.operators.items():
        if operator.kind != "synaptic":
            continue
        for index, needs in enumerate(operator_needs(network, oid)):
            found += [
                Misfit(labels[oid], index, limit, getattr(needs, limit), getattr(profile, limit))
                for limit in profile.exceeded(needs)
            ]
    return tuple(found)


def operator_needs(network: CompiledNetwork, operator: str) -> tuple[Needs, ...]:
    """What each synapse group of an operator needs, where it stands in this network."""
    delays = [
        edge.delay for node in network.nodes.values() if node.operator == operator
        for edge in node.edges
    ]  # fmt: skip
    whole: Operator = network.operators[operator]
    return tuple(
        needs_of(whole.program.slice(group.lo, group.hi), max(delays, default=0))
        for group in network.groups[operator]
    )


def needs_of(program: Program, delay: int = 0) -> Needs:
    """What a program needs; `delay` is the longest of the edges that it reads."""
    cost = program.cost
    weights = [stage.arrays()["weight"] for stage in program.stages if stage.weighted]
    states = zip(program.stages, program.state_specs, strict=True)
    state_bits = [
        stage.state_bits or _state_bits(np.dtype(dtype))
        for stage, spec in states
        for _, _, dtype in spec
    ]
    return Needs(
        neurons=cost.n_neurons,
        synapses=cost.n_synapses,
        fan_in=sum(_fan_ins(program)),
        weight_bits=max(map(_weight_bits, weights), default=0),
        state_bits=max(state_bits, default=0),
        delay=delay,
        payload_bits=_payload_bits(program.output),
    )


def _fan_ins(program: Program) -> Iterable[int]:
    """Synapses per output of each stage that has any."""
    for index, stage in enumerate(program.stages):
        inputs = program.inputs_of(index)
        n_synapses = stage.cost(inputs).n_synapses
        yield -(-n_synapses // program.types[index].n)


def _weight_bits(weight: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> int:
    largest = int(np.abs(weight.astype(np.int64)).max(initial=0))
    return largest.bit_length() + 1


def _state_bits(dtype: np.dtype[Any]) -> int:
    return int(np.finfo(dtype).nmant) + 1 if dtype.kind == "f" else 8 * dtype.itemsize


def _payload_bits(value: ValueType) -> int:
    return value.largest.bit_length() + (value.low < 0)


def _above(needed: int, most: int | None) -> bool:
    return most is not None and needed > most
