"""Hostile HTTP, drawn from a seed: what is sent over a connection, byte by byte. Pure.

Most of it is nearly legal: a good request with one thing wrong. `may` are the codes beyond 499 that
a case may be answered with; none may be answered with any other.
"""

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgpack

__all__ = ["KINDS", "HttpCase", "Target", "draw"]

_MIB: Final = 1024 * 1024
_HEAD: Final = b"Host: gateway\r\nConnection: close\r\n"


@dataclass(frozen=True)
class Target:
    """The network that is asked: its input's name and shape, and a sample that it takes."""

    network: str
    input: str
    shape: tuple[int, ...]
    sample: tuple[int, ...]
    max_body_bytes: int

    @property
    def infer(self) -> bytes:
        """Path of its inference."""
        return f"/v2/models/{self.network}/infer".encode()

    def stream(self, name: str, what: str = "events") -> bytes:
        """Path of a stream of its input."""
        return f"/v1/networks/{self.network}/streams/{name}/{what}".encode()


@dataclass(frozen=True)
class HttpCase:
    """Bytes to send, in `parts`; `waits` for an answer, unless the client leaves without one.

    `answered` False: the server may close the connection without a word.
    """

    kind: str
    parts: tuple[bytes, ...]
    may: frozenset[int] = frozenset()
    waits: bool = True
    answered: bool = True


Dice = random.Random
_ODD: Final[tuple[Any, ...]] = (
    None, True, False, 0, -1, 1.5, 2**31, 2**63, 2**64, -(2**63), 1e308, "", "x", "\u0000",
    "\ud7ff", "x" * 300, [], [[]], {}, {"a": 1}, [None], [1, "2"], [True], "NaN",
)  # fmt: skip
_ODD_TOKENS: Final = (
    b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-1e999", b"1e-999", b"01", b"1.", b".5", b"+1",
    b"0x10", b"9" * 400, b"1" + b"0" * 5000, b"-", b"null", b"true", b"'1'", b"\xff", b"\x00",
    b"18446744073709551616", b"1e", b"--1", b"", b'"1"', b"[1]", b"{}",
)  # fmt: skip


def draw(seed: int, number: int, target: Target, kinds: Sequence[str] = ()) -> HttpCase:
    """Case `number` of a seed, of these kinds; none given: of all."""
    dice = random.Random(f"{seed}:{number}")
    chosen = kinds or KINDS
    (kind,) = dice.choices(chosen, [_CASES[kind][0] for kind in chosen])
    return _CASES[kind][1](dice, target)


def _post(path: bytes, body: bytes, head: bytes = b"") -> bytes:
    length = b"Content-Length: %d\r\n" % len(body)
    return b"POST %b HTTP/1.1\r\n%b%b%b\r\n%b" % (path, _HEAD, length, head, body)


def _good(target: Target) -> dict[str, Any]:
    tensor = {
        "name": target.input,
        "shape": [1, *target.shape],
        "datatype": "UINT8",
        "data": list(target.sample),
    }
    return {"inputs": [tensor]}


def _dumps(content: Any) -> bytes:
    return json.dumps(content).encode("utf-8", "surrogatepass")


def _path(dice: Dice, target: Target) -> bytes:
    return dice.choice([target.infer, target.stream(f"hostile-{dice.randrange(50)}")])


def _with_data(target: Target, data: bytes) -> bytes:
    """A request whose `data` is this text."""
    good = _good(target)
    good["inputs"][0]["data"] = "DATA"
    return _dumps(good).replace(b'"DATA"', data)


def _mutated(dice: Dice, target: Target) -> HttpCase:
    body = bytearray(_dumps(_good(target)))
    for _ in range(dice.randint(1, 4)):
        at = dice.randrange(max(1, len(body)))
        match dice.randrange(4):
            case 0:
                body[at : at + 1] = dice.randbytes(1)
            case 1:
                del body[at : at + dice.randint(1, 20)]
            case 2:
                body[at:at] = dice.choice(_ODD_TOKENS)
            case _:
                del body[max(1, at) :]
    return HttpCase("mutated", (_post(_path(dice, target), bytes(body)),))


def _deep(dice: Dice, target: Target) -> HttpCase:
    depth = dice.choice([9, 33, 100, 1025, 50_000])
    opened = dice.choice([b"[", b'{"a":', b'[{"data":'])
    closed = b"]" * depth if opened == b"[" and dice.random() < 0.5 else b""
    body = dice.choice([b"%b", b'{"inputs": %b}', b'{"events": %b}', b'{"data": %b}'])
    return HttpCase("deep", (_post(_path(dice, target), body % (opened * depth + closed)),))


