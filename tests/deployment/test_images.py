"""The install steps of the images, run in a clean virtual environment outside of any image.

The slow ones are marked `images` (`make test-images`); that of the gateway, which has no extra, is
run by `make check`, and what can be read from the files is tested always.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from router.kinds import EXTRAS
from tests.deployment.deployment import ROOT, Dockerfile, project

_PREFIX: Final = "/opt/spikerouter"
_PYTHON: Final = [
    Dockerfile(ROOT / "docker" / f"{name}.Dockerfile")
    for name in ("gateway", "worker", "worker-torch", "worker-brian2", "monitor")
]
_VENV: Final = f"{sys.executable} -m venv"
_IMPORTS: Final = {
    "gateway": "router.gateway.app",
    "worker": "workers.backends.numba",
    "worker-torch": "workers.backends.torch",
    "worker-brian2": "brian2",
    "monitor": "router.monitor",
}


def _name(file: Dockerfile) -> str:
    return file.path.name.removesuffix(".Dockerfile")


def _slow(file: Dockerfile) -> object:
    marks = [pytest.mark.servers if _name(file) == "gateway" else pytest.mark.images]
    return pytest.param(file, marks=[pytest.mark.serial, *marks], id=_name(file))


def _requirement(text: str) -> str:
    """The name of a requirement, as constraints.txt is compared by."""
    found = re.match(r"[A-Za-z0-9._-]+", text)
    assert found is not None
    return found[0].lower().replace("_", "-")


def _extras(file: Dockerfile) -> list[str]:
    """What an image installs beside the package's own dependencies."""
    found = [names for step in file.all("RUN") for names in re.findall(r"\.\[([\w,-]+)\]", step)]
    return [extra for names in found for extra in names.split(",")]


@pytest.mark.parametrize("file", _PYTHON, ids=_name)
def test_an_image_installs_extras_that_exist_at_pinned_versions(file: Dockerfile) -> None:
    steps = [step for step in file.all("RUN") if "pip install" in step]
    assert all("--constraint constraints.txt" in step for step in steps)
    extras = _extras(file)
    known = project()["optional-dependencies"]
    wanted = [r for extra in extras for r in known[extra]] + project()["dependencies"]
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {_requirement(line) for line in lines if "==" in line}
    assert {_requirement(r) for r in wanted} <= pinned


@pytest.mark.parametrize("file", _PYTHON, ids=_name)
def test_an_image_holds_the_oldest_python_that_is_supported(file: Dockerfile) -> None:
    version = project()["requires-python"].removeprefix(">=")
    assert all(image.startswith(f"python:{version}.") for image in file.all("FROM"))


def test_every_extra_that_steps_operators_is_in_the_image_of_a_worker() -> None:
    workers = [file for file in _PYTHON if _name(file).startswith("worker")]
    assert set(EXTRAS) <= {extra for file in workers for extra in _extras(file)}


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("file", [_slow(file) for file in _PYTHON])
def test_the_install_steps_give_a_program_that_runs(file: Dockerfile, tmp_path: Path) -> None:
    source, prefix = tmp_path / "src", tmp_path / "installed"
    source.mkdir()
    for name in file.sources():
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)
    for step in file.all("RUN"):
        if _PREFIX in step:
            _run(step.replace(_PREFIX, str(prefix)).replace("python -m venv", _VENV), source)
    _run(f"{prefix}/bin/spikerouter --help", tmp_path)
    module = _IMPORTS[_name(file)]
    _run(f"{prefix}/bin/python -c 'import {module} as m; print(m.__file__)'", tmp_path)
    _run(f"{prefix}/bin/python -m workers --help", tmp_path)
    _run(f"{prefix}/bin/spikerouter compile scnn_digits", tmp_path)


def _run(step: str, folder: Path) -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", step], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{step}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
