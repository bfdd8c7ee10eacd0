"""The FastAPI application: `uvicorn --factory router.gateway.app:create_app`.

It holds no state that another gateway would need, so any number run side by side.
"""

import asyncio
import gc
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import cache, partial
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any, Final, Literal

import orjson
from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, RedirectResponse, StreamingResponse
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope, Send

from router.admin import create_topics
from router.client import Publisher, ResultReader, reachable
from router.gateway import docs
from router.gateway.bodies import Body, Unread
from router.gateway.errors import (
    BadRequest,
    NotAlive,
    NotReady,
    TooBusy,
    UnknownEncoding,
    status_of,
)
from router.gateway.metrics import CONTENT_TYPE, Metrics, Timed
from router.gateway.networks import metadata
from router.gateway.service import Gateway, Services
from router.keyrings import look_up
from router.seals import Keyring
from router.settings import Settings
from router.store.redis import RedisStore
from router.topics import DEAD_LETTER
from topologies.errors import SpikeRouterError

__all__ = ["create_app"]

_LOOKBACK: Final = 10_000  # frames per partition read at the start, for clients that come back
_JSON: Final = "application/json"
_NDJSON: Final = "application/x-ndjson"
_CLIENT_GONE: Final = 499  # nobody reads it; it shows in the metrics

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


def create_app(settings: Settings | None = None, services: Services | None = None) -> FastAPI:
    """The application. Without `services` it opens its own when it starts, from the settings."""
    chosen = settings or Settings.load()
    metrics = Metrics()
    app = _App(
        title="Spike Router",
        version=_version(),
        description=docs.DESCRIPTION,
        docs_url=None,  # FastAPI's own page loads scripts from elsewhere: see `docs_page`
        redoc_url=None,
        lifespan=_lifespan(chosen, services, metrics),
        exception_handlers={
            RequestValidationError: _on_invalid,
            HTTPException: _on_http,
            ClientDisconnect: _on_disconnect,
            **dict.fromkeys(docs.ERROR_ROOTS, _on_error),
        },
    )
    if services is not None:
        app.state.gateway = Gateway(chosen, services, metrics)
    for method, path, endpoint in _ROUTES:
        app.add_api_route(path, endpoint, methods=[method], **docs.OPERATIONS[endpoint.__name__])
        if method == "GET":  # load balancers ask for heads
            app.add_api_route(path, endpoint, methods=["HEAD"], include_in_schema=False)
    app.add_api_route("/docs", docs_page, include_in_schema=False)
    app.add_api_route("/", to_docs, include_in_schema=False)
    app.add_middleware(Unread)
    app.add_middleware(Timed, metrics=metrics)
    return app


class _App(FastAPI):
    """FastAPI, which would list a response that is never given: what is not legal is 400 here; and
    would tell the server a traceback where it does not start for a reason that has a sentence."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or one life of the application."""

        async def say(message: Message) -> None:
            why = getattr(self.state, "refused", "")
            if why and message["type"] == "lifespan.startup.failed":
                message = {**message, "message": why}
            await send(message)

        await super().__call__(scope, receive, say if scope["type"] == "lifespan" else send)

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document."""
        document = super().openapi()
        for operations in document["paths"].values():
            for operation in operations.values():
                operation["responses"].pop("422", None)
        return document


@cache
def _version() -> str:
    try:
        return version("spikerouter")
    except PackageNotFoundError:
        return "0"


def _lifespan(settings: Settings, given: Services | None, metrics: Metrics) -> Lifespan:
    """Open what the gateway stands on, and keep its loops going."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            if given is None:
                try:
                    services = await _open(settings, stack)
                except SpikeRouterError as error:
                    app.state.refused = str(error)
                    raise
                app.state.gateway = Gateway(settings, services, metrics)
            await asyncio.to_thread(_warm, app)
            await stack.enter_async_context(app.state.gateway.watching())
            yield

    return lifespan


def _warm(app: FastAPI) -> None:
    """Do what the first requests would wait for: it would hold the event loop."""
    import_module("anyio._backends._asyncio")
    app.openapi()
    docs.page(())
    gc.collect()
    gc.freeze()  # looking through all that was imported takes a tenth of a second, each time


async def _open(settings: Settings, stack: AsyncExitStack) -> Services:
    store = await stack.enter_async_context(RedisStore.of(settings))
    publisher = await stack.enter_async_context(Publisher.of(settings))
    # The reader follows the dead letters, which nobody may have written yet.
    await create_topics(settings, [DEAD_LETTER], settings.partitions)
    keys = Keyring()
    reader = ResultReader.of(
        settings, lookback=_LOOKBACK, keep_s=settings.results_keep_s, keys=keys,
        learn_keys=partial(look_up, store, keys, settings.lease_ttl_ms / 1000),
    )  # fmt: skip
    return Services(
        publisher=publisher,
        reader=await stack.enter_async_context(reader),
        store=store,
        kafka_answers=lambda: reachable(settings.kafka),
    )


def _gateway(request: Request) -> Gateway:
    gateway: Gateway = request.app.state.gateway
    return gateway