def _tokens(dice: Dice, target: Target) -> HttpCase:
    values = [b"%d" % value for value in target.sample]
    for _ in range(dice.randint(1, 3)):
        values[dice.randrange(len(values))] = dice.choice(_ODD_TOKENS)
    spaces = dice.choice([b"", b" ", b"\n", b" " * 2000])
    data = b"[" + (b"," + spaces).join(values) + b"]"
    return HttpCase("tokens", (_post(target.infer, _with_data(target, data)),))


def _types(dice: Dice, target: Target) -> HttpCase:
    request = _good(target)
    tensor = request["inputs"][0]
    odd = dice.choice(_ODD)
    match dice.randrange(6):
        case 0:
            tensor[dice.choice(list(tensor))] = odd
        case 1:
            del tensor[dice.choice(list(tensor))]
        case 2:
            request[dice.choice(["inputs", "outputs", "parameters", "id", "x"])] = odd
        case 3:
            request["parameters"] = {dice.choice(["seed", "timeout_s", "priority"]): odd}
        case 4:
            request["inputs"] = dice.choice([[tensor, tensor], [odd], tensor, [tensor] * 500])
        case _:
            tensor["datatype"] = dice.choice(
                ["FP64", "BYTES", "UINT64", "fp32", "BOOL", "INT8", "FP32", "\u00dcINT8", "U" * 999]
            )
    return HttpCase("types", (_post(target.infer, _dumps(request)),), frozenset({504}))


def _shapes(dice: Dice, target: Target) -> HttpCase:
    request = _good(target)
    sizes: list[Any] = [1, *target.shape]
    n = dice.choice([0, -1, 2, 1025, 2**31, 2**32, 2**60, 2**64, 1.0, True, None, "1", [1]])
    sizes[dice.randrange(len(sizes))] = n
    shape = dice.choice([sizes, sizes[1:], [*sizes, 1], [2**30] * 8, [1] * 5000, [], [[1]]])
    request["inputs"][0]["shape"] = shape
    return HttpCase("shapes", (_post(target.infer, _dumps(request)),))


def _binary(dice: Dice, target: Target) -> HttpCase:
    body = dice.choice(
        [
            dice.randbytes(dice.randrange(2000)),
            msgpack.packb({"inputs": []}),
            b"\x1f\x8b" + dice.randbytes(100),
            b"\xef\xbb\xbf" + _dumps(_good(target)),
            _dumps(_good(target)).decode().encode("utf-16"),
            b"",
        ]
    )
    return HttpCase("binary", (_post(_path(dice, target), body),))


def _nonsense(dice: Dice, target: Target) -> HttpCase:
    sent = dice.choice(
        [
            dice.randbytes(dice.randint(1, 3000)) + b"\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + dice.randbytes(500) + b"\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"GET /v2 HTTP/9.9\r\n\r\n",
            b"GET /v2\r\n\r\n",
            b"\r\n" * 500 + b"x\r\n\r\n",
            b"GET " + b"/x" * 20_000 + b" HTTP/1.1\r\n" + _HEAD + b"\r\n",
            b"POST /v2 HTTP/1.1\r\nContent-Length : 5\r\n\r\nhello",
            b"*1\r\n$4\r\nPING\r\n\r\n\r\n",
        ]
    )
    return HttpCase("nonsense", (sent,), answered=False)


def _lengths(dice: Dice, target: Target) -> HttpCase:
    body = _dumps(_good(target))
    length = dice.choice(
        [
            b"0", b"1", b"%d" % (len(body) - 1), b"-5", b"+5", b"5, 6", b"5, 5", b"x", b"1e3", b"",
            b"%d" % 10**15, b"9" * 19, b"9" * 40, b"%d" % (target.max_body_bytes + 1),
        ]
    )  # fmt: skip
    head = b"Content-Length: %b\r\n" % length
    if dice.random() < 0.3:
        head += b"Content-Length: %d\r\n" % len(body)
    sent = b"POST %b HTTP/1.1\r\n%b%b\r\n%b" % (target.infer, _HEAD, head, body)
    return HttpCase("lengths", (sent,), answered=False)


def _chunks(dice: Dice, target: Target) -> HttpCase:
    body = _dumps(_good(target))
    head = b"POST %b HTTP/1.1\r\n%bTransfer-Encoding: chunked\r\n" % (target.infer, _HEAD)
    size = dice.choice(
        [b"%x" % len(body), b"%x" % len(body) + b";" + b"x" * dice.choice([5, 9000])]
    )
    whole = size + b"\r\n" + body + b"\r\n0\r\n"
    tiny = b"".join(b"1\r\n%c\r\n" % byte for byte in body * dice.choice([1, 40])) + b"0\r\n\r\n"
    sent = dice.choice(
        [
            head + b"\r\n" + tiny,
            head + b"\r\n" + whole + b"\r\n",
            head + b"\r\n" + whole + b"X-Trailer: x\r\n\r\n",
            head + b"\r\n" + b"f" * dice.choice([21, 40]) + b"\r\n" + body,
            head + b"\r\n-5\r\n" + body,
            head + b"\r\n5\r\n" + body,
            head + b"Content-Length: 5\r\n\r\n" + whole + b"\r\n",
            head.replace(b"chunked", b"gzip, chunked") + b"\r\n" + whole + b"\r\n",
            head + b"Transfer-Encoding: chunked\r\n\r\n" + whole + b"\r\n",
        ]
    )
    return HttpCase("chunks", (sent,), answered=False)


