"""Things that a path may name and that are no file, for tests of whatever reads or writes one."""

import os
import socket
from pathlib import Path

__all__ = ["NOT_READABLE", "make"]

NOT_READABLE = {
    "a folder": "it is a folder",
    "a pipe": "it is a pipe",
    "a socket": "it is a socket",
    "a device": "it is a device",
    "nothing": "No such file",
    "no parent": "No such file",
    "a parent that is a file": "Not a directory",
    "a dangling link": "No such file",
    "a link to itself": "symbolic links",
    "a link to a pipe": "it is a pipe",
    "a long name": "too long",
    "a zero byte": "null",
    "a terabyte": "legal are",
}


def make(kind: str, folder: Path, name: str) -> Path:
    """The path of such a thing in a folder; `name` is used where the kind leaves it free."""
    path = folder / name
    match kind:
        case "a folder":
            path.mkdir()
        case "a pipe":
            os.mkfifo(path)
        case "a socket":
            place = os.getcwd()
            os.chdir(folder)  # the path of a socket is short
            try:
                with socket.socket(socket.AF_UNIX) as server:
                    server.bind(name)
            finally:
                os.chdir(place)
        case "a device":
            path.symlink_to("/dev/zero")
        case "no parent":
            path = folder / "nowhere" / name
        case "a parent that is a file":
            (folder / "plain").touch()
            path = folder / "plain" / name
        case "a dangling link":
            path.symlink_to(folder / "nowhere")
        case "a link to itself":
            path.symlink_to(name)
        case "a link to a pipe":
            os.mkfifo(folder / "pipe")
            path.symlink_to("pipe")
        case "a long name":
            path = folder / ("n" * 300 + path.suffix)
        case "a zero byte":
            path = folder / f"a\0{name}"
        case "a terabyte":
            path.touch()
            os.truncate(path, 2**40)
    return path
