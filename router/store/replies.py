"""How the server's replies become values: each function reads one piece, or raises.

What raises is a StoreReplyError or a ValueError; `Call.read` makes both a StoreReplyError.
"""

import json
from collections.abc import Callable, Mapping, Sequence

from router.store.errors import StoreReplyError
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
    "integer",
    "items_of",
    "pairs",
    "position",
    "reference",
    "task_id",
    "task_status",
    "text",
    "worker_status",
]


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
    """A hash as the client gives it: a mapping, or a flat list of fields and values."""
    if not isinstance(reply, list) and isinstance(reply, Mapping):
        return list(reply.items())
    flat = items_of(reply)
    return list(zip(flat[::2], flat[1::2], strict=True))


def position(reply: Reply) -> Position:
    """`<offset>|<mark>`; the mark may hold any character."""
    offset, _, mark = text(reply).partition("|")
    return Position(integer(offset), mark)


def reference(reply: Reply) -> StreamReference:
    """`<cursor>|<blob key>|<previous blob key>`."""
    cursor, _, blobs = text(reply).partition("|")
    current, _, previous = blobs.partition("|")
    return StreamReference(integer(cursor), current, previous)


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
        kind=text(kind),
        cost=integer(cost),
        claims=integer(claims),
        number=integer(number),
        hand_last=text(hand_last),
        hand_count=integer(hand_count),
        previous=text(previous),
        idle_ms=integer(idle),
    )


def worker_status(row: Reply) -> WorkerStatus:
    """One worker's row of `status`."""
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
    except (ValueError, KeyError, TypeError) as error:
        raise StoreReplyError(
            f"The record of worker {text(name)!r} cannot be read ({error}); "
            "it was written by another program or version."
        ) from error
    return WorkerStatus(text(name), flag(alive), info)


def task_status(row: Reply) -> TaskStatus:
    """One task's row of `status`."""
    task, kind, cost, worker, lease, claims, number, age, in_hand, wanted, *last = items_of(row)
    error, needs, last_error = last
    return TaskStatus(
        task=task_id(task),
        kind=text(kind),
        cost=integer(cost),
        worker=text(worker),
        lease_ms=integer(lease),
        claims=integer(claims),
        number=integer(number),
        checkpoint_age_ms=None if text(age) == "" else integer(age),
        hand=text(in_hand),
        wanted_by=text(wanted),
        error=text(error),
        needs=tuple(int(need) for need in text(needs).split()),
        last_error=text(last_error),
    )
