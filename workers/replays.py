"""Streams that are on an older version than their task's positions (docs/protocol.md 24). Pure.

A stream whose newest snapshot cannot be read falls back on the one before, and reads again from
the offsets that this one is valid for, apart from the others. One that cannot be placed at all, as
the head of the checkpoint is older than it, comes again from its first window. Neither is
committed before it is level with the last commit: the version in the store is the only good one.
"""

from collections.abc import Iterator, Mapping

from workers.ledger import Ledger
from workers.reading import Record
from workers.streams import Key, Stream

__all__ = ["Replays"]


class _Replay:
    """A stream, the first record it needs again per topic, and the window it was committed at."""

    __slots__ = ("cursor", "offsets", "stream")

    def __init__(self, stream: Stream, offsets: dict[str, int], cursor: int) -> None:
        self.stream = stream
        self.offsets = offsets
        self.cursor = cursor


class Replays:
    """A container of the keys of such streams. Who is level leaves it, and counts as changed."""

    def __init__(self, ledger: Ledger[Key]) -> None:
        self._ledger = ledger
        self._replays: dict[Key, _Replay] = {}
        self._cursors: dict[Key, int] = {}  # of streams that are to come again from the beginning
        self._read: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._replays)

    def __iter__(self) -> Iterator[Key]:
        return iter(self._replays)

    def __contains__(self, key: object) -> bool:
        return key in self._replays

    def expect(self, key: Key, cursor: int) -> None:
        """The stream comes again from its first window; it was committed at window `cursor`."""
        self._cursors[key] = cursor

    def began(self, stream: Stream) -> None:
        """Its first batch has come."""
        cursor = self._cursors.pop(stream.key, 0)
        if cursor:
            self._replays[stream.key] = _Replay(stream, {}, cursor)

    def fall_back(
        self, stream: Stream, offsets: Mapping[str, int], cursor: int, read: Mapping[str, int]
    ) -> None:
        """The stream's version is valid for `offsets`; the task has read up to `read`, and the
        store has the stream at window `cursor`. Topics that the task no longer reads were those of
        networks that are gone."""
        behind = {topic: at for topic, at in offsets.items() if at < read.get(topic, 0)}
        self._read = dict(read)
        self._replays[stream.key] = _Replay(stream, behind, cursor)
        self.moved(stream.key)

    def start(self, first: dict[str, int]) -> None:
        """Lower the first offsets to fetch to what is needed here."""
        for replay in self._replays.values():
            for topic, offset in replay.offsets.items():
                first[topic] = min(first[topic], offset)

    def wants(self, key: Key, record: Record) -> bool:
        """Whether a record that the task has behind it is new to this stream."""
        replay = self._replays.get(key)
        if replay is None:
            return False
        first = replay.offsets.get(record.topic)
        return first is not None and record.offset >= first

    def took(self, topic: str, offset: int) -> None:
        """Records of a topic were taken up to `offset`."""
        if offset < self._read.get(topic, 0):
            return
        for key in list(self._replays):
            self._replays[key].offsets.pop(topic, None)
            self.moved(key)

    def moved(self, key: Key) -> None:
        """Look whether the stream is level now: it is committed like the others from here on."""
        replay = self._replays.get(key)
        if replay and not replay.offsets and replay.stream.window >= replay.cursor:
            del self._replays[key]
            self._ledger.change(key)

    def in_need_of(self, topic: str, before: int) -> list[Stream]:
        """The streams that need records below offset `before` again."""
        found = self._replays.values()
        return [r.stream for r in found if r.offsets.get(topic, before) < before]

    def end(self, key: Key) -> None:
        """The stream is over."""
        self._replays.pop(key, None)
