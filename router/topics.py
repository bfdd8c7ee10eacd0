"""Names of topics and keys of records: where each kind of message travels.

Every topic of a deployment has the same number of partitions, and a record's partition is always
passed explicitly: a key never chooses one (PROTOCOL rule 2). Kafka treats ``.`` and ``_`` as equal
when it looks for colliding topic names, so two names that differ only there cannot both be made.
"""

import re
import zlib
from functools import lru_cache
from typing import ClassVar

from topologies.errors import SpikeRouterError
from topologies.names import LEGAL_NAMES, TOPIC_NAME

__all__ = [
    "DEAD_LETTER",
    "NAME",
    "OPERATOR",
    "TopicError",
    "check_name",
    "check_operator",
    "group_key",
    "in_topic",
    "out_topic",
    "parse_group_key",
    "partition_of",
    "spikes_topic",
]

DEAD_LETTER = "snn.dead-letter"

NAME = TOPIC_NAME
OPERATOR = re.compile(r"[0-9a-f]{32}")
_KEY = re.compile(rb"([0-9a-f]{32})/(0|[1-9][0-9]{0,9})")
_U32 = 2**32 - 1
_made_once = lru_cache(maxsize=65_536)  # names are asked for with every batch


class TopicError(SpikeRouterError, ValueError):
    """A name or key that cannot stand in a topic; the text says what is legal."""

    retryable: ClassVar[bool] = False


def check_name(name: str) -> str:
    """The name of a network or input, unchanged; raises TopicError unless it is legal."""
    if NAME.fullmatch(name) is None:
        raise TopicError(f"The name {name[:120]!r} is not legal: use {LEGAL_NAMES}")
    return name


def check_operator(operator: str) -> str:
    """An operator's or node's id, unchanged; raises TopicError unless it is 32 hex digits."""
    if OPERATOR.fullmatch(operator) is None:
        raise TopicError(f"The id {operator[:120]!r} is not legal: use 32 digits 0-9 a-f.")
    return operator


def partition_of(name: str, n_partitions: int) -> int:
    """The partition that this project gives a stream: CRC-32 of its name, the same everywhere."""
    return zlib.crc32(name.encode("utf-8", "surrogatepass")) % n_partitions


@_made_once
def in_topic(name: str) -> str:
    """The topic with the records of one input."""
    return f"snn.in.{check_name(name)}"


@_made_once
def spikes_topic(operator: str) -> str:
    """The topic with the frames of one operator, shared by all networks that share it."""
    return f"snn.spikes.{check_operator(operator)}"


@_made_once
def out_topic(network: str) -> str:
    """The topic with the results of one network."""
    return f"snn.out.{check_name(network)}"


@_made_once
def group_key(operator: str, group: int) -> bytes:
    """The key of a frame: the synapse group that emitted it, ``<operator>/<group>`` in ASCII."""
    if not 0 <= group <= _U32:
        raise TopicError(f"The group {group} is not legal: use 0 to {_U32}.")
    return f"{check_operator(operator)}/{group}".encode("ascii")


def parse_group_key(key: bytes) -> tuple[str, int]:
    """The inverse of `group_key`; raises TopicError for any other bytes."""
    match = _KEY.fullmatch(key)
    if match is None or int(match[2]) > _U32:
        raise TopicError(
            f"The key {key[:60]!r} is not that of a synapse group: '<32 hex digits>/<group>'."
        )
    return match[1].decode("ascii"), int(match[2])
