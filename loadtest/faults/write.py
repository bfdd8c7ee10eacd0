"""Writes what runs printed with `--json` into a document, between the marks of their names.

    python -m loadtest.faults --faults 1000 --apache --json > run.json
    python -m loadtest.faults.write docs/reliability.md apache run.json "make faults APACHE=1"

The document has a line `<!-- begin apache -->` and a line `<!-- end apache -->`; everything
between them is replaced by the run's tables, the command, the commit and the machine.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from loadtest.faults.checkers import Finding
from loadtest.faults.report import Summary, as_text
from topologies.errors import SpikeRouterError

__all__ = ["MarkError", "put", "summary_of"]


class MarkError(SpikeRouterError, ValueError):
    """A document lacks the marks between which a run is to stand."""


def put(document: str, name: str, text: str) -> str:
    """The document with `text` between the marks of `name`. Raises MarkError."""
    begin, end = f"<!-- begin {name} -->\n", f"<!-- end {name} -->"
    head, found, rest = document.partition(begin)
    _, closed, tail = rest.partition(end)
    if not found or not closed:
        raise MarkError(f"The document has no lines {begin.strip()} and {end}: write them first.")
    return f"{head}{begin}{text.strip()}\n{end}{tail}"


def summary_of(content: dict[str, Any]) -> Summary:
    """What `--json` printed."""
    return Summary(**{**content, "findings": [Finding(*each) for each in content["findings"]]})


def _origin(command: str) -> str:
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
    ).stdout.strip()
    machine = f"{os.cpu_count()} processors, {platform.system()} {platform.machine()}"
    return f"`{command}`, commit {commit}, {machine}, {datetime.now(UTC):%Y-%m-%d}."


def main() -> int:
    """Put one run into a document."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.faults.write", description=__doc__)
    parser.add_argument("document", type=Path)
    parser.add_argument("name")
    parser.add_argument("run", type=Path, help="what the run printed with --json")
    parser.add_argument("command", help="that made it, as one would type it")
    options = parser.parse_args()
    summary = summary_of(json.loads(options.run.read_text()))
    text = f"{_origin(options.command)}\n\n{as_text(summary)}"
    options.document.write_text(put(options.document.read_text(), options.name, text))
    return 0


if __name__ == "__main__":
    sys.exit(main())
