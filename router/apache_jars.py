"""Apache Kafka's jars: from Maven Central through `mvn`, once, into a cache folder.

The folder's name holds the digest of the pom that asked for them, so another pom or version gets
another folder; it appears under that name only when it is complete.
"""

import asyncio
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from router.processes import ServerError

__all__ = ["KAFKA_FILES", "cache_folder", "find_java", "kafka_jars"]

KAFKA_FILES: Final = Path(__file__).resolve().parent.parent / "docker" / "kafka"
_OLDEST_JAVA: Final = 17
_DOWNLOAD_S: Final = 300.0
_OTHERWISE: Final = "or use a running Kafka (--kafka HOST:PORT)"


def cache_folder() -> Path:
    """The user's cache folder for this program."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "spikerouter"


def find_java() -> str:
    """The path of a Java that runs Kafka 4. Raises `ServerError` when there is none."""
    home = os.environ.get("JAVA_HOME", "")
    found = shutil.which("java", path=f"{home}/bin") if home else None
    found = found or shutil.which("java")
    if found is None:
        raise ServerError(
            f"Apache Kafka needs Java {_OLDEST_JAVA} or newer, and neither JAVA_HOME nor PATH has a"
            f" `java`: install one (on Debian: default-jre-headless), {_OTHERWISE}."
        )
    told = subprocess.run([found, "-version"], capture_output=True, text=True, check=False).stderr
    version = re.search(r'version "(\d+)', told)
    if version is None or int(version[1]) < _OLDEST_JAVA:
        first = told.strip().partition("\n")[0] or "nothing"
        raise ServerError(
            f"Apache Kafka needs Java {_OLDEST_JAVA} or newer; {found} says {first!r}: install a"
            f" newer one and set JAVA_HOME, {_OTHERWISE}."
        )
    return found


async def kafka_jars(cache: Path | None = None, files: Path = KAFKA_FILES) -> Path:
    """The folder with the broker's jars, fetched when it is not there.

    `files` is the folder that holds `pom.xml`. Raises `ServerError`.
    """
    pom = files / "pom.xml"
    if not pom.is_file():
        raise ServerError(
            f"There is no {pom}: run this from a source tree of Spike Router, {_OTHERWISE}."
        )
    digest = hashlib.sha256(pom.read_bytes()).hexdigest()[:12]
    folder = (cache or cache_folder()) / f"kafka-{digest}"
    if not folder.is_dir():
        await _fetch(pom, folder)
    return folder


async def _fetch(pom: Path, folder: Path) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise ServerError(
            "Apache Kafka's jars are fetched with Maven, and PATH has no `mvn`: install it (on"
            f" Debian: maven), {_OTHERWISE}."
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="fetching-", dir=folder.parent) as scratch:
        jars = Path(scratch) / "jars"
        command = [
            *(maven, "--batch-mode", "--quiet", "--file", str(pom)),
            *("dependency:copy-dependencies", f"-DoutputDirectory={jars}"),
        ]
        told = await _output_of(command)
        if not any(jars.glob("kafka_*.jar")):
            raise ServerError(f"Maven did not fetch Apache Kafka's jars, {_OTHERWISE}.\n{told}")
        _put(jars, folder)


def _put(jars: Path, folder: Path) -> None:
    try:
        jars.rename(folder)
    except OSError:  # unless another process was quicker
        if not folder.is_dir():
            raise


async def _output_of(command: list[str]) -> str:
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(_DOWNLOAD_S):
            output, _ = await process.communicate()
    except BaseException as error:
        if process.returncode is None:
            process.kill()
            await process.wait()
        if isinstance(error, TimeoutError):
            raise ServerError(
                f"Maven did not fetch Apache Kafka's jars within {_DOWNLOAD_S:g} s; try again."
            ) from error
        raise
    return output.decode(errors="replace")[-2000:]
