"""What `spikerouter compile --profile` says of a node: what fits, and what bits cost. Pure."""

from collections.abc import Sequence

from topologies.compiled import CompiledNetwork
from topologies.compiler import compile_with_errors
from topologies.compiler.cut import Granularity
from topologies.compiler.quantise import Bits
from topologies.compiler.report import make_report
from topologies.model import Network
from topologies.profiles import LIMITS, Profile, ProfileError, misfits, operator_needs
from topologies.trials import Trial

__all__ = ["bits_for", "bits_table", "check_fit", "nodes_table"]

_COMPARED = (8, 4)  # bits per weight that are reported beside the profile's own


def bits_for(profile: Profile, bits: Bits) -> Bits:
    """The bits to compile with: as asked, but no more than the node's weights have."""
    most = profile.weight_bits
    if most is None or (bits != "auto" and bits <= most):
        return bits
    return most if bits != "auto" or most < 16 else bits


def check_fit(network: CompiledNetwork, profile: Profile) -> None:
    """Raises ProfileError with everything of the network that the node cannot hold."""
    found = misfits(network, profile)
    if found:
        raise ProfileError(
            f"Network {network.name} does not fit {profile.name}: {'; '.join(map(str, found))}. "
            "Take another profile, or change these layers."
        )


def nodes_table(network: CompiledNetwork, profile: Profile) -> list[tuple[str, ...]]:
    """One row per operator that runs on nodes: how many it takes, and the most of each need."""
    rows: list[tuple[str, ...]] = [("operator", "nodes", *(n.replace("_", "\n") for n in LIMITS))]
    labels = {node.operator: network.labels.get(node.id, "") for node in network.nodes.values()}
    for oid, operator in network.operators.items():
        if operator.kind == "synaptic":
            needs = operator_needs(network, oid)
            most = (str(max(getattr(need, name) for need in needs)) for name in LIMITS)
            rows.append((labels[oid].replace("+", " "), str(len(needs)), *most))
    limits = ("any" if most is None else str(most) for most in profile.limits)
    return [*rows, (profile.name, "", *limits)]


def bits_table(
    network: Network,
    profile: Profile,
    granularity: Granularity,
    trial: Trial,
) -> list[tuple[str, ...]]:
    """Agreement and accuracy at the node's weight bits, and at 8 and 4."""
    heads = ("bits", "same class", "accuracy")
    choices = dict.fromkeys((bits_for(profile, "auto"), *_COMPARED))
    rows = ((str(b), *_figures(network, b, granularity, trial)) for b in choices)
    return [heads, *rows]


def _figures(network: Network, bits: Bits, granularity: Granularity, trial: Trial) -> Sequence[str]:
    compilation = compile_with_errors(network, granularity=granularity, bits=bits)
    found = make_report(network, compilation, trial).agreement
    if found is None:
        return "", ""
    after = found.accuracy_after
    return f"{found.agreement:.2%}", "" if after is None else f"{after:.2%}"
