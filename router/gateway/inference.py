"""Open Inference Protocol, JSON: a request as records of streams, and results as a response. Pure.

Each sample of the batch axis is one stream. A request with an `id` names its streams
`<id>@<digest>`, the digest being of everything that counts in the request: so an equal request,
through whichever gateway, is the same stream and has the same result, and a different one under
the same id can never be answered with it.
"""

import hashlib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from router.gateway.errors import BadRequest, MisfitResult
from router.gateway.networks import ServedNetwork, datatypes_of
from router.numbers import Cut, Span, Work, cut, flat_lists, shape_of
from router.payload import pack
from router.records import SPIKES, Data
from router.results import MARK, Result

__all__ = [
    "ID_BYTES",
    "MAX_REST",
    "REQUEST_NAME",
    "InferRequest",
    "cut_json",
    "parse_request",
    "respond",
]

ID_BYTES: Final = 150  # of an id in UTF-8; mark, digest and number of the sample come after it
MAX_REST: Final = 16 * 1024  # bytes of a body beside its list of numbers
_SHORT: Final = 4096  # bytes of a body that is read as a whole
MAX_STEPS: Final = 100_000  # of one request with events
REQUEST_NAME: Final = re.compile(MARK + r"[0-9a-f]{16}(\.\d+)?$")
_OUTPUTS: Final = ("output", "class")
_IGNORED: Final = frozenset({"binary_data", "binary_data_output", "classification"})
_NUMBERS: Final[Mapping[str, set[type]]] = {"FP32": {int, float}}
_U64: Final = 2**64 - 1
_SLICE: Final = 1024 * 1024  # bytes of values in one slice of work


@dataclass(frozen=True, slots=True)
class InferRequest:
    """A request that was found to be legal. `given_id` is what the client said, "" if nothing."""

    given_id: str
    digest: str
    samples: tuple[Data, ...]
    outputs: tuple[str, ...]
    timeout_s: float | None

    @property
    def n_bytes(self) -> int:
        """Bytes of all payloads."""
        return sum(len(sample.payload or b"") for sample in self.samples)


def cut_json(body: bytes) -> Work[tuple[Cut, dict[str, Any]]]:
    """The JSON object of a body, names in place of its lists of numbers; raises BadRequest.

    NaN and infinity are not JSON.
    """
    parts = (yield from cut(body, MAX_REST)) if len(body) > _SHORT else Cut(body, {})
    if len(parts.rest) > MAX_REST:
        raise BadRequest(
            f"The body has {len(parts.rest)} bytes beside a list of numbers as `data` or `events`; "
            f"the most are {MAX_REST}."
        )
    try:
        content = orjson.loads(parts.rest)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"The body is not JSON: {error}.") from error
    if not isinstance(content, dict):
        raise BadRequest("The body is not a JSON object; legal is {...}.")
    yield
    return parts, content


def parse_request(
    body: bytes, network: ServedNetwork, unnamed: str, most_samples: int
) -> Work[InferRequest]:
    """Read an inference request; `unnamed` is the unique name that it gets if it has no id.

    Raises BadRequest with what was legal.
    """
    parts, content = yield from cut_json(body)
    _only(content, {"id", "inputs", "outputs", "parameters"}, "The request")
    given_id = _id(content.get("id", ""))
    seed, timeout_s = _parameters(content.get("parameters", {}))
    outputs = _outputs(content.get("outputs"))
    datatype, values = yield from _tensor(content.get("inputs"), network, parts, most_samples)
    digest = yield from _digest(network.name, seed, datatype, values)
    stem = f"{given_id}{MARK}{digest}" if given_id else unnamed
    names = [stem] if len(values) == 1 else [f"{stem}.{index}" for index in range(len(values))]
    samples = yield from _samples(names, network, seed, values)
    return InferRequest(given_id, digest, samples, outputs, timeout_s)


def _only(content: Mapping[str, Any], legal: set[str], what: str) -> None:
    unknown = sorted(set(content) - legal)
    if unknown:
        raise BadRequest(
            f"{what} has a field {_shown(unknown[0])}; legal are {', '.join(sorted(legal))}."
        )


def _shown(value: object) -> str:
    text = (
        repr(value)
        if isinstance(value, str | int | float | bool | None)
        else (f"a JSON {'object' if isinstance(value, dict) else 'array'}")
    )
    return text if len(text) <= 60 else f"{text[:57]}..."


def _id(given: object) -> str:
    if not isinstance(given, str) or len(given.encode("utf-8", "replace")) > ID_BYTES:
        raise BadRequest(
            f"The id {_shown(given)} is not legal; legal is text of at most {ID_BYTES} bytes."
        )
    if not given.isprintable():
        raise BadRequest("The id has characters that cannot be printed.")
    return given


