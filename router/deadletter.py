"""Dead letters: what cannot be read or used is kept in ``snn.dead-letter`` with the reason."""

from dataclasses import dataclass
from typing import ClassVar, Final, cast

import msgpack

from router.wire import NAME_BYTES, clip_text
from topologies.errors import SpikeRouterError

__all__ = [
    "STREAM_ENDED",
    "VALUE_BYTES",
    "VERSION",
    "DeadLetter",
    "DeadLetterError",
    "decode",
    "encode",
]

VERSION: Final = 1
STREAM_ENDED: Final = "StreamEnded"
"""The first word of why a record is refused whose stream has its end in the results."""
VALUE_BYTES: Final = 65_536  # how much of the refused value is kept
_KEY_BYTES = 1024
_TEXT_BYTES = 4096


class DeadLetterError(SpikeRouterError, ValueError):
    """Bytes that are not a dead letter."""

    retryable: ClassVar[bool] = False


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A refused record: where it lies, why it was refused, and how its value begins."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    reason: str
    name: str = ""
    """The stream's name, as far as it is known."""
    value: bytes | None = None


def encode(letter: DeadLetter) -> bytes:
    """A msgpack map; texts, key and value are cut to their limits, so this cannot fail."""
    return cast(
        bytes,
        msgpack.packb(
            {
                "v": VERSION,
                "topic": clip_text(letter.topic, _TEXT_BYTES),
                "partition": letter.partition,
                "offset": letter.offset,
                "key": None if letter.key is None else letter.key[:_KEY_BYTES],
                "reason": clip_text(letter.reason, _TEXT_BYTES),
                "name": clip_text(letter.name, NAME_BYTES),
                "value": None if letter.value is None else letter.value[:VALUE_BYTES],
            }
        ),
    )


def decode(data: bytes) -> DeadLetter:
    """The inverse of `encode`; raises DeadLetterError."""
    try:
        content = msgpack.unpackb(data, max_array_len=0, max_map_len=16, max_ext_len=0)
    except (ValueError, TypeError, msgpack.UnpackException, RecursionError) as error:
        raise DeadLetterError(f"The dead letter is not valid msgpack: {error}.") from error
    if not isinstance(content, dict) or set(content) != {"v", *_TYPES}:
        raise DeadLetterError(f"The dead letter is not a map of v, {', '.join(_TYPES)}.")
    if type(content["v"]) is not int or content.pop("v") != VERSION:
        raise DeadLetterError(f"The dead letter is not of version {VERSION}.")
    for name, legal in _TYPES.items():
        if type(content[name]) not in legal:
            raise DeadLetterError(f"The field `{name}` of the dead letter has a wrong type.")
    return DeadLetter(**content)


_TYPES: dict[str, tuple[type, ...]] = {
    "topic": (str,),
    "partition": (int,),
    "offset": (int,),
    "key": (bytes, type(None)),
    "reason": (str,),
    "name": (str,),
    "value": (bytes, type(None)),
}
