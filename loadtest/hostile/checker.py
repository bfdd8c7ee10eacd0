"""What may come of a hostile input, and what must not. Pure."""

import re
from dataclasses import dataclass, field
from typing import Final

import orjson

from loadtest.hostile.cases_http import HttpCase

__all__ = ["SPOILED", "Limits", "Measured", "beyond", "codes_of", "fault_of"]

SPOILED: Final = frozenset({503, 504})
"""What a request may be answered with whose state was damaged in the store."""
_STATUS: Final = re.compile(rb"HTTP/1\.1 (\d{3}) ")


@dataclass(frozen=True)
class Limits:
    """What a gateway must keep to, whatever is sent to it."""

    resident_mib: float = 400.0
    held_s: float = 0.05


@dataclass
class Measured:
    """What a gateway needed: MiB at most, seconds for which its loop was held at most, and how
    often it or a worker died. Of the good client: answers, those with other bits, those that
    failed, and those that damage to the store excuses."""

    resident_mib: float = 0.0
    held_s: float = 0.0
    lag_s: float = 0.0
    n_deaths: int = 0
    n_good: int = 0
    n_wrong: int = 0
    n_failed: int = 0
    n_spoiled: int = 0
    longest_good_s: float = 0.0
    failures: list[str] = field(default_factory=list)


def codes_of(answer: bytes) -> list[int]:
    """The codes of all responses in what a server sent, 100 left out."""
    return [code for code in map(int, _STATUS.findall(answer)) if code != 100]


def fault_of(case: HttpCase, answer: bytes, ended: bool, *, is_spoiled: bool = False) -> str:
    """What is wrong with the answer to a case, a sentence; "" for nothing.

    `ended` tells whether the server came to an end, by an answer or by closing the connection;
    `is_spoiled` whether the store was damaged lately: then the answer to any case may be late, or
    lost by name.
    """
    if not case.waits:
        return ""
    if not ended:
        return f"A case of kind {case.kind} was neither answered nor closed."
    codes = codes_of(answer)
    if not codes:
        return f"A case of kind {case.kind} got no answer." if case.answered else ""
    may = case.may | SPOILED if is_spoiled else case.may
    bad = [code for code in codes if code >= 500 and code not in may]
    if bad:
        return f"A case of kind {case.kind} was answered with {bad[0]}: {answer[-300:]!r}"
    return _without_sentence(case, answer, codes)


def _without_sentence(case: HttpCase, answer: bytes, codes: list[int]) -> str:
    """An error of the gateway's own says what was legal; those of the HTTP server are plain."""
    head, _, body = answer.partition(b"\r\n\r\n")
    if len(codes) > 1 or codes[0] < 400 or b"application/json" not in head or not body:
        return ""
    if b"transfer-encoding" in head.lower():
        return ""
    try:
        told = orjson.loads(body)["error"]
    except (ValueError, KeyError, TypeError):
        told = ""
    return "" if told else f"A case of kind {case.kind} was refused without a sentence: {body!r}"


def beyond(measured: Measured, limits: Limits) -> list[str]:
    """The limits that a gateway did not keep, as sentences."""
    told = [
        (measured.resident_mib > limits.resident_mib,
         f"The gateway took {measured.resident_mib:.0f} MiB; most are {limits.resident_mib:g}."),
        (measured.held_s > limits.held_s,
         f"Its event loop was held for {1000 * measured.held_s:.0f} ms; the most are "
         f"{1000 * limits.held_s:g}."),
        (measured.n_deaths > 0, f"Processes died {measured.n_deaths} times."),
        (measured.n_wrong > 0, f"{measured.n_wrong} answers to the good client have other bits."),
        (measured.n_failed > 0, f"{measured.n_failed} good requests were not answered: "
         f"{measured.failures[:5]}"),
        (measured.n_good == 0, "No good request was answered."),
    ]  # fmt: skip
    return [sentence for is_so, sentence in told if is_so]