def _parameters(given: object) -> tuple[int, float | None]:
    """Seed and time-out in seconds."""
    if not isinstance(given, dict):
        raise BadRequest("`parameters` is not a JSON object.")
    _only(given, {"seed", "timeout_s", *_IGNORED}, "`parameters`")
    seed, timeout_s = given.get("seed", 0), given.get("timeout_s")
    if type(seed) is not int or not 0 <= seed <= _U64:
        raise BadRequest(f"`seed` is {_shown(seed)}; legal is a whole number, 0 to {_U64}.")
    if timeout_s is None:
        return seed, None
    if type(timeout_s) not in (int, float) or not timeout_s > 0:
        raise BadRequest(f"`timeout_s` is {_shown(timeout_s)}; legal is a number of seconds > 0.")
    return seed, float(timeout_s)


def _outputs(given: object) -> tuple[str, ...]:
    if given is None or given == []:
        return _OUTPUTS
    items = given if isinstance(given, list) else [given]
    names = [item.get("name") if isinstance(item, dict) else None for item in items]
    if not all(isinstance(name, str) and name in _OUTPUTS for name in names):
        raise BadRequest(
            '`outputs` is not legal; legal are some of [{"name": "output"}, {"name": "class"}].'
        )
    return tuple(name for name in _OUTPUTS if name in names)


def _tensor(
    inputs: object, network: ServedNetwork, parts: Cut, most_samples: int
) -> Work[tuple[str, NDArray[Any]]]:
    """The datatype and the values (B, *shape), or (B, T, *shape) for events, of the one input."""
    name = network.input.name
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise BadRequest(f"`inputs` is not legal; legal is a list of one tensor, {name!r}.")
    tensor = inputs[0]
    _only(tensor, {"name", "shape", "datatype", "data", "parameters"}, "The input")
    if tensor.get("name") != name:
        raise BadRequest(f"The input is named {_shown(tensor.get('name'))}; legal is {name!r}.")
    legal = datatypes_of(network)
    datatype = tensor.get("datatype")
    if not isinstance(datatype, str) or datatype not in legal:
        raise BadRequest(
            f"The datatype is {_shown(datatype)}; legal for input {name!r} are {', '.join(legal)}."
        )
    shape = _shape(tensor.get("shape"), network)
    sizes, lists = yield from _listed(tensor.get("data"), parts)
    if sizes == (0,) or sizes is None:
        raise _not_numbers(datatype)
    n = math.prod(sizes)
    if n != math.prod(shape):
        raise BadRequest(f"`data` has {n} values; shape {list(shape)} has {math.prod(shape)}.")
    if shape[0] > most_samples:
        raise BadRequest(
            f"The batch has {shape[0]} samples; the most are {most_samples}: send several requests."
        )
    flat = yield from _numbers(lists, n, datatype, legal[datatype], network)
    return datatype, flat.reshape(shape)


def _listed(
    data: object, parts: Cut
) -> Work[tuple[tuple[int, ...] | None, Iterable[list[Any] | None]]]:
    """The sizes of nested lists, None unless nested evenly, and their values in parts."""
    if isinstance(data, list) and list not in set(map(type, data)):
        return (len(data),), (data,)
    span = parts.within(data) or (Span.of(data) if isinstance(data, list) else None)
    if span is None or span.stop - span.start == 2:
        return None, ()
    return (yield from shape_of(span)), flat_lists(span)


def _shape(given: object, network: ServedNetwork) -> tuple[int, ...]:
    spec = network.input
    sizes = given if isinstance(given, list) else []
    whole = bool(sizes) and all(type(size) is int and 0 < size < 2**31 for size in sizes)
    n_axes = 2 if network.takes_events else 1
    if not whole or tuple(sizes[n_axes:]) != spec.shape:
        legal = ["batch", *(["steps"] if network.takes_events else []), *map(str, spec.shape)]
        raise BadRequest(
            f"The shape is {_sizes(given)}; legal for input {spec.name!r} is [{', '.join(legal)}], "
            "each at least 1."
        )
    if network.takes_events:
        n_steps = spec.n_steps
        if (n_steps is not None and sizes[1] != n_steps) or sizes[1] > MAX_STEPS:
            legal_steps = f"at most {MAX_STEPS}" if n_steps is None else str(n_steps)
            raise BadRequest(f"The shape has {sizes[1]} steps; legal is {legal_steps}.")
    return tuple(sizes)


def _sizes(given: object) -> str:
    if not isinstance(given, list):
        return _shown(given)
    return f"[{', '.join(map(_shown, given[:8]))}{', ...' if len(given) > 8 else ''}]"


def _not_numbers(datatype: str) -> BadRequest:
    return BadRequest(
        f"`data` is not a list of values of datatype {datatype}, flat or nested evenly."
    )


def _numbers(
    lists: Iterable[list[Any] | None],
    n: int,
    datatype: str,
    dtype: str,
    network: ServedNetwork,
) -> Work[NDArray[Any]]:
    """The values, flat, of the dtype; nested lists count as flat, as the protocol has it."""
    flat = np.empty(n, np.uint8 if dtype == "bool" else np.dtype(dtype))
    done = 0
    for items in lists:
        if not items:
            raise _not_numbers(datatype)
        part = _values(items, datatype, dtype)
        _check_range(part, done, network)
        flat[done : done + len(part)] = part
        done += len(part)
        yield
    if done != n:
        raise _not_numbers(datatype)
    return flat


