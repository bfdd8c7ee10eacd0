"""The kernels a worker has at hand: those of its tasks, and those it may be asked for next.

To load an operator and compare it with the reference takes longer than to restore a checkpoint. A
worker does both beforehand, as far as `warm_bytes` of artifacts go, for whatever it could host: it
is then a *warm* spare, and a claim waits for the checkpoint only.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Protocol

from router.artifacts import ArtifactDamaged
from topologies.artifact import ArtifactError
from topologies.compiled import Group, Operator
from topologies.errors import SpikeRouterError
from workers.kernel import Kernel

__all__ = ["Artifacts", "KernelShelf", "NoArtifactError"]

_log = logging.getLogger(__name__)

_PATIENCE_S: Final = 5.0  # for an artifact to be written anew by who holds it
_AGAIN_S: Final = 0.25

Admit = Callable[[Operator, Group], Kernel]
Key = tuple[str, Group]


class Artifacts(Protocol):
    """Where operators come from: a store of `router.artifacts`."""

    async def get_artifact(self, operator: str) -> bytes | None: ...


class NoArtifactError(SpikeRouterError, RuntimeError):
    """The store does not have an operator that a task needs."""


class KernelShelf:
    """Loads and admits each kernel once. `admit` runs on a thread; None bytes are unbounded."""

    def __init__(
        self,
        artifacts: Artifacts,
        admit: Admit,
        warm_bytes: int | None,
        ask: Callable[[str], Awaitable[None]] | None = None,
    ) -> None:
        """`ask` has an artifact that is lost or damaged written anew by who holds the operator."""
        self._artifacts = artifacts
        self._admit = admit
        self._ask = ask
        self._warm_bytes = warm_bytes
        self._kernels: dict[Key, Kernel] = {}
        self._sizes: dict[str, int] = {}
        self._coming: dict[Key, asyncio.Task[Kernel]] = {}
        self._background = ThreadPoolExecutor(1, "warm")

    def __contains__(self, key: object) -> bool:
        return key in self._kernels

    @property
    def operators(self) -> dict[str, Operator]:
        """The operators whose kernels are here, by their ids."""
        return {key[0]: kernel.operator for key, kernel in self._kernels.items()}

    def close(self) -> None:
        """Begin nothing more."""
        for task in self._coming.values():
            task.cancel()
        self._background.shutdown(wait=False, cancel_futures=True)

    async def operator(self, operator: str) -> Operator:
        """The whole operator. Raises NoArtifactError, and what a damaged artifact raises."""
        found, _ = await self._fetched(operator, _PATIENCE_S)
        return found

    async def _fetched(self, operator: str, patience_s: float) -> tuple[Operator, int]:
        """An operator and the bytes of its artifact; one that is lost or damaged is asked for and
        waited for."""
        loop = asyncio.get_running_loop()
        until = loop.time() + patience_s
        while True:
            try:
                return await self._whole(operator)
            except (NoArtifactError, ArtifactError, ArtifactDamaged) as error:
                if self._ask is None:
                    raise
                _log.warning("operator %s is asked for: %s", operator, error)
                await self._ask(operator)
                if loop.time() >= until:
                    raise
            await asyncio.sleep(_AGAIN_S)

    async def _whole(self, operator: str) -> tuple[Operator, int]:
        data = await self._artifacts.get_artifact(operator)
        if data is None:
            raise NoArtifactError(f"the store has no artifact of operator {operator}: deploy again")
        return Operator.from_bytes(data, expected=operator), len(data)

    async def get(self, operator: str, group: Group) -> Kernel:
        """The kernel of a task that is to run now. Raises what `operator` and `admit` raise."""
        key = (operator, group)
        kernel = self._kernels.get(key)
        if kernel is not None:
            return kernel
        coming = self._coming.get(key)
        if coming is None:
            coming = self._coming[key] = asyncio.create_task(self._load(key, None))
            coming.add_done_callback(lambda _: self._coming.pop(key, None))
        return await asyncio.shield(coming)

    async def warm(self, wanted: Iterable[Key]) -> None:
        """Get kernels ready one by one until `warm_bytes` are reached.

        A kernel that cannot be had is passed over: a claim will say why. A claim does not wait for
        what is being warmed, behind others perhaps: it loads the same anew.
        """
        for key in wanted:
            if key in self._kernels or key in self._coming:
                continue
            if self._is_full():
                return
            try:
                await self._load(key, self._background)
            except Exception as error:  # noqa: BLE001 - a claim will say why
                _log.warning("operator %s does not get warm here: %r", key[0], error)

    def keep(self, operators: Collection[str]) -> None:
        """Forget the kernels of all other operators."""
        for key in [key for key in self._kernels if key[0] not in operators]:
            del self._kernels[key]
        for operator in [operator for operator in self._sizes if operator not in operators]:
            del self._sizes[operator]

    def trim(self, running: Collection[tuple[str, int]]) -> None:
        """Forget kernels, the oldest first, until no more than `warm_bytes` are kept.

        Those of `running` synapse groups, (operator, group index), stay. The likely mistake: not to
        call it when a task has ended here, so that a worker that many tasks pass through keeps all.
        """
        for key in list(self._kernels):
            if self._warm_bytes is None or sum(self._sizes.values()) <= self._warm_bytes:
                return
            if (key[0], key[1].index) not in running:
                del self._kernels[key]
                if not any(operator == key[0] for operator, _ in self._kernels):
                    self._sizes.pop(key[0], None)

    def _is_full(self) -> bool:
        return self._warm_bytes is not None and sum(self._sizes.values()) >= self._warm_bytes

    async def _load(self, key: Key, pool: ThreadPoolExecutor | None) -> Kernel:
        patience_s = _PATIENCE_S if pool is None else 0.0  # what is only warmed waits for nobody
        operator, n_bytes = await self._fetched(key[0], patience_s)
        loop = asyncio.get_running_loop()
        kernel = await loop.run_in_executor(pool, self._admit, operator, key[1])
        self._sizes[key[0]] = n_bytes  # of kernels that are kept, and of no other operator
        return self._kernels.setdefault(key, kernel)
