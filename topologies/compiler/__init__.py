"""From a network as authored to operators, synapse groups and a plan."""

from topologies.compiler.compile import Compilation, compile_network, compile_with_errors
from topologies.compiler.groups import Capacity, CapacityError

__all__ = [
    "Capacity",
    "CapacityError",
    "Compilation",
    "compile_network",
    "compile_with_errors",
]
