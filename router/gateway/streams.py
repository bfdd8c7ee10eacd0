"""Streams of events over HTTP: a body as an input record, emissions as JSON. Pure."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
import orjson

from router.client import RecordTooLarge
from router.gateway.errors import BadRequest
from router.gateway.inference import REQUEST_NAME, cut_json
from router.gateway.networks import ServedNetwork
from router.numbers import Cut, Work
from router.records import Data, parse_cut
from router.results import Emission, Stream
from router.wire import NAME_BYTES

__all__ = [
    "a_page_of",
    "check_stream_name",
    "emission_json",
    "json_line",
    "page",
    "parse_events",
]

_MOST_EMISSIONS: Final = 2_000  # in one response
_MOST_VALUES: Final = 100_000  # in them together
_LEGAL: Final = ("data", "end", "events", "seed", "seq", "until")


def check_stream_name(name: str) -> str:
    """A stream's name, unchanged; raises BadRequest unless a client may give it."""
    n_bytes = len(name.encode("utf-8", "replace"))
    if not 1 <= n_bytes <= NAME_BYTES or not name.isprintable():
        raise BadRequest(
            f"A stream's name has {n_bytes} bytes; legal are 1 to {NAME_BYTES} that can be printed."
        )
    if REQUEST_NAME.search(name):
        raise BadRequest(f"The name {name!r} looks like that of an inference request.")
    return name


def parse_events(body: bytes, network: ServedNetwork, name: str, most_bytes: int) -> Work[Data]:
    """The record of one post to a stream. Raises BadRequest, or RecordError, with what was legal,
    and RecordTooLarge for more numbers than fit a record of `most_bytes`.

    The body is what a JSON record may say, without `networks`: `events` or `data`, `until`, `end`,
    `seq`, `seed`.
    """
    parts, content = yield from cut_json(body)
    unknown = sorted(set(content) - set(_LEGAL))
    if unknown:
        raise BadRequest(
            f"The body has a field {unknown[0][:60]!r}; legal are {', '.join(_LEGAL)}."
        )
    _check_size(parts, content, most_bytes)
    record = yield from parse_cut(check_stream_name(name).encode(), parts, "")
    yield
    if not isinstance(record, Data):
        raise BadRequest("The body is not what a stream says.")
    if record.events is not None:
        _check_events(record.events, network)
    if record.payload is not None:
        record = _checked_values(record, network)
    yield  # what follows takes its time too, for as many events as a record holds
    return replace(record, networks=(network.name,))


def _check_size(parts: Cut, content: Mapping[str, Any], most_bytes: int) -> None:
    """Numbers are 4 bytes of a record each; an event of at most three of them is 16."""
    for field, n_bytes in (("data", 4.0), ("events", 16 / 3)):
        span = parts.within(content.get(field))
        if span is not None and (span.n_commas + 1) * n_bytes > most_bytes:
            raise RecordTooLarge(
                f"`{field}` has {span.n_commas + 1} numbers, which no record of {most_bytes} bytes "
                "holds: send it in several posts."
            )


def _check_events(events: Sequence[tuple[int, int, int]], network: ServedNetwork) -> None:
    spec = network.input
    if not network.takes_events:
        raise BadRequest(
            f"Input {spec.name!r} takes samples of shape {list(spec.shape)} as `data`, not events."
        )
    n = math.prod(spec.shape)
    for step, address, value in events:
        if address >= n or not 1 <= value <= spec.high:
            raise BadRequest(
                f"The event {[step, address, value]} is not legal: addresses are 0 to {n - 1}, "
                f"values 1 to {spec.high:g}."
            )


def _checked_values(record: Data, network: ServedNetwork) -> Data:
    """The record with its values in the input's shape; a flat list will do."""
    spec = network.input
    if network.takes_events:
        raise BadRequest(
            f"Input {spec.name!r} takes `events`, a list of [step, address], not data."
        )
    if record.shape not in (spec.shape, (math.prod(spec.shape),)):
        raise BadRequest(
            f"`data` has shape {list(record.shape or ())}; legal is {list(spec.shape)}, or flat."
        )
    values = record.values()
    if (values < spec.low).any() or (values > spec.high).any():
        raise BadRequest(
            f"`data` has a value outside the declared range, {spec.low:g} to {spec.high:g}."
        )
    return replace(record, shape=spec.shape)


def a_page_of(emissions: Iterable[Emission]) -> list[Emission]:
    """As many as one response holds, at least one; `next` tells the client to go on."""
    page: list[Emission] = []
    n_values = 0
    for emission in emissions:
        n_values += emission.values.size
        if page and (n_values > _MOST_VALUES or len(page) == _MOST_EMISSIONS):
            break
        page.append(emission)
    return page


def emission_json(emission: Emission) -> dict[str, Any]:
    """One emission; the class is the lowest index of the greatest value."""
    return {
        "index": emission.index,
        "start": emission.start,
        "stop": emission.stop,
        "values": np.ascontiguousarray(emission.values),
        "class": int(emission.values.argmax()),
    }


def page(
    network: str, name: str, start: int, stream: Stream | None, emissions: Sequence[Emission]
) -> bytes:
    """Emissions from index `start` on as one JSON object; `next` is where to go on."""
    last = emissions[-1].index + 1 if emissions else start
    content = {
        "network": network,
        "stream": name,
        "partition": None if stream is None else stream.partition,
        "results": [emission_json(emission) for emission in emissions],
        "next": last,
        "end": stream is not None and stream.final and last >= stream.index,
        "error": (stream.error or None) if stream is not None else None,
    }
    return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)


def json_line(content: dict[str, Any]) -> bytes:
    """One line of JSON."""
    return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE)
