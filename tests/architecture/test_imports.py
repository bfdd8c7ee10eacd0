"""The import rules of pyproject.toml hold, and bite."""

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Final

import pytest

_ROOT: Final = Path(__file__).parents[2]
_PACKAGES: Final = ("loadtest", "workers", "router", "topologies")

# A pure module that guards a library's global tables and keeps it from changing the process.
_EXCEPTIONS: Final = {
    "topologies.importers.nir_file -> subprocess",
    "topologies.stages.brian2_run -> logging",
    "topologies.stages.brian2_run -> threading",
}


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


def test_both_contracts_name_the_same_modules_as_shell() -> None:
    lines = set(_contract("pure")["ignore_imports"]) - _EXCEPTIONS
    assert all(line.endswith(" -> *") for line in lines)
    ignored = {line.split(" ->")[0].removesuffix(".**") for line in lines}
    protected = set(_contract("shell")["protected_modules"])
    assert protected == ignored
    assert set(_contract("shell")["allowed_importers"]) <= ignored | {"loadtest"}


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("topologies/errors.py", "import random", "Pure modules"),
        ("router/wire.py", "import time", "Pure modules"),
        ("router/store/calls.py", "from redis.asyncio import Redis", "Pure modules"),
        ("workers/task.py", "from asyncio import Queue", "Pure modules"),
        ("workers/task.py", "import router.supervisor", "Pure modules"),
        ("router/wire.py", "from router.store.redis import RedisStore", "Pure modules"),
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
    (broken,) = [told for told in linted.stdout.splitlines() if " BROKEN" in told]
    assert broken.startswith(contract)


def test_no_folder_for_containers_is_a_python_package() -> None:
    # It would shadow the package `docker` of the package index.
    assert not (_ROOT / "docker" / "__init__.py").exists()
