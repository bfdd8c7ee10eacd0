"""The text of the store's scripts, as both the server and the simulation run it."""

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib import resources

__all__ = ["Script", "script"]


@dataclass(frozen=True, slots=True)
class Script:
    """Lua text with the common part in front, and its SHA-1 in hexadecimal, as EVALSHA wants it."""

    name: str
    text: str
    sha: str


@cache
def script(name: str) -> Script:
    """Read `scripts/<name>.lua`; FileNotFoundError when there is none."""
    folder = resources.files(__package__) / "scripts"
    text = "\n".join((folder / f"{part}.lua").read_text("utf-8") for part in ("common", name))
    return Script(name, text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())
