"""The same bits as if on other processors (docs/numerics.md, rule 17).

Each case is a process of its own, told to use the instructions of an older processor.
"""

import json
import os
import platform
import subprocess
import sys
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from topologies.compiled import Group, Operator
from workers.conformance import fingerprint
from workers.kernel import ReferenceKernel

SCRIPT = Path(__file__).parent / "print_fingerprints.py"
ROOT = Path(__file__).parents[2]
SETTINGS = (
    "OPENBLAS_CORETYPE",
    "ATEN_CPU_CAPABILITY",
    "NPY_DISABLE_CPU_FEATURES",
    "NUMBA_CPU_NAME",
)
UMATH = import_module("numpy._core._multiarray_umath")
HAS_AVX2 = bool(UMATH.__cpu_features__.get("AVX2"))
FEATURES = [name for name in UMATH.__cpu_dispatch__ if UMATH.__cpu_features__[name]]
if platform.machine() in ("x86_64", "AMD64"):
    CORES = ["Prescott", "Nehalem", "Sandybridge", *(["Haswell", "Zen"] if HAS_AVX2 else [])]
    CAPABILITIES = ["default", *(["avx2"] if HAS_AVX2 else [])]
    CPUS = ["x86-64", *(["haswell"] if HAS_AVX2 else [])]
else:
    CORES, CAPABILITIES, CPUS = ["ARMV8"], ["default"], ["generic"]


@cache
def _run(backend: str, *settings: tuple[str, str]) -> dict[str, Any]:
    environment = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    environment |= {"PYTHONPATH": str(ROOT), **dict(settings)}
    command = [sys.executable, str(SCRIPT), backend]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def wanted(operators: dict[str, Operator]) -> dict[str, str]:
    """The reference's fingerprints, in this process."""
    kernels = {n: ReferenceKernel(o, Group(0, 0, o.output.n)) for n, o in operators.items()}
    return {name: fingerprint(kernel, 17) for name, kernel in kernels.items()}


@pytest.mark.parametrize("core", CORES)
def test_numpy_gives_the_same_bits_with_another_core_of_openblas(
    wanted: dict[str, str], core: str
) -> None:
    assert _run("numpy", ("OPENBLAS_CORETYPE", core))["fingerprints"] == wanted


def test_numpy_gives_the_same_bits_without_any_optional_instructions(
    wanted: dict[str, str],
) -> None:
    found = _run("numpy", ("NPY_DISABLE_CPU_FEATURES", " ".join(FEATURES)))
    assert found["fingerprints"] == wanted
    assert not set(found["numpy"]) & set(FEATURES)


def test_numpy_gives_the_same_bits_without_fused_multiplication(wanted: dict[str, str]) -> None:
    fused = [name for name in FEATURES if name.startswith(("FMA", "AVX2", "AVX512", "ASIMDFHM"))]
    found = _run("numpy", ("NPY_DISABLE_CPU_FEATURES", " ".join(fused)))
    assert found["fingerprints"] == wanted


@pytest.mark.parametrize("n_threads", ["1", "3"])
def test_numpy_gives_the_same_bits_with_any_number_of_threads(
    wanted: dict[str, str], n_threads: str
) -> None:
    assert _run("numpy", ("OPENBLAS_NUM_THREADS", n_threads))["fingerprints"] == wanted


@pytest.mark.parametrize("cpu", CPUS)
def test_numba_gives_the_same_bits_when_compiled_for_another_processor(
    wanted: dict[str, str], cpu: str, tmp_path: Path
) -> None:
    # Code that was compiled for this processor lies in the usual cache.
    settings = ("NUMBA_CPU_NAME", cpu), ("NUMBA_CACHE_DIR", str(tmp_path))
    found = _run("numba", *settings)
    assert found["fingerprints"] == wanted
    assert found["numba"] == cpu


@pytest.mark.torch
@pytest.mark.parametrize("capability", CAPABILITIES)
def test_torch_gives_the_same_bits_with_another_capability(
    wanted: dict[str, str], capability: str
) -> None:
    found = _run("torch", ("ATEN_CPU_CAPABILITY", capability))
    assert found["fingerprints"] == wanted
    assert found["torch"].lower() == capability


@pytest.mark.torch
@pytest.mark.parametrize("isa", ["SSE41", "AVX", "AVX2"])
def test_torch_gives_the_same_bits_with_another_instruction_set_of_onednn(
    wanted: dict[str, str], isa: str
) -> None:
    assert _run("torch", ("ONEDNN_MAX_CPU_ISA", isa))["fingerprints"] == wanted


@pytest.mark.torch
@pytest.mark.parametrize("n_threads", ["1", "3"])
def test_torch_gives_the_same_bits_with_any_number_of_threads(
    wanted: dict[str, str], n_threads: str
) -> None:
    assert _run("torch", ("OMP_NUM_THREADS", n_threads))["fingerprints"] == wanted


def test_setting_of_openblas_reaches_the_library() -> None:
    found = {tuple(_run("numpy", ("OPENBLAS_CORETYPE", core))["blas"]) for core in CORES}
    assert len(found) > 1 or len(CORES) == 1