def _stalled(dice: Dice, target: Target) -> HttpCase:
    """What never comes to an end: a chunk of 2**60 bytes, a length without its body."""
    body = _dumps(_good(target))
    head = b"POST %b HTTP/1.1\r\n%b" % (target.infer, _HEAD)
    sent = dice.choice(
        [
            head + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % 2**60 + body,
            head + b"Content-Length: 8000000\r\n\r\n" + body,
            head + b"Content-Length: 2\r\n\r\n{",
            head + b"Expect: 100-continue\r\nContent-Length: 50\r\n\r\n",
        ]
    )
    return HttpCase("stalled", (sent,), waits=dice.random() < 0.2)


def _left(dice: Dice, target: Target) -> HttpCase:
    """A client that leaves in the middle of its request, or before its answer."""
    sent = _post(target.infer, _dumps(_good(target)))
    return HttpCase("left", (sent[: dice.randint(1, len(sent))],), waits=False)


def _headers(dice: Dice, target: Target) -> HttpCase:
    body = _dumps(_good(target))
    head = dice.choice(
        [
            b"A: b\r\n" * dice.choice([100, 3000]),
            b"X: " + b"x" * dice.choice([5000, 100_000]) + b"\r\n",
            b"Content-Encoding: gzip\r\n",
            b"Content-Encoding: " + dice.randbytes(9).hex().encode() + b"\r\n",
            b"Inference-Header-Content-Length: 9\r\n",
            b"Expect: 100-continue\r\n",
            b"Host: a\r\nHost: b\r\n",
            b"X: \x00\r\n",
            b"X: \xff\xfe\r\n",
            b"X: a\r\n b\r\n",
            b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n",
            b"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\n",
            b"X-Forwarded-For: " + b"1.1.1.1, " * 500 + b"\r\n",
            b"Content-Type: multipart/form-data; boundary=x\r\n",
        ]
    )
    return HttpCase("headers", (_post(target.infer, body, head),), frozenset({504}), answered=False)


def _paths(dice: Dice, target: Target) -> HttpCase:
    method = dice.choice(
        [b"GET", b"PUT", b"DELETE", b"PATCH", b"OPTIONS", b"TRACE", b"FOO", b"get"]
    )
    path = dice.choice(
        [
            b"/v2/models/..%2f..%2fetc%2fpasswd", b"/v2/models/%2e%2e/infer", b"/v2//models/x",
            b"/../../etc/passwd", b"/%00", b"/%ff%fe", b"/v2/models/%F0%9F%92%A9", b"//v2",
            b"/" * 900,
            b"/v2/models/" + b"n" * 9000, b"*", b"http://elsewhere/v2", b"/v2?" + b"a=b&" * 2000,
            b"/v2/models/snn.in.x", b"/v2/models/./ready", b"/docs/../../x", b"/openapi.json/x",
            target.infer, target.stream("x", "results") + b"?from=-1", target.stream("%00"),
            target.stream("x" * 300), target.stream("%ED%A0%80"), target.stream("a%2Fb"),
            target.stream("x", "results") + b"?from=99999999999999999999&wait=nan&format=xml",
            target.stream("x", "results") + b"?partition=2147483648", b"/v2/models/nobody/infer",
        ]
    )  # fmt: skip
    sent = b"%b %b HTTP/1.1\r\n%b\r\n" % (method, path, _HEAD)
    return HttpCase("paths", (sent,), answered=False)


def _ids(dice: Dice, target: Target) -> HttpCase:
    request = _good(target)
    request["id"] = dice.choice(
        ["x" * 151, "\u00e4" * 80, "\x00", "a\nb", "\ud800", "\u202e", "@", "a@0123456789abcdef",
         "..", "%s%n", "'; DROP", "\u0000", " ", "x" * 5000]
    )  # fmt: skip
    return HttpCase("ids", (_post(target.infer, _dumps(request)),), frozenset({504}))


