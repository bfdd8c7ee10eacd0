"""`make demo KAFKA=apache`: the demo on an Apache Kafka and a Redis that it starts."""

import json
import subprocess
import sys
from typing import Any

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.serial, pytest.mark.servers]

_DEMO = (sys.executable, "-m", "router.cli", "demo", "--kafka", "apache", "--redis", "server")


@pytest.mark.timeout(300)
def test_a_killed_worker_changes_no_bit_on_apache_kafka_and_redis() -> None:
    done = subprocess.run(
        [*_DEMO, "--json", "--windows", "150", "--seconds", "4"],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    assert report["outputs_sha256"] == report["undisturbed_sha256"]
    assert report["streams_lost"] == 0
    assert report["kill"]["windows_in_flight"] > 0
