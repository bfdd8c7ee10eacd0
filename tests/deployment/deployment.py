"""What the deployment files say, read for the tests beside this module."""

import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

__all__ = ["ROOT", "Dockerfile", "compose", "dockerfile_of", "dockerfiles", "project", "services"]

ROOT: Final = Path(__file__).parents[2]
_WORDS: Final = re.compile(r"([A-Z]+)\s+(.*)")


class Dockerfile:
    """The instructions of a Dockerfile, continuation lines joined."""

    def __init__(self, path: Path) -> None:
        self.path = path
        text = path.read_text().replace("\\\n", " ")
        lines = (line.strip() for line in text.splitlines())
        matches = (_WORDS.fullmatch(line) for line in lines if line and not line.startswith("#"))
        self.instructions = [(m[1], m[2]) for m in matches if m is not None]

    def all(self, instruction: str) -> list[str]:
        """The arguments of every such instruction."""
        return [argument for name, argument in self.instructions if name == instruction]

    def last(self, instruction: str) -> str:
        """The arguments of the last one."""
        return self.all(instruction)[-1]

    def sources(self) -> Iterator[str]:
        """What is copied from the source tree."""
        for argument in self.all("COPY"):
            *sources, _ = argument.split()
            if not any(word.startswith("--from=") for word in sources):
                yield from sources


def compose() -> dict[str, Any]:
    """The compose file."""
    found: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return found


def services() -> dict[str, Mapping[str, Any]]:
    """Its services by name."""
    found: dict[str, Mapping[str, Any]] = compose()["services"]
    return found


def dockerfiles() -> list[Dockerfile]:
    """All images that are built here."""
    return [Dockerfile(path) for path in sorted((ROOT / "docker").glob("*.Dockerfile"))]


def dockerfile_of(service: Mapping[str, Any]) -> Dockerfile | None:
    """The Dockerfile of a service; None for an image that is pulled."""
    build = service.get("build")
    return None if build is None else Dockerfile(ROOT / build["context"] / build["dockerfile"])


def project() -> dict[str, Any]:
    """pyproject.toml's table `project`."""
    found: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return found