def _events(dice: Dice, target: Target) -> HttpCase:
    """Posts to a stream; nearly all are refused, and none leaves a stream open."""
    record = dice.choice(
        [
            {"events": dice.choice(_ODD)}, {"events": [[0, 0]] * dice.choice([1, 5000])},
            {"events": [[2**60, 0]], "end": True}, {"events": [[-1, 0]]}, {"events": [[0, 2**32]]},
            {"events": [[0]]}, {"events": [[0, 1, 2, 3]]}, {"events": [[0, 1.5]]},
            {"data": dice.choice(_ODD)}, {"data": [0] * 65, "end": True}, {"data": [[1], [2, 3]]},
            {"until": dice.choice(_ODD)}, {"seq": dice.choice(_ODD)}, {"seed": dice.choice(_ODD)},
            {"end": dice.choice(_ODD)}, {"networks": ["x"]}, {"k": "era", "era": 1}, {"v": 9},
            {"payload": "AAAA", "dtype": "spikes", "steps": 4_000_000_000},
            {"steps": 4_000_000_000},
            {"data": list(target.sample), "events": [[0, 0]]}, {}, {"x": 1}, _good(target),
        ]
    )  # fmt: skip
    name = dice.choice([f"h{dice.randrange(100)}", "%F0%9F%92%A9", "a@0123456789abcdef", "%0A"])
    return HttpCase("events", (_post(target.stream(name), _dumps(record)),))


def _useless(dice: Dice, target: Target) -> HttpCase:
    """Legal, and of no use to anybody."""
    request = {**_good(target), "parameters": {"timeout_s": dice.choice([1e-9, 0.001, 1e300])}}
    sent = dice.choice(
        [
            _post(target.infer, _dumps(request)),
            _post(target.infer, _dumps({**request, "outputs": [{"name": "class"}] * 50})),
            _post(target.infer, _with_data(target, b"[" * 8 + _flat(target) + b"]" * 8)),
            _post(target.infer, _with_data(target, b"[" + _flat(target) + b" " * 12_000 + b"]")),
            *(
                b"GET %b HTTP/1.1\r\n%b\r\n" % (path, _HEAD)
                for path in (
                    b"/v2", b"/v2/health/live", b"/v2/health/ready", b"/metrics", b"/docs", b"/",
                    b"/openapi.json", target.stream("nobody", "results"),
                    target.stream("nobody", "results") + b"?wait=0.01&format=ndjson",
                )
            ),
        ]
    )  # fmt: skip
    return HttpCase("useless", (sent,), frozenset({503, 504}))


def _flat(target: Target) -> bytes:
    return b",".join(b"%d" % value for value in target.sample)


def _long(dice: Dice, target: Target) -> HttpCase:
    """Bodies as long as they may be, or a little longer."""
    n = target.max_body_bytes - 500
    body = dice.choice(
        [
            _with_data(target, _repeated(b"0", n)),
            _with_data(target, _repeated(b"[0,1]", n)),
            _with_data(target, _repeated(b"[]", n)),
            _with_data(target, _repeated(b'"x"', n)),
            _with_data(target, b'["' + b"x" * _MIB + b'", 1]'),
            _with_data(target, b"[0" + b" " * n + b"]"),
            _with_data(target, b"[" * (n // 2) + b"]" * (n // 2)),
            b'{"events": %b}' % _repeated(b"[0,1]", n),
            b'{"data": %b}' % _repeated(b"0.1", n),
            b'{"data":[1],' * (n // 12),
            b"{" + b" " * n + b"}",
            b"[" * n,
            b'{"id": "' + b"x" * n + b'"}',
            b"0" * (n + 501),
        ]
    )
    return HttpCase("long", (_post(_path(dice, target), body),), answered=False)


def _repeated(item: bytes, n_bytes: int) -> bytes:
    return b"[" + (item + b",") * (n_bytes // (len(item) + 1) - 1) + item + b"]"


def _pipelined(dice: Dice, target: Target) -> HttpCase:
    n = dice.choice([2, 10, 40])
    get = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n"
    bad = _post(target.infer, b"{").replace(b"Connection: close\r\n", b"")
    last = b"GET /v2 HTTP/1.1\r\n%b\r\n" % _HEAD
    return HttpCase("pipelined", (b"".join(dice.choices([get, bad], k=n)) + last,), answered=False)


_CASES: Final[dict[str, tuple[float, Callable[[Dice, Target], HttpCase]]]] = {
    "mutated": (16, _mutated),
    "deep": (4, _deep),
    "tokens": (12, _tokens),
    "types": (14, _types),
    "shapes": (8, _shapes),
    "binary": (6, _binary),
    "nonsense": (5, _nonsense),
    "lengths": (5, _lengths),
    "chunks": (6, _chunks),
    "stalled": (0.2, _stalled),
    "left": (3, _left),
    "headers": (4, _headers),
    "paths": (8, _paths),
    "ids": (3, _ids),
    "events": (12, _events),
    "useless": (2, _useless),
    "long": (0.05, _long),
    "pipelined": (0.3, _pipelined),
}
KINDS: Final = tuple(_CASES)
"""Each with its share of what is drawn, in percent about."""
