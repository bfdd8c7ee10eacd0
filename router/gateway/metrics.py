"""What `/metrics` tells, in the text format of Prometheus."""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from router.loops import Gate

__all__ = ["CONTENT_TYPE", "Metrics", "Timed"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_BUCKETS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_LAGS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
_AT_ONCE = 4  # requests that begin in one turn of the event loop: each takes a millisecond or two
_METHODS = frozenset({"GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH"})


class _Counts(Collector):
    """Counters that something else keeps, read when they are asked for."""

    def __init__(self, prefix: str, what: str, read: Callable[[], Mapping[str, int]]) -> None:
        self._prefix, self._what, self._read = prefix, what, read

    def collect(self) -> Iterator[Metric]:
        for name, value in self._read().items():
            yield CounterMetricFamily(f"{self._prefix}_{name}", self._what, value=value)


class Metrics:
    """The gateway's own metrics, in a registry of its own."""

    def __init__(self) -> None:
        # They tell when each series began, in as many lines again.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self._one = asyncio.Lock()
        self.requests = Counter(
            "spikerouter_gateway_requests",
            "Requests answered.",
            ("method", "route", "code"),
            registry=self.registry,
        )
        self.seconds = Histogram(
            "spikerouter_gateway_request_seconds",
            "Time from the request to the end of its response, in seconds.",
            ("route",),
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self.in_flight = Gauge(
            "spikerouter_gateway_samples_in_flight",
            "Samples that wait for their result.",
            registry=self.registry,
        )
        self.samples = Counter(
            "spikerouter_gateway_samples", "Samples answered.", ("network",), registry=self.registry
        )

        self.loop_lag = Histogram(
            "spikerouter_gateway_loop_lag_seconds",
            "How late the event loop woke who slept, in seconds.",
            buckets=_LAGS,
            registry=self.registry,
        )
        self.loop_held = Histogram(
            "spikerouter_gateway_loop_held_seconds",
            "The part of it in which the loop's own thread computed, in seconds.",
            buckets=_LAGS,
            registry=self.registry,
        )
        self.loop_longest = Gauge(
            "spikerouter_gateway_loop_held_longest_seconds",
            "The longest of them since the process began, in seconds.",
            registry=self.registry,
        )

    def watch(self, prefix: str, what: str, read: Callable[[], Mapping[str, int]]) -> None:
        """Show the counters that `read` gives, as `<prefix>_<name>_total`."""
        self.registry.register(_Counts(prefix, what, read))

    def text(self) -> bytes:
        """All metrics."""
        return generate_latest(self.registry)

    async def written(self) -> bytes:
        """All metrics, written on a thread: they take longer than an event loop should be held."""
        async with self._one:
            return await asyncio.to_thread(self.text)


class Timed:
    """ASGI middleware: counts and times requests by route, not by path; a few begin at once."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._gate = Gate(_AT_ONCE)
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        await self._gate.enter()
        code = 500

        async def sent(message: Message) -> None:
            nonlocal code
            if message["type"] == "http.response.start":
                code = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, sent)
        finally:
            route = _route(scope)
            method = scope["method"] if scope["method"] in _METHODS else "other"
            self._metrics.requests.labels(method, route, str(code)).inc()
            self._metrics.seconds.labels(route).observe(time.perf_counter() - began)


def _route(scope: Scope) -> str:
    """The route's pattern: a path itself could be anything, and so would the label."""
    route: Any = scope.get("route")
    return getattr(route, "path", "none")
