"""What the gateway needs to know of a network, and where it learns it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from router.client import Deadline
from router.gateway.errors import NotReady, UnknownNetwork
from router.store.calls import StatusReply
from router.store.errors import ManifestDamaged, StoreUnavailable
from router.topics import check_name
from topologies.compiled import CompiledNetwork, InputSpec, OutputSpec

__all__ = ["Directory", "Follow", "ServedNetwork", "Store", "datatypes_of", "metadata"]

# Datatypes of the Open Inference Protocol and the dtypes of input records.
_INTEGERS: Final = {
    "UINT8": "uint8", "INT8": "int8", "UINT16": "uint16", "INT16": "int16", "INT32": "int32",
}  # fmt: skip
_BY_DTYPE: Final = {"int32": "INT32", "float32": "FP32"}


class Store(Protocol):
    """The part of `RedisStore` that the gateway uses."""

    async def ping(self) -> None:
        """Raises StoreUnavailable."""

    async def get_manifest(self, network: str) -> bytes | None:
        """The manifest of a deployed network."""

    async def list_networks(self) -> tuple[str, ...]:
        """The names of all deployed networks."""

    async def removed_networks(self) -> frozenset[str]:
        """The names of those that were removed: what is in neither, the store has forgotten."""

    def status(self, partition: int) -> Awaitable[StatusReply]:
        """Workers and tasks of a partition."""


Follow = Callable[..., Awaitable[None]]
"""`ResultReader.follow`."""


@dataclass(frozen=True)
class ServedNetwork:
    """A deployed network, as far as clients see it."""

    name: str
    version: str
    input: InputSpec
    outputs: OutputSpec
    ingest: str
    """The operator that reads the input."""
    operators: frozenset[str]
    not_portable: tuple[str, ...]
    """Layers whose bits are the same on one machine and installation only (numerics 18)."""

    @classmethod
    def from_manifest(cls, manifest: bytes) -> "ServedNetwork":
        """Read a manifest; raises ManifestError."""
        network = CompiledNetwork.from_bytes(manifest)
        return cls(
            name=network.name,
            version=network.version,
            input=network.input,
            outputs=network.outputs,
            ingest=network.nodes[network.input.node].operator,
            operators=frozenset(node.operator for node in network.nodes.values()),
            not_portable=network.not_portable,
        )

    @property
    def takes_events(self) -> bool:
        """Whether the input is spikes, step by step, and not a sample."""
        return self.input.encoder == "events"


def datatypes_of(network: ServedNetwork) -> dict[str, str]:
    """The datatypes that the input takes, the declared one first -> dtype of the record."""
    if network.takes_events:
        return {**_INTEGERS, "BOOL": "bool"}
    return {"FP32": "float32", **_INTEGERS}


def metadata(network: ServedNetwork) -> dict[str, Any]:
    """Model metadata of the Open Inference Protocol; -1 is the batch, or a number of steps."""
    source, out = network.input, network.outputs
    steps = [-1] if network.takes_events else []
    emissions = [] if out.every is None else [-1]
    return {
        "name": network.name,
        "versions": [network.version],
        "platform": "spikerouter",
        "parameters": {
            "portable": not network.not_portable,
            "not_portable": list(network.not_portable),
        },
        "inputs": [
            {
                "name": source.name,
                "datatype": next(iter(datatypes_of(network))),
                "shape": [-1, *steps, *source.shape],
                "parameters": {
                    "low": source.low,
                    "high": source.high,
                    "encoder": source.encoder,
                    "n_steps": source.n_steps,
                },
            }
        ],
        "outputs": [
            {
                "name": "output",
                "datatype": _BY_DTYPE[out.dtype],
                "shape": [-1, *emissions, *out.shape],
                "parameters": {"readout": out.readout, "every": out.every, "unit": out.unit},
            },
            {
                "name": "class",
                "datatype": "INT32",
                "shape": [-1, *emissions],
                "parameters": {"labels": list(out.labels)},
            },
        ],
    }


@dataclass(slots=True)
class _Known:
    network: ServedNetwork
    manifest: bytes
    until: float


class Directory:
    """The deployed networks, looked up in the store and remembered for a moment.

    While the store is away, or has lost what it held of a network that was not removed, what was
    known goes on being served.
    """

    def __init__(self, store: Store, follow: Follow, *, remember_s: float = 2.0) -> None:
        self._store = store
        self._follow = follow
        self._remember_s = remember_s
        self._known: dict[str, _Known] = {}

    async def get(self, name: str, now: float, deadline: Deadline) -> ServedNetwork:
        """The network, its results followed.

        Raises UnknownNetwork, ManifestDamaged, and TopicError for a name that no network can have.
        """
        known = self._known.get(check_name(name))
        if known is not None and now < known.until:
            return known.network
        try:
            manifest = await self._store.get_manifest(name)
            is_lost = manifest is None and name not in await self._store.removed_networks()
        except (StoreUnavailable, ManifestDamaged):
            if known is None:
                raise
            return known.network
        if known is not None and is_lost:
            return known.network
        if manifest is None:
            self._known.pop(name, None)
            raise await self._missing(name)
        if known is None or manifest != known.manifest:
            network = ServedNetwork.from_manifest(manifest)
            await self._follow(network.name, network.input.name, network.outputs.every, deadline)
            known = self._known[name] = _Known(network, manifest, now)
        known.until = now + self._remember_s
        return known.network

    @property
    def known(self) -> tuple[ServedNetwork, ...]:
        """The networks that were asked for and have not been removed since."""
        return tuple(known.network for known in self._known.values())

    async def lost(self) -> list[str]:
        """What the store has lost of networks that are listed there or known here; sentences."""
        removed, listed = await self._store.removed_networks(), await self._store.list_networks()
        for name in removed.difference(listed):
            self._known.pop(name, None)
        found = []
        for name in sorted({*listed, *self._known}):
            try:
                if await self._store.get_manifest(name) is None:
                    found.append(_lost(name))
            except ManifestDamaged as error:
                found.append(str(error))
        return found

    async def _missing(self, name: str) -> Exception:
        names = await self._store.list_networks()
        if name in names:
            return NotReady((_lost(name),))
        legal = ", ".join(sorted(names)[:20]) or "none: deploy one first"
        return UnknownNetwork(f"No network {name!r} is deployed; deployed are: {legal}.")


def _lost(name: str) -> str:
    return (
        f"The store has lost the manifest of network {name}: a worker that runs the network writes"
        " it anew within seconds; deploying it again does, too."
    )
