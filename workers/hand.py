"""What a suspicious owner names before it takes records in, so that its death tells (PROTOCOL 28).

An owner that runs alone names runs of records, and the records of a run that its predecessor died
with one by one. A record that was named by two deaths in a row is not taken in again. Pure.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from router.store.calls import Claimed
from workers.reading import Record

__all__ = ["Portion", "accused", "is_of_records", "portions"]

_SUSPECT_AFTER: Final = 2
"""Owners in a row that died with the same thing in hand."""
_RUN: Final = 16
"""Records that are named together: a word to the store takes as long as to take in some of them."""
_RECORDS = re.compile(r"record:([^@#]+)@(\d+)-(\d+)")


class Portion(NamedTuple):
    """Records to take in at once, after `hand` was shown; `error` says why not to ("": do)."""

    hand: str
    records: Sequence[Record]
    error: str = ""


def accused(claimed: Claimed) -> tuple[str, str]:
    """The field of a stream that two owners in a row had in hand, and why it ends; "" for none."""
    field, mark, window = claimed.hand_last.rpartition("#")
    if claimed.hand_count < _SUSPECT_AFTER or not mark:
        return "", ""
    operator = claimed.task.operator
    return field, f"PoisonBatch: window {window} of operator {operator} ended two workers"


def portions(claimed: Claimed, records: Sequence[Record]) -> Iterator[Portion]:
    """The records of one topic, cut into portions for this owner."""
    if not claimed.one_by_one:
        if records:
            yield Portion(claimed.shown("record"), records)
        return
    first, last = _named(claimed.hand_last, records[0].topic) if records else (0, -1)
    at = 0
    while at < len(records):
        n = _length(records, at, first, last)
        portion = Portion(_hand(records[at], records[at + n - 1]), records[at : at + n])
        if portion.hand == claimed.hand_last and claimed.hand_count >= _SUSPECT_AFTER and n == 1:
            portion = portion._replace(error=_error(records[at]))
        yield portion
        at += n


def is_of_records(hand: str) -> bool:
    """Whether a hand names records, and no window."""
    return _RECORDS.fullmatch(hand) is not None


def _length(records: Sequence[Record], at: int, first: int, last: int) -> int:
    """How many of the records from index `at` on are named together; `first` to `last` are not."""
    if first <= records[at].offset <= last:
        return 1
    run = records[at : at + _RUN]
    return next((n for n, r in enumerate(run) if first <= r.offset <= last), len(run))


def _hand(first: Record, last: Record) -> str:
    return f"record:{first.topic}@{first.offset}-{last.offset}"


def _named(hand: str, topic: str) -> tuple[int, int]:
    """The first and the last record of a topic that a hand names; an empty range for none."""
    match = _RECORDS.fullmatch(hand)
    return (int(match[2]), int(match[3])) if match and match[1] == topic else (0, -1)


def _error(record: Record) -> str:
    return (
        f"PoisonRecord: the record at offset {record.offset} of topic {record.topic} ended two"
        " workers that took it in: it is passed over, and counts as lost"
    )
