"""What became of a record that ends a stream: fed with what topics say since it was sent. Pure.

Ingest answers in one of two ways: a dead letter that quotes the record, or the last window of the
stream, which names the networks whose results are to be waited for.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace

from router.deadletter import DeadLetterError
from router.deadletter import decode as decode_letter
from router.topics import DEAD_LETTER, in_topic, out_topic
from router.views import Line, Raw, ResultView
from router.wire import Frame, Kind, WireError, decode_frame, encode_frame

__all__ = ["Ending"]


class Ending:
    """`sent` are the offsets of the record by partition, `refused` the reasons by partition."""

    def __init__(
        self, input: str, stream: str, every: Mapping[str, int | None], n_partitions: int
    ) -> None:
        """`every`: the networks of the input, each with the steps between emissions (None: one)."""
        self.sent: dict[int, int] = {}
        self.refused: dict[int, str] = {}
        self._input = in_topic(input)
        self._stream = stream
        self._views = {
            out_topic(n): (n, ResultView(n, n_partitions, steps)) for n, steps in every.items()
        }
        self._letters: dict[tuple[int, int], str] = {}
        self._awaited: set[str] = set()
        self._final: set[str] = set()

    @property
    def is_over(self) -> bool:
        """Whether the stream's result is final in all its networks."""
        return bool(self._awaited) and self._awaited <= self._final

    def is_refused(self, partitions: Collection[int]) -> bool:
        """Whether it is open in none of these partitions."""
        self._look_up()
        return all(partition in self.refused for partition in partitions)

    def feed(self, topic: str, raw: Raw) -> Iterator[Line]:
        """Take a record in; gives the last results of the stream, as `consume` prints them."""
        if topic == DEAD_LETTER:
            self._letter(raw)
        elif topic in self._views:
            yield from self._results(*self._views[topic], raw)
        else:
            self._awaited |= self._last_networks(raw)

    def _letter(self, raw: Raw) -> None:
        try:
            letter = decode_letter(raw.value or b"")
        except DeadLetterError:
            return
        if letter.topic == self._input and letter.name == self._stream:
            self._letters[letter.partition, letter.offset] = letter.reason

    def _look_up(self) -> None:
        """A letter may come before the offset is known of the record that it quotes."""
        for partition, offset in self.sent.items():
            if (partition, offset) in self._letters:
                self.refused[partition] = self._letters[partition, offset]

    def _last_networks(self, raw: Raw) -> set[str]:
        """Where a frame of ingest has the stream's last window, or its KILL: its networks."""
        frame = _frame(raw)
        found = frame.batches if frame else []
        last = (b for b in found if b.name == self._stream and (b.end or b.kind is Kind.KILL))
        return {network for batch in last for network in batch.networks}

    def _results(self, network: str, view: ResultView, raw: Raw) -> Iterator[Line]:
        """Only batches of this stream: others may be without number."""
        frame = _frame(raw)
        mine = [b for b in frame.batches if b.name == self._stream] if frame else []
        if frame is None or not mine:
            return
        value = encode_frame(replace(frame, batches=mine))
        for line in view.lines(raw._replace(value=value)):
            if line.get("end"):
                self._final.add(network)
                yield {"network": network, **line}


def _frame(raw: Raw) -> Frame | None:
    try:
        return decode_frame(raw.value or b"")
    except WireError:
        return None
