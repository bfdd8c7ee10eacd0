"""Print the fingerprints of all test operators on one backend as JSON: run with another processor.

    python print_fingerprints.py BACKEND

The output also says what the libraries found, so that a test sees that a setting had an effect.
"""

import json
import sys
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from topologies.compiled import Group
from workers.conformance import fingerprint
from workers.kernel import load_kernel


def main() -> None:
    """Load the operators of conftest.py, which is no importable module."""
    backend = sys.argv[1]
    spec = spec_from_file_location("operators", Path(__file__).parent / "conftest.py")
    if spec is None or spec.loader is None:
        raise SystemExit("conftest.py is not beside this script")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    found = {
        name: fingerprint(load_kernel(operator, Group(0, 0, operator.output.n), backend), 17)
        for name, operator in module.make_operators().items()
    }
    print(json.dumps({"fingerprints": found, **_processor(backend)}))


def _processor(backend: str) -> dict[str, Any]:
    features_of = import_module("numpy._core._multiarray_umath").__cpu_features__
    features = sorted(name for name, found in features_of.items() if found)
    pools = import_module("threadpoolctl").threadpool_info()
    blas = [pool["architecture"] for pool in pools if "architecture" in pool]
    if backend == "numba":
        return {"numba": import_module("numba.core.config").CPU_NAME}
    if backend != "torch":
        return {"numpy": features, "blas": blas}
    import torch

    capability = torch.backends.cpu.get_cpu_capability()
    return {"numpy": features, "blas": blas, "torch": capability}


if __name__ == "__main__":
    main()
