"""Records that nobody reads: those in partitions of an input beyond the deployed ones. Pure.

A topic may have more partitions than were deployed, because somebody made or altered it so. Who
writes there, by a key's hash over all of them, is answered by nothing. A worker that hosts an
input's ingest of partition 0 looks, and tells; they are not copied to the dead letters, since
whoever takes over would not know which of them were.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from router.store.calls import Info, StatusReply

__all__ = ["DETAIL", "Stray", "details_of", "strays_of"]

DETAIL = "strays"
"""The key under which a worker tells of them in its own record."""


@dataclass(frozen=True, slots=True)
class Stray:
    """Records of one topic that lie where nobody reads: how many, by partition."""

    topic: str
    deployed: int
    records: Mapping[int, int]

    @property
    def n_records(self) -> int:
        """All of them."""
        return sum(self.records.values())

    def sentence(self) -> str:
        """What to do about it."""
        where = ", ".join(map(str, sorted(self.records)))
        return (
            f"{self.n_records} records of topic {self.topic} lie unread in partition {where}: only "
            f"partitions 0 to {self.deployed - 1} are deployed. Let producers choose one of these, "
            "by CRC-32 of the stream's name modulo their number, and send the records again."
        )


def details_of(strays: Iterable[Stray]) -> str:
    """For the record of a worker; `strays_of` reads it."""
    return json.dumps([[s.topic, s.deployed, sorted(s.records.items())] for s in strays])


def strays_of(replies: Iterable[StatusReply]) -> tuple[Stray, ...]:
    """What living workers tell, each topic once, sorted by name."""
    found = {
        stray.topic: stray
        for reply in replies
        for worker in reply.workers
        if worker.alive
        for stray in _told(worker.info.details)
    }
    return tuple(found[topic] for topic in sorted(found))


def _told(details: Mapping[str, Info]) -> Iterator[Stray]:
    for topic, deployed, records in json.loads(str(details.get(DETAIL, "[]"))):
        yield Stray(topic, deployed, dict(records))
