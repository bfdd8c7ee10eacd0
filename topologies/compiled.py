"""A compiled network: operators, their synapse groups, and how nodes are wired.

A node is a place in a network where an operator stands: a network may have one operator at two
nodes, and two networks share the nodes that are equal from the input on.
"""

from topologies.manifest import (
    CompiledNetwork,
    Edge,
    Group,
    InputSpec,
    ManifestError,
    Node,
    OutputSpec,
    Summary,
    node_id,
)
from topologies.operators import Operator, OperatorKind
from topologies.program import Program
from topologies.reference import run_reference, run_reference_nodes, run_streams
from topologies.stages.base import ValueType

__all__ = [
    "CompiledNetwork",
    "Edge",
    "Group",
    "InputSpec",
    "ManifestError",
    "Node",
    "Operator",
    "OperatorKind",
    "OutputSpec",
    "Program",
    "Summary",
    "ValueType",
    "node_id",
    "run_reference",
    "run_reference_nodes",
    "run_streams",
]
