"""What the OpenAPI document says of each operation, with examples that can be sent."""

import json
from collections.abc import Iterable
from importlib import resources
from typing import Any, Final

from topologies.errors import SpikeRouterError

__all__ = ["DESCRIPTION", "ERROR_ROOTS", "OPERATIONS", "page"]

DESCRIPTION: Final = """\
Inference on spiking neural networks.

Whole requests go to `/v2/models/{model}/infer`, in the Open Inference Protocol (KServe, Triton).
Streams without an end go to `/v1/networks/{network}/streams/{stream}/events`, and their results
come from `.../results`. Every error is `{"error": "<a sentence>"}`.
"""

ERROR_ROOTS: Final[tuple[type[Exception], ...]] = (SpikeRouterError,)

_INFER: Final[dict[str, Any]] = {
    "id": "image-17",
    "parameters": {"seed": 0, "timeout_s": 10.0},
    "inputs": [
        {"name": "pixels", "shape": [1, 1, 2, 2], "datatype": "FP32", "data": [0.0, 0.5, 1.0, 0.25]}
    ],
}
_INFERRED: Final[dict[str, Any]] = {
    "model_name": "digits",
    "model_version": "0f3a...",
    "id": "image-17",
    "outputs": [
        {"name": "output", "shape": [1, 3], "datatype": "INT32", "data": [0, 4, 1]},
        {"name": "class", "shape": [1], "datatype": "INT32", "data": [1]},
    ],
}
_EVENTS: Final[dict[str, Any]] = {
    "events": {
        "summary": "Spikes: [step, address] or [step, address, value]; nothing more before step 16",
        "value": {"events": [[0, 5], [3, 17], [3, 18, 1]], "until": 16, "seq": 0},
    },
    "sample": {"summary": "One sample", "value": {"data": [0.0, 0.5, 1.0, 0.25], "seq": 1}},
    "end": {"summary": "The stream ends", "value": {"end": True, "seq": 2}},
}
_PAGE: Final[dict[str, Any]] = {
    "network": "gestures",
    "stream": "camera-1",
    "partition": 3,
    "results": [{"index": 0, "start": 0, "stop": 16, "values": [0, 4, 1], "class": 1}],
    "next": 1,
    "end": False,
    "error": None,
}
_LINES: Final = (
    '{"index":0,"start":0,"stop":16,"values":[0,4,1],"class":1}\n'
    '{"next":1,"end":false,"error":null}\n'
)


def _errors(*codes: int) -> dict[int | str, dict[str, Any]]:
    return {
        code: {
            "description": _MEANINGS[code],
            "content": {"application/json": {"example": {"error": "A sentence."}}},
        }
        for code in codes
    }


def _answer(example: object, description: str) -> dict[int | str, dict[str, Any]]:
    return {
        200: {"description": description, "content": {"application/json": {"example": example}}}
    }


def _body(**content: object) -> dict[str, Any]:
    schema = {"schema": {"type": "object"}, **content}
    return {"requestBody": {"required": True, "content": {"application/json": schema}}}


_MEANINGS: Final = {
    400: "The request says nothing legal; the sentence tells what was.",
    404: "No network of this name is deployed.",
    408: "The body did not come in time.",
    409: "The id was used for another request lately, or the stream has ended.",
    410: "The result, or these emissions, were not read or are no longer kept.",
    413: "The body, or a record of it, is too large.",
    415: "The body is compressed.",
    429: "Too much is in flight; `Retry-After` tells in seconds when to try again.",
    500: "The stream was ended with an error.",
    503: "Kafka, the store or a task is away for now, or the stream's state was lost; the sentence"
    " tells which.",
    504: "There was no result before the deadline.",
}

# By the name of the endpoint's function.
OPERATIONS: Final[dict[str, dict[str, Any]]] = {
    "server_metadata": {
        "summary": "Name and version of the server",
        "tags": ["Open Inference Protocol"],
        "responses": _answer(
            {"name": "spikerouter", "version": "0.1.0", "extensions": []}, "Name and version."
        ),
    },
    "live": {
        "summary": "Whether this process answers",
        "tags": ["Health"],
        "responses": {**_answer({"live": True}, "It does."), **_errors(503)},
    },
    "ready": {
        "summary": "Whether requests will be served: Kafka, store, and an owner for every task",
        "tags": ["Health"],
        "responses": {**_answer({"ready": True}, "They will."), **_errors(503)},
    },
    "model_metadata": {
        "summary": "Inputs and outputs of a network",
        "tags": ["Open Inference Protocol"],
        "responses": {
            **_answer({"name": "digits", "versions": ["0f3a..."], "inputs": []}, "Metadata."),
            **_errors(400, 404, 503),
        },
    },
    "model_ready": {
        "summary": "Whether every task of a network has an owner",
        "tags": ["Health"],
        "responses": {
            **_answer({"name": "digits", "ready": True}, "It has."),
            **_errors(400, 404, 503),
        },
    },
    "infer": {
        "summary": "Run a network on a batch; each sample is one stream",
        "tags": ["Open Inference Protocol"],
        "responses": {
            **_answer(_INFERRED, "The results, in the order of the samples."),
            **_errors(400, 404, 408, 409, 410, 413, 415, 429, 500, 503, 504),
        },
        "openapi_extra": _body(example=_INFER),
    },
    "post_events": {
        "summary": "Append to a stream",
        "tags": ["Streams"],
        "status_code": 202,
        "responses": {
            202: {
                "description": "All replicas have it.",
                "content": {
                    "application/json": {
                        "example": {
                            "network": "gestures",
                            "stream": "camera-1",
                            "partition": 3,
                            "offset": 1204,
                        }
                    }
                },
            },
            **_errors(400, 404, 408, 409, 413, 415, 429, 503),
        },
        "openapi_extra": _body(examples=_EVENTS),
    },
    "get_results": {
        "summary": "What a stream has emitted, from an index on",
        "tags": ["Streams"],
        "responses": {
            200: {
                "description": "The emissions, and where to go on.",
                "content": {
                    "application/json": {"example": _PAGE},
                    "application/x-ndjson": {"example": _LINES},
                },
            },
            **_errors(400, 404, 410, 503),
        },
    },
    "metrics": {
        "summary": "Metrics in the text format of Prometheus",
        "tags": ["Health"],
        "responses": {200: {"description": "Metrics.", "content": {"text/plain": {}}}},
    },
}


def page(networks: Iterable[str]) -> str:
    """The page at `/docs`: it builds itself from the OpenAPI document and these names."""
    text = (resources.files("router.gateway") / "docs.html").read_text("utf-8")
    return text.replace("__NETWORKS__", json.dumps(sorted(networks)))