def _values(items: list[Any], datatype: str, dtype: str) -> NDArray[Any]:
    """Some values. NumPy takes true for 1; JSON's booleans and numbers are different things."""
    types = set(map(type, items))
    if not types <= ({bool} if dtype == "bool" else _NUMBERS.get(datatype, {int})):
        raise _not_numbers(datatype)
    if dtype == "bool":
        return np.array(items, np.uint8)
    if dtype == "float32":
        try:
            with np.errstate(over="ignore"):
                values = np.array(items, np.float64).astype(np.float32)
        except OverflowError:
            values = np.array([np.inf], np.float32)
        if not np.isfinite(values).all():
            raise BadRequest("`data` has a value beyond the range of FP32.")
        return values
    limits = np.iinfo(dtype)
    if min(items) < limits.min or max(items) > limits.max:
        raise BadRequest(f"`data` has a value beyond the range of {datatype}.")
    return np.array(items, np.dtype(dtype))


def _check_range(part: NDArray[Any], first: int, network: ServedNetwork) -> None:
    """Refuse values of `data` beyond the declared range; those given begin at index `first`."""
    spec = network.input
    bad = (part < spec.low) | (part > spec.high)
    if bad.any():
        at = int(np.argmax(bad))
        raise BadRequest(
            f"Value {part[at]} at index {first + at} of `data` is outside the declared range, "
            f"{spec.low:g} to {spec.high:g}."
        )


def _digest(network: str, seed: int, datatype: str, values: NDArray[Any]) -> Work[str]:
    whole = hashlib.blake2b(repr((network, seed, datatype, values.shape)).encode(), digest_size=8)
    content = values.reshape(-1).view(np.uint8).data
    for start in range(0, len(content), _SLICE):
        whole.update(content[start : start + _SLICE])
        yield
    return whole.hexdigest()


def _samples(
    names: Sequence[str], network: ServedNetwork, seed: int, values: NDArray[Any]
) -> Work[tuple[Data, ...]]:
    """One whole request per sample. Every sample has the seed itself, wherever in a batch."""
    networks, spec = (network.name,), network.input
    samples: list[Data] = []
    at_once = max(1, _SLICE * len(names) // values.nbytes)
    for first in range(0, len(names), min(64, at_once)):
        some = values[first : first + min(64, at_once)]
        if network.takes_events:
            cells = some.reshape(*some.shape[:2], -1)
            packed = pack(cells, int(spec.low), int(spec.high))
            samples += [
                Data(name, networks, seed, True, payload, dtype=SPIKES, steps=values.shape[1])
                for name, payload in zip(names[first:], packed, strict=False)
            ]
        else:
            wire = some.astype(some.dtype.newbyteorder("<"), copy=False)
            samples += [
                Data(name, networks, seed, True, each.tobytes(), values.dtype.name, spec.shape)
                for name, each in zip(names[first:], wire, strict=False)
            ]
        yield
    return tuple(samples)


def respond(request: InferRequest, network: ServedNetwork, results: Sequence[Result]) -> bytes:
    """The JSON response; the class is the lowest index of the greatest value.

    Raises MisfitResult when the results are not what the network declares.
    """
    values = _stacked(network, results)
    lead = values.shape[:2] if network.outputs.every is not None else values.shape[:1]
    output = values.reshape(*lead, *network.outputs.shape)
    tensors = {
        "output": (output, "FP32" if values.dtype.kind == "f" else "INT32"),
        "class": (values.argmax(axis=2).astype(np.int32).reshape(lead), "INT32"),
    }
    content = {
        "model_name": network.name,
        "model_version": network.version,
        **({"id": request.given_id} if request.given_id else {}),
        "outputs": [
            {
                "name": name,
                "shape": list(tensors[name][0].shape),
                "datatype": tensors[name][1],
                "data": np.ascontiguousarray(tensors[name][0].reshape(-1)),
            }
            for name in request.outputs
        ],
    }
    return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)


def _stacked(network: ServedNetwork, results: Sequence[Result]) -> NDArray[Any]:
    """All values, (B, K, n); K is 1 unless the readout emits every so many steps."""
    found = [result.values for result in results]
    shapes = {values.shape for values in found}
    k, n = found[0].shape
    legal = k >= 1 if network.outputs.every is not None else k == 1
    if len(shapes) > 1 or not legal or n != math.prod(network.outputs.shape):
        raise MisfitResult(
            f"A result of {sorted(shapes)} emissions and values does not fit network "
            f"{network.name!r}, which has {math.prod(network.outputs.shape)} values: was another "
            "version of it deployed under this name?"
        )
    return np.stack(found)
