"""The names of all metrics, as gateway and workers tell them."""

import ast
import json
from typing import Any, Final

from prometheus_client import CollectorRegistry, generate_latest

from router.client import Publisher, ResultReader, reachable
from router.gateway.metrics import Metrics
from router.gateway.service import Gateway, Services
from router.settings import Settings
from router.store.redis import RedisStore
from tests.deployment.deployment import ROOT
from workers.metrics import WorkerCollector

__all__ = ["gateway_metrics", "worker_counts", "worker_metrics"]

_SERIES: Final = {"histogram": ("_bucket", "_count", "_sum")}


def gateway_metrics() -> set[str]:
    """Names of the series of a gateway that has served nothing yet."""
    settings, metrics = Settings.load(), Metrics()
    services = Services(
        publisher=Publisher.of(settings),
        reader=ResultReader.of(settings),
        store=RedisStore.of(settings),
        kafka_answers=lambda: reachable(settings.kafka),
    )
    Gateway(settings, services, metrics)
    return _names(metrics.text())


def worker_counts() -> set[str]:
    """What the code of the workers counts: every `counts["..."]` that is added to."""
    of_bus = [ROOT / "router" / name for name in ("fetching.py", "sending.py")]
    return {
        name
        for path in (*(ROOT / "workers").rglob("*.py"), *of_bus)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.AugAssign) and (name := _counted(node.target))
    }


def worker_metrics() -> set[str]:
    """Names of the series of a worker that has counted everything once."""
    recovery = {"idle_ms": 1.0, "claimed": 1.0, "restored": 2.0, "caught_up": 3.0}
    report: dict[str, Any] = {
        "counts": json.dumps(dict.fromkeys(worker_counts(), 1)),
        "recoveries": json.dumps([recovery]),
    }
    registry = CollectorRegistry()
    registry.register(WorkerCollector(lambda: report))
    return _names(generate_latest(registry))


def _counted(target: ast.expr) -> str | None:
    """The key of `<anything>.counts[<key>]`."""
    if (
        isinstance(target, ast.Subscript)
        and isinstance(target.value, ast.Attribute)
        and target.value.attr == "counts"
        and isinstance(target.slice, ast.Constant)
    ):
        return str(target.slice.value)
    return None


def _names(text: bytes) -> set[str]:
    """The series that the lines `# TYPE <name> <kind>` announce."""
    found: set[str] = set()
    for line in text.decode().splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split()
            found |= {name + suffix for suffix in _SERIES.get(kind, ("",))}
    return found
