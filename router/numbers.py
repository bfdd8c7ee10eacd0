"""Lists of numbers in JSON, read in bounded slices straight into arrays. Pure.

A list of JSON as Python objects takes up to twenty times its text, and building it stops whatever
shares the thread: 8 MB of `[[0,1],...]` for seconds. So such a list is cut out of its text, the
rest of the text is read as JSON always is, and the list in two passes over slices of a few
kilobytes: its nesting, and its values. Every `Work` gives way after each slice; `finish` is for
those who need not give way.

The nesting of a list that is nested evenly follows from its first element: its brackets and commas
must be what `_skeleton` makes of the shape.
"""

import hashlib
import json
import re
from collections.abc import Generator, Iterator
from typing import Any, Final, NamedTuple, TypeVar

import orjson

__all__ = ["MAX_DEPTH", "Cut", "Span", "Work", "cut", "finish", "flat_lists", "rows_of", "shape_of"]

T = TypeVar("T")
Work = Generator[None, None, T]
"""A computation that gives way after each slice of it, and returns a T."""

MAX_DEPTH: Final = 32  # of nested lists
_SLICE: Final = 16 * 1024  # bytes of text: a millisecond
_SEARCHED: Final = 256 * 1024  # bytes searched for a name in one slice
_KEY: Final = re.compile(rb'(?<!\\)"(data|events)"[ \t\r\n]{0,64}:[ \t\r\n]{0,64}(?=\[)')
_KEY_BYTES: Final = 160  # the longest match, and some
_RUN: Final = re.compile(rb"[\[\]0-9,.+\-eE \t\r\ntrufalsn]*")  # numbers, true, false and null
_MOST_LISTS: Final = 8  # looked at in one text: nothing legal has more than one
_SPACES: Final = b" \t\r\n"
_TWO_VALUES: Final = re.compile(rb"1 +1")
_HUGE: Final = re.compile(rb"[0-9]{19}")  # orjson makes a float of an integer beyond 64 bits
_CLASSES: Final = bytes(
    byte if byte in b"[]," else 32 if byte in _SPACES else 49 for byte in range(256)
)
"""What a byte of a list is: a bracket or a comma itself, a space, or `1`, a part of a value."""


class Span(NamedTuple):
    """A list in a text, `text[start:stop]`, with so many commas in it."""

    text: bytes
    start: int
    stop: int
    n_commas: int

    @classmethod
    def of(cls, values: object) -> "Span | None":
        """A list that was read already; None for one with other things than numbers in it."""
        text = orjson.dumps(values)
        if text[:1] != b"[" or not _RUN.fullmatch(text):
            return None
        return cls(text, 0, len(text), text.count(b","))

    @property
    def shown(self) -> str:
        """The beginning of its text."""
        head = self.text[self.start : min(self.stop, self.start + 60)].decode("ascii")
        return head if self.stop - self.start <= 60 else f"{head}..."


class Cut(NamedTuple):
    """A text without its lists of numbers: `rest` has a name for each, which `spans` explains."""

    rest: bytes
    spans: dict[str, Span]

    def within(self, value: object) -> Span | None:
        """The list that stands at this place of `rest`, if one was cut out there."""
        return self.spans.get(value) if isinstance(value, str) else None


def finish(work: Work[T]) -> T:
    """What the work comes to, without giving way."""
    while True:
        try:
            next(work)
        except StopIteration as done:
            result: T = done.value
            return result


def cut(text: bytes, most_rest: int | None = None) -> Work[Cut]:
    """Cut out the lists of numbers named `data` and `events`, wherever they stand.

    Nothing is cut out of a text that has more than `most_rest` bytes beside them, or whose first
    names stand before other lists.
    """
    found: list[Span] = []
    at, n_tried = 0, 0
    while at < len(text) and n_tried < _MOST_LISTS:
        key = _KEY.search(text, at, at + _SEARCHED)
        if key is None:
            at += _SEARCHED - _KEY_BYTES
        else:
            span = yield from _span(text, key.end())
            if span is not None:
                found.append(span)
            at = key.end() if span is None else span.stop
            n_tried += 1
        yield
    n_rest = len(text) - sum(span.stop - span.start for span in found)
    if not found or (most_rest is not None and n_rest > most_rest):
        return Cut(text, {})
    return _without(text, found)


