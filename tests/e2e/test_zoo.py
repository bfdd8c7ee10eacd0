"""`spikerouter zoo`, as a user runs it."""

import json
import subprocess
import sys

import pytest

_ZOO = (sys.executable, "-m", "router.cli", "zoo")

pytestmark = [pytest.mark.e2e, pytest.mark.serial]


def test_served_network_is_as_right_as_in_the_framework_it_was_trained_in() -> None:
    done = subprocess.run(
        [*_ZOO, "eval", "scnn_digits", "--json"],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)["rows"]
    assert row["n_samples"] == 360
    assert row["accuracy"] == pytest.approx(row["accuracy_framework"], abs=0.01)
