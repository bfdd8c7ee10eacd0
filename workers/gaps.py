"""What is said of offsets that nobody can read (docs/protocol.md 9). Pure."""

from router.deadletter import DeadLetter, encode

__all__ = ["letter_of", "offsets_of"]


def offsets_of(topic: str, first: int, stop: int) -> str:
    """Offsets `first` to `stop - 1` of a topic, in words."""
    which = f"offset {first}" if stop == first + 1 else f"offsets {first} to {stop - 1}"
    return f"{which} of {topic}"


def letter_of(topic: str, partition: int, first: int, stop: int, reason: str) -> bytes:
    """A dead letter about what nobody can read at these offsets, and why."""
    where = f"{offsets_of(topic, first, stop)}, partition {partition}"
    text = f"UnreadableBatch: {where}, cannot be read by anybody and was passed over: {reason}"
    return encode(DeadLetter(topic, partition, first, None, text))