def _span(text: bytes, start: int) -> Work[Span | None]:
    """The list of numbers that begins here; None for a list with anything else in it."""
    stop, n_commas, depth = start, 0, 0
    while True:
        run = _RUN.match(text, stop, stop + _SLICE)
        part = run[0] if run is not None else b""
        stop += len(part)
        depth += part.count(b"[") - part.count(b"]")
        n_commas += part.count(b",")
        if len(part) < _SLICE:
            break
        yield
    last = text.rfind(b"]", start, stop) + 1
    if depth or not last:
        return None
    return Span(text, start, last, n_commas - text.count(b",", last, stop))


def _without(text: bytes, spans: list[Span]) -> Cut:
    """A name that nobody could have put into the text stands for each list."""
    edges = [0, *(edge for span in spans for edge in (span.start, span.stop)), len(text)]
    pieces = [text[a:b] for a, b in zip(edges[::2], edges[1::2], strict=True)]
    digest = hashlib.blake2b(b"".join(pieces), digest_size=16).hexdigest()
    names = {f"{digest}:{index}": span for index, span in enumerate(spans)}
    marks = [f'"{name}"'.encode() for name in names]
    rest = b"".join(part for pair in zip(pieces, [*marks, b""], strict=True) for part in pair)
    return Cut(rest, names)


def _slices(span: Span) -> Iterator[bytes | None]:
    """The list in parts that end with a comma; None where no value can be so long."""
    start = span.start
    while start < span.stop:
        stop = span.stop
        if stop - start > _SLICE:
            stop = span.text.rfind(b",", start, start + _SLICE) + 1
        if not stop:
            yield None
            return
        yield span.text[start:stop]
        start = stop


def _outline(span: Span) -> Work[bytes | None]:
    """The brackets and commas alone; None where values and brackets stand as in no list."""
    parts: list[bytes] = []
    for part in _slices(span):
        if part is None:
            return None
        classes = part.translate(_CLASSES)
        if b" " in classes:
            if _TWO_VALUES.search(classes):
                return None
            classes = classes.translate(None, b" ")
        if b"1[" in classes or b"]1" in classes:
            return None
        parts.append(classes.translate(None, b"1"))
        yield
    return b"".join(parts)


def shape_of(span: Span) -> Work[tuple[int, ...] | None]:
    """The sizes of a list of values nested evenly, as NumPy's shape; None for any other.

    Empty lists have the shape of lists with one value: `flat_lists` finds them out.
    """
    outline = yield from _outline(span)
    if outline is None:
        return None
    depth = len(outline) - len(outline.lstrip(b"["))
    if not 1 <= depth <= MAX_DEPTH:
        return None
    sizes: list[int] = []
    length = 0  # of a list of the level below, in brackets and commas
    for level in range(1, depth + 1):
        end = outline.find(b"]" * level)
        n, rest = divmod(end + level - (depth - level) - 1, length + 1)
        if end < 0 or rest or n < 1:
            return None
        sizes.append(n)
        length = n * (length + 1) + 1
    if length != len(outline):
        return None
    yield
    return tuple(reversed(sizes)) if outline == _skeleton(sizes) else None


def _skeleton(sizes: list[int]) -> bytes:
    """The brackets and commas of lists of these sizes, the innermost first."""
    block = b""
    for n in sizes:
        block = b"[" + (block + b",") * (n - 1) + block + b"]"
    return block


def rows_of(span: Span) -> Work[bytes | None]:
    """How many values stand in each list of a list of lists of two or three values, a byte each.

    None for anything else; no bytes for an empty list.
    """
    outline = yield from _outline(span)
    if outline is None or outline[:1] != b"[" or outline[-1:] != b"]":
        return None
    if outline == b"[]":
        return b"" if not span.text[span.start + 1 : span.stop - 1].strip(_SPACES) else None
    inner = outline[1:-1].replace(b"[,,]", b"\3").replace(b"[,]", b"\2")
    yield
    rows, commas = inner[::2], inner[1::2]
    if len(rows) != len(commas) + 1 or rows.strip(b"\2\3") or commas.strip(b","):
        return None
    return rows


def flat_lists(span: Span) -> Iterator[list[Any] | None]:
    """The values of a list, however nested, in parts; None where they are not JSON."""
    for part in _slices(span):
        if part is None:
            yield None
            return
        flat = part.translate(None, b"[]")
        if part[-1:] == b",":
            flat = flat[:-1]
        yield _values(b"[%b]" % flat)


def _values(flat: bytes) -> list[Any] | None:
    try:
        values: list[Any] = (json if _HUGE.search(flat) else orjson).loads(flat)
    except (ValueError, RecursionError):
        return None
    return values
