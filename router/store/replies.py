"""How the server's replies become values: each function reads one piece, or raises.

What raises is a StoreReplyError or a ValueError; `Call.read` makes both a StoreReplyError.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from router.store.errors import StoreReplyError
from router.store.marks import mark
from router.store.values import (
    Claimed,
    ClaimReply,
    Position,
    Reply,
    StreamReference,
    TaskId,
    TaskStatus,
    WorkerInfo,
    WorkerStatus,
)

__all__ = [
    "blob",
    "claim_reply",
    "flag",
    "format_version",
    "integer",
    "items_of",
    "loose",
    "marked",
    "pairs",
    "reference",
    "task_id",
    "task_rows",
    "task_status",
    "text",
    "worker_status",
]


_REFERENCE: Final = re.compile(r"([0-9]{1,18})\|([^|]*)\|([^|]*)")
_BLOB: Final = re.compile(r"snn:\{p[0-9]+\}:blob:[0-9A-Za-z-]+:[0-9]+")


def items_of(reply: Reply) -> Sequence[Reply]:
    """A list."""
    if isinstance(reply, list):  # at once: to ask an abstract class takes ten times as long
        return reply
    if isinstance(reply, Sequence) and not isinstance(reply, bytes | str):
        return reply
    raise StoreReplyError(f"The store answered {reply!r} where a list was expected.")


def text(reply: Reply) -> str:
    """A text, in UTF-8 if it is sent as bytes."""
    if isinstance(reply, bytes):
        return reply.decode()
    if isinstance(reply, str):
        return reply
    raise StoreReplyError(f"The store answered {reply!r} where a text was expected.")


def integer(reply: Reply) -> int:
    """A number, sent as one or as its digits."""
    if isinstance(reply, int):
        return reply
    digits = text(reply)
    try:
        return int(digits)
    except ValueError:
        raise StoreReplyError(
            f"The store answered {digits!r} where a number was expected."
        ) from None


def flag(reply: Reply) -> bool:
    """1 for yes; every other number is no."""
    return integer(reply) == 1


def blob(reply: Reply) -> bytes | None:
    """Bytes as they are, or None where the key was absent."""
    if reply is None or isinstance(reply, bytes):
        return reply
    raise StoreReplyError(f"The store answered {reply!r} where a blob was expected.")


def task_id(reply: Reply) -> TaskId:
    """A task's name in the store."""
    return TaskId.parse(text(reply))


def pairs(reply: Reply) -> Sequence[tuple[Reply, Reply]]:
    """A hash as the client gives it: a mapping, or a flat list of fields and values.

    None stands for one that is none.
    """
    if reply is None:
        return []
    if not isinstance(reply, list) and isinstance(reply, Mapping):
        return list(reply.items())
    flat = items_of(reply)
    return list(zip(flat[::2], flat[1::2], strict=True))


def loose(reply: Reply) -> str:
    """A text of which some may be damaged or missing: what is no text is read all the same."""
    if reply is None:
        return ""
    return reply.decode(errors="replace") if isinstance(reply, bytes) else text(reply)


def format_version(twice: str) -> int:
    """`<version>=<version>`; 0 when that is damaged: the blobs tell theirs."""
    version, _, again = twice.partition("=")
    return int(version) if version == again and version.isdecimal() else 0


def marked(task: TaskId, reply: Reply) -> dict[str, Position]:
    """`<offset>|<mark>` by topic, without those that are not as they were written."""
    found: dict[str, Position] = {}
    for topic, value in pairs(reply):
        offset, _, told = loose(value).partition("|")
        if offset.isdecimal() and told == mark(task, loose(topic), int(offset)):
            found[loose(topic)] = Position(int(offset))
    return found


def reference(reply: Reply) -> StreamReference:
    """`<cursor>|<blob key>|<previous blob key>`.

    Of a damaged one, the keys that can be made out, and a cursor of -1: the blobs tell theirs.
    """
    given = loose(reply)
    whole = _REFERENCE.fullmatch(given)
    if whole is not None:
        cursor, current, previous = whole.groups()
        return StreamReference(int(cursor), current, previous)
    current, previous, *_ = (*_BLOB.findall(given), "", "")
    return StreamReference(-1, current, previous)


def claim_reply(token: str) -> Callable[[Reply], ClaimReply]:
    """How to read the reply to a claim that was made with `token`."""

    def parse(reply: Reply) -> ClaimReply:
        settling, claimed, suspicious, first = items_of(reply)
        return ClaimReply(
            claimed=tuple(_claimed(token, row) for row in items_of(claimed)),
            suspicious=tuple(task_id(name) for name in items_of(suspicious)),
            settling_ms=integer(settling),
            expiry_ms=integer(first) if first else None,
        )

    return parse


def _claimed(token: str, row: Reply) -> Claimed:
    task, kind, cost, claims, number, hand_last, hand_count, previous, idle = items_of(row)
    return Claimed(
        task=task_id(task),
        token=token,
        kind=loose(kind),
        cost=integer(cost),
        claims=integer(claims),
        number=integer(number),
        hand_last=loose(hand_last),
        hand_count=integer(hand_count),
        previous=loose(previous),
        idle_ms=integer(idle),
    )


def worker_status(row: Reply) -> WorkerStatus:
    """One worker's row of `status`. One that cannot be read hosts nothing, until it is renewed."""
    name, alive, info_text = items_of(row)
    try:
        record = json.loads(text(info_text))
        info = WorkerInfo(
            capacity=int(record["capacity"]),
            kinds=tuple(record["kinds"]),
            elsewhere=int(record["elsewhere"]),
            details=dict(record["details"]),
            limits=tuple(record.get("limits", ())),
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        info = WorkerInfo(capacity=0, kinds=())
    return WorkerStatus(loose(name), flag(alive), info)


def task_status(row: Reply) -> TaskStatus:
    """One task's row of `status`."""
    task, kind, cost, worker, lease, claims, number, age, in_hand, wanted, *last = items_of(row)
    error, needs, last_error, whole = last
    return TaskStatus(
        task=task_id(task),
        kind=loose(kind),
        cost=integer(cost),
        worker=loose(worker),
        lease_ms=integer(lease),
        claims=integer(claims),
        number=integer(number),
        checkpoint_age_ms=None if text(age) == "" else integer(age),
        hand=loose(in_hand),
        wanted_by=loose(wanted),
        error=loose(error),
        needs=tuple(int(need) for need in text(needs).split()),
        last_error=loose(last_error),
        damaged=not flag(whole),
    )


def task_rows(reply: Reply) -> Iterator[Reply]:
    """The rows of `status` that are of tasks: a damaged name is nobody's."""
    for row in items_of(reply):
        try:
            task_id(items_of(row)[0])
        except ValueError:
            continue
        yield row
