"""The import rules of pyproject.toml hold, cover every module, and bite."""

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Final

import grimp
import pytest

_ROOT: Final = Path(__file__).parents[2]
_PACKAGES: Final = ("loadtest", "workers", "router", "topologies")

# Modules that move bytes, read clocks or start processes; all others are pure.
SHELL: Final = frozenset(
    {
        "router.bus",
        "router.cli",
        "router.client",
        "router.deploy",
        "router.embedded",
        "router.gateway",
        "router.monitor",
        "router.settings",
        "router.store.redis",
        "router.supervisor",
        "workers.__main__",
        "workers.host",
        "workers.hosted",
    }
)


def _contract(name: str) -> dict[str, list[str]]:
    config = tomllib.loads((_ROOT / "pyproject.toml").read_text())
    contracts = config["tool"]["importlinter"]["contracts"]
    found: list[dict[str, list[str]]] = [c for c in contracts if c["id"] == name]
    return found[0]


def _lint(root: Path) -> subprocess.CompletedProcess[str]:
    program = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    return subprocess.run(
        [sys.executable, "-c", program, "--no-cache"],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.fixture
def copy_of_the_code(tmp_path: Path) -> Path:
    """A copy of the packages and the rules, for planting violations."""
    for package in _PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__", "*.safetensors", "*.npz")
        shutil.copytree(_ROOT / package, tmp_path / package, ignore=ignored)
    shutil.copy(_ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_the_import_rules_hold() -> None:
    linted = _lint(_ROOT)
    assert linted.returncode == 0, linted.stdout + linted.stderr


def test_every_module_is_either_pure_or_shell() -> None:
    graph = grimp.build_graph(*_PACKAGES, cache_dir=None)
    pure = set(_contract("pure")["source_modules"])
    within = {
        module: {name for name in pure | SHELL if f"{module}.".startswith(f"{name}.")}
        for module in graph.modules
        if module not in {*_PACKAGES, "router.store"} and not module.startswith("loadtest.")
    }
    unclassified = sorted(module for module, names in within.items() if not names)
    assert unclassified == [], "name them in the contract `pure` of pyproject.toml, or in SHELL"
    assert pure & SHELL == set()


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("topologies/errors.py", "import random", "Pure modules"),
        ("router/wire.py", "import time", "Pure modules"),
        ("router/store/calls.py", "from redis.asyncio import Redis", "Pure modules"),
        ("workers/task.py", "from asyncio import Queue", "Pure modules"),
        ("workers/task.py", "import router.supervisor", "Pure modules"),  # by way of asyncio
        ("router/topics.py", "import workers", "Imports point one way"),
        ("topologies/errors.py", "from router import topics", "Imports point one way"),
        ("workers/task.py", "def late() -> None:\n    import loadtest", "Imports point one way"),
    ],
)
def test_a_planted_violation_is_caught(
    copy_of_the_code: Path, module: str, line: str, contract: str
) -> None:
    with (copy_of_the_code / module).open("a") as source:
        source.write(f"\n{line}\n")
    linted = _lint(copy_of_the_code)
    assert linted.returncode == 1
    (broken,) = [told for told in linted.stdout.splitlines() if told.endswith("BROKEN")]
    assert broken.startswith(contract)


def test_no_folder_for_containers_is_a_python_package() -> None:
    # It would shadow the package `docker` of the package index.
    assert not (_ROOT / "docker" / "__init__.py").exists()