def _body(request: Request) -> Body:
    """The body, unread. Raises UnknownEncoding."""
    encoding = request.headers.get("content-encoding", "identity")
    if encoding != "identity":
        raise UnknownEncoding(f"The body is encoded as {encoding[:60]!r}; legal is none.")
    declared = request.headers.get("content-length", "")
    length = int(declared) if declared.isdecimal() and len(declared) < 20 else None
    return _gateway(request).body(request.stream(), length)


def _json(content: object, code: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(content), code, headers, _JSON)


# Endpoints


async def server_metadata(request: Request) -> Response:
    return _json({"name": "spikerouter", "version": _version(), "extensions": []})


async def live(request: Request) -> Response:
    _gateway(request).check_live()
    return _json({"live": True})


async def ready(request: Request) -> Response:
    warnings = await _gateway(request).check_ready()
    return _json({"ready": True, **({"warnings": warnings} if warnings else {})})


async def model_metadata(request: Request, model: str) -> Response:
    return _json(metadata(await _gateway(request).network(model)))


async def model_ready(request: Request, model: str) -> Response:
    await _gateway(request).check_ready(model)
    return _json({"name": model, "ready": True})


async def infer(request: Request, model: str) -> Response:
    if "inference-header-content-length" in request.headers:
        raise BadRequest("Tensors in binary are not supported; send `data` as JSON.")
    with _body(request) as body:
        return Response(await _gateway(request).infer(model, body), media_type=_JSON)


async def post_events(request: Request, network: str, stream: str) -> Response:
    with _body(request) as body:
        position = await _gateway(request).post_events(network, stream, body)
    return _json({"network": network, "stream": stream, **position._asdict()}, 202)


async def get_results(
    request: Request,
    network: str,
    stream: str,
    start: Annotated[
        int, Query(alias="from", ge=0, lt=2**63, description="Index of the first emission wanted.")
    ] = 0,
    wait: Annotated[
        float,
        Query(ge=0, allow_inf_nan=False, description="Seconds to wait for something new."),
    ] = 0.0,
    partition: Annotated[
        int | None, Query(ge=0, lt=2**31, description="Where the stream lies, if names repeat.")
    ] = None,
    format: Annotated[
        Literal["json", "ndjson"] | None,
        Query(description="One object, or one line per emission as they come; else by `Accept`."),
    ] = None,
) -> Response:
    gateway = _gateway(request)
    by_accept = "ndjson" if _NDJSON in request.headers.get("accept", "") else "json"
    if (format or by_accept) == "ndjson":
        lines = await gateway.lines(network, stream, start, wait, partition)
        return StreamingResponse(lines, media_type=_NDJSON)
    content = await gateway.results(network, stream, start, wait, partition)
    return Response(content, media_type=_JSON)


async def docs_page(request: Request) -> Response:
    """The description as a page that needs nothing from elsewhere, and can send requests."""
    return HTMLResponse(docs.page(await _gateway(request).networks()))


async def to_docs(request: Request) -> Response:
    return RedirectResponse("docs")


async def metrics(request: Request) -> Response:
    return Response(await _gateway(request).metrics.written(), media_type=CONTENT_TYPE)


_ROUTES: Final[tuple[tuple[str, str, Callable[..., Any]], ...]] = (
    ("GET", "/v2", server_metadata),
    ("GET", "/v2/health/live", live),
    ("GET", "/v2/health/ready", ready),
    ("GET", "/v2/models/{model}", model_metadata),
    ("GET", "/v2/models/{model}/ready", model_ready),
    ("POST", "/v2/models/{model}/infer", infer),
    ("POST", "/v1/networks/{network}/streams/{stream}/events", post_events),
    ("GET", "/v1/networks/{network}/streams/{stream}/results", get_results),
    ("GET", "/metrics", metrics),
)


# Errors: always {"error": sentence}


async def _on_error(request: Request, error: Exception) -> Response:
    content: dict[str, object] = {"error": str(error)}
    headers: dict[str, str] = {}
    if isinstance(error, TooBusy):
        headers["Retry-After"] = str(error.retry_after)
    if isinstance(error, NotReady):
        content = {**content, "ready": False, "reasons": list(error.reasons)}
    if isinstance(error, NotAlive):
        content = {**content, "live": False}
    return _json(content, status_of(error), headers)


async def _on_invalid(request: Request, error: Exception) -> Response:
    faults = error.errors() if isinstance(error, RequestValidationError) else []
    text = "; ".join(f"`{fault['loc'][-1]}`: {fault['msg']}" for fault in faults)
    return _json({"error": f"The request is not legal: {text}."}, 400)


async def _on_http(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    if error.status_code == 405:
        legal = f"legal is {Headers(error.headers).get('allow', 'another method')}"
    else:
        legal = f"there are {', '.join(f'{method} {path}' for method, path, _ in _ROUTES)}"
    sentence = f"{error.detail}: {request.method} {request.url.path[:200]}; {legal}."
    return _json({"error": sentence}, error.status_code, dict(error.headers or {}))


async def _on_disconnect(request: Request, error: Exception) -> Response:
    return Response(status_code=_CLIENT_GONE)
