"""Where compiled operators are kept, by the hash of their bytes: Redis, a directory, or a URL.

Redis is the default and needs nothing else. A directory, or an object store that fsspec knows
(`s3://bucket/prefix`), keeps large weights out of Redis' memory. Whoever reads compares the hash:
a store can lose or damage an artifact, and never pass it off for another.
"""

import asyncio
import os
import secrets
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, ClassVar, Final, Protocol, TypeVar

from router.settings import Settings, SettingsError
from router.store.redis import RedisStore
from router.topics import OPERATOR, check_operator
from topologies.artifact import digest
from topologies.errors import SpikeRouterError
from topologies.files import MOST_ARRAYS, FileError, read_file

__all__ = [
    "ArtifactCache",
    "ArtifactDamaged",
    "Artifacts",
    "ArtifactsUnavailable",
    "FileArtifacts",
    "open_artifacts",
]

T = TypeVar("T")
_DEADLINE_S: Final = 60.0  # of one artifact to or from an object store
_MOST: Final = MOST_ARRAYS  # bytes of one artifact


class ArtifactsUnavailable(SpikeRouterError, RuntimeError):
    """The directory or object store did not answer as it should; try again."""

    retryable: ClassVar[bool] = True


class ArtifactDamaged(SpikeRouterError, RuntimeError):
    """What is kept under a hash has another one."""


class Artifacts(Protocol):
    """Bytes by the hash of an operator; `RedisStore` is one."""

    async def put_artifact(self, operator: str, artifact: bytes) -> None:
        """Write it; idempotent, since the name is the hash."""

    async def get_artifact(self, operator: str) -> bytes | None:
        """Read it; None when there is none."""

    async def remove_artifact(self, operator: str) -> None:
        """Delete it, if it is there."""


def open_artifacts(settings: Settings, store: RedisStore) -> Artifacts:
    """The store of artifacts that these settings name. Raises SettingsError."""
    return FileArtifacts(settings.artifacts) if settings.artifacts else store


class FileArtifacts:
    """One file per operator in a directory, or below a URL that fsspec knows."""

    def __init__(self, url: str) -> None:
        """Raises SettingsError for a URL that fsspec cannot open here."""
        try:
            import fsspec
        except ImportError as error:
            raise SettingsError(
                "SPIKEROUTER_ARTIFACTS needs fsspec: install the extra `artifacts`, or leave it "
                "empty to keep weights in Redis."
            ) from error
        self._errors: tuple[type[Exception], ...] = (OSError, TimeoutError)
        if url.startswith("s3://"):
            self._errors += (_speak_s3(),)
        try:
            self._files, self._base = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError, OSError) as error:
            raise SettingsError(
                f"SPIKEROUTER_ARTIFACTS = {url!r} cannot be used: {error}"
            ) from error

    async def put_artifact(self, operator: str, artifact: bytes) -> None:
        """Write it under another name first: nobody ever sees half of it."""
        path, part = self._path(operator), self._path(operator) + f".{secrets.token_hex(8)}.part"

        def put() -> None:
            self._files.makedirs(self._base, exist_ok=True)
            self._files.pipe_file(part, artifact)
            self._files.mv(part, path)

        await self._ask(put)

    async def get_artifact(self, operator: str) -> bytes | None:
        """Read and compare. Raises ArtifactDamaged, ArtifactsUnavailable."""
        path = self._path(operator)

        def get() -> bytes | None:
            try:
                _check_kind(path, self._files.info(path))
                data: bytes = self._files.cat_file(path)
            except FileNotFoundError:
                return None
            return data

        data = await self._ask(get)
        if data is not None and digest(data) != operator:
            raise ArtifactDamaged(
                f"The {len(data)} bytes of artifact {operator} have the hash {digest(data)}: "
                f"delete {path} and deploy again."
            )
        return data

    async def remove_artifact(self, operator: str) -> None:
        """Delete it, if it is there."""
        path = self._path(operator)

        def remove() -> None:
            if self._files.exists(path):
                self._files.rm_file(path)

        await self._ask(remove)

    def _path(self, operator: str) -> str:
        return f"{self._base.rstrip('/')}/{check_operator(operator)}"

    async def _ask(self, function: Callable[[], T]) -> T:
        try:
            async with asyncio.timeout(_DEADLINE_S):
                return await asyncio.to_thread(function)
        except self._errors as error:
            raise ArtifactsUnavailable(
                f"The artifacts in {self._base} cannot be had ({error!r}): check that it is there "
                "and may be written."
            ) from error


def _check_kind(path: str, found: Mapping[str, Any]) -> None:
    """Raises OSError for a pipe, a device or a folder: reading one may never end."""
    if found.get("type") != "file":
        raise OSError(f"{path} is no file")
    if (size := found.get("size")) is not None and size > _MOST:
        raise OSError(f"{path} has {size:,} bytes, legal are {_MOST:,}")


def _speak_s3() -> type[Exception]:
    """Have fsspec open s3:// with obstore; its errors are no OSErrors. Raises SettingsError."""
    try:
        from obstore.exceptions import BaseError
        from obstore.fsspec import register
    except ImportError as error:
        raise SettingsError(
            "SPIKEROUTER_ARTIFACTS = s3://... needs obstore: install the extra `artifacts`."
        ) from error
    register("s3")
    return BaseError


class ArtifactCache:
    """A directory on this machine in front of a store of artifacts, for its workers together.

    Files are compared with their names when they are read: a damaged one is fetched anew.
    """

    def __init__(self, behind: Artifacts, directory: Path) -> None:
        self._behind = behind
        self._directory = directory

    async def get_artifact(self, operator: str) -> bytes | None:
        """From the directory, or from behind it and then kept. Raises what the store raises."""
        path = self._directory / check_operator(operator)
        data = await self._local(_read, path)
        if data is not None and digest(data) == operator:
            return data
        data = await self._behind.get_artifact(operator)
        if data is not None:
            await self._local(_write, path, data)
        return data

    async def keep(self, operators: Collection[str]) -> None:
        """Delete the artifacts of all other operators."""
        wanted = set(operators)

        def evict(directory: Path) -> None:
            for path in directory.glob("*"):
                if OPERATOR.fullmatch(path.name) and path.name not in wanted:
                    path.unlink(missing_ok=True)

        await self._local(evict, self._directory)

    async def _local(self, function: Callable[..., T], *arguments: Any) -> T:
        try:
            return await asyncio.to_thread(function, *arguments)
        except OSError as error:
            raise ArtifactsUnavailable(
                f"The cache of artifacts {self._directory} cannot be used ({error}): set "
                "SPIKEROUTER_ARTIFACT_CACHE to a directory that may be written, or to none."
            ) from error


def _read(path: Path) -> bytes | None:
    try:
        return read_file(path, _MOST)
    except FileError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return None
        raise


def _write(path: Path, data: bytes) -> None:
    """Under another name first: another worker may read it meanwhile."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{secrets.token_hex(8)}.part")
    part.write_bytes(data)
    os.replace(part, path)
