"""Each bug that has broken a task protocol, planted into the product's classes, is caught.

A bug is caught if one of the first seeds of a selection fails: of a few shapes, with the kinds of
faults that are known to bring it out. The same world without the bug keeps every promise.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import pytest

from loadtest.simulation.plan import Plan, draw
from loadtest.simulation.runner import play
from router.records import Data
from router.seals import Trust
from router.store import simulated
from router.store.lua import script
from router.wire import Batch
from workers import hand, ingest, task
from workers.flow import Flow
from workers.ingest import Ingest
from workers.intervals import IntervalSet
from workers.ledger import Ledger, Taken
from workers.over import Over
from workers.reading import Reading
from workers.snapshot import Snapshot, blob_name, open_sealed, seal
from workers.streams import PlaceState, Stream
from workers.superseded import Superseded
from workers.task import Task
from workers.tenancy import CommitPlan, Tenancy
from workers.unnumbered import Unnumbered

Plant = Callable[[pytest.MonkeyPatch], None]
CRASHES = ("crash", "crash after commit", "crash before commit")


def checkpoint_before_acknowledgement(patch: pytest.MonkeyPatch) -> None:
    """The barrier of rule 21 is gone."""
    snapshot = Task.snapshot

    def early(self: Task, full: bool, anyhow: bool = False) -> Snapshot | None:
        taken = snapshot(self, full, anyhow)
        return None if taken is None else taken._replace(n_outputs=0)

    patch.setattr(Task, "snapshot", early)


def no_ended_set(patch: pytest.MonkeyPatch) -> None:
    """Nobody remembers which streams ended (7)."""
    end = Task._end

    def forget(self: Task, stream: Any) -> None:
        end(self, stream)
        stream.place.ended = IntervalSet()

    patch.setattr(Task, "_end", forget)


def positions_taken_at_commit(patch: pytest.MonkeyPatch) -> None:
    """The positions are those of the commit, the streams those of the snapshot (20)."""
    plan = Tenancy.plan

    def late(self: Tenancy, nonce: str) -> CommitPlan | None:
        pending, tenant = self._pending, self.tenant
        if pending is not None and isinstance(tenant, Task):
            at = {t: tenant.reading.offset(t) for t in tenant.topics}
            name = blob_name(*tenant._identity)
            head = open_sealed(pending.head, "head", name)
            head["positions"] = {t: [offset, -1, -1] for t, offset in at.items()}
            self._pending = pending._replace(positions=at, head=seal(head, name))
        return plan(self, nonce)

    patch.setattr(Tenancy, "plan", late)


def positions_of_the_latest_read(patch: pytest.MonkeyPatch) -> None:
    """What was read and waits is in no checkpoint, but the positions say that it was read (20)."""
    freeze = Task._freeze

    def without_inbox(self: Task, key: Any, offsets: Any) -> tuple[str, int, bytes]:
        field, cursor, blob = freeze(self, key, offsets)
        name = blob_name(*self._identity, field)
        saved = open_sealed(blob, "stream", name)
        saved[8] = [[] for _ in saved[8]]
        return field, cursor, seal(saved, name)

    patch.setattr(Task, "_freeze", without_inbox)


def no_duplicate_check_on_one_edge(patch: pytest.MonkeyPatch) -> None:
    """What comes again from the last source is taken again (8)."""
    hold = Task._hold

    def take(self: Task, stream: Stream, source: int, batch: Batch) -> bool:
        if source == len(stream.expect) - 1 and batch.window < stream.expect[source]:
            stream.expect[source] = batch.window
        return hold(self, stream, source, batch)

    patch.setattr(Task, "_hold", take)


def snapshot_without_a_cursor(patch: pytest.MonkeyPatch) -> None:
    """A stream is restored with its state, but from window 0 on (11)."""
    freeze = Task._freeze

    def blank(self: Task, key: Any, offsets: Any) -> tuple[str, int, bytes]:
        field, cursor, blob = freeze(self, key, offsets)
        name = blob_name(*self._identity, field)
        saved = open_sealed(blob, "stream", name)
        saved[4] = 0
        return field, cursor, seal(saved, name)

    patch.setattr(Task, "_freeze", blank)


def dirty_set_cleared_early(patch: pytest.MonkeyPatch) -> None:
    """A commit clears what changed since its snapshot, too (20)."""
    committed = Ledger.committed

    def clear(self: Ledger[Any], taken: Taken[Any], is_alive: Callable[[Any], bool]) -> None:
        self._changed.clear()
        committed(self, taken, is_alive)

    patch.setattr(Ledger, "committed", clear)


def no_token_and_no_number(patch: pytest.MonkeyPatch) -> None:
    """The commit script takes every checkpoint of everyone (22)."""
    text = script("commit").text
    number = "tonumber(known[2]) ~= number - 1"
    entries = "redis.call('HLEN', streams) ~= tonumber(entries)"
    for check in ("known[1] ~= token", number, entries):
        assert check in text
        text = text.replace(check, "false")
    patch.setitem(simulated._lua()._scripts, "commit", _compiled(text))


def abort_not_counted(patch: pytest.MonkeyPatch) -> None:
    """A checkpoint does not wait for the acknowledgement of an ABORT (14)."""
    abort = Task._abort

    def uncounted(self: Task, stream: Stream, error: str) -> None:
        self._outbox.flush()
        n_before = self._outbox.n_outputs
        abort(self, stream, error)
        self._outbox.flush()
        self._outbox.n_outputs = n_before

    patch.setattr(Task, "_abort", uncounted)


def full_inbox_pauses(patch: pytest.MonkeyPatch) -> None:
    """A task reads no more from a source while two of its windows wait for another's (10)."""

    def paused(self: Task) -> tuple[str, ...]:
        waiting = sum(len(held) for s in self._streams.values() for held in s.inbox)
        return self.topics[:1] if waiting >= 2 else ()

    patch.setattr(Task, "paused_topics", property(paused))


def batches_without_routes(patch: pytest.MonkeyPatch) -> None:
    """A node takes in what is not routed to it (5)."""
    unkilled = PlaceState.unkilled

    def everything(self: PlaceState, networks: Iterable[str], number: int) -> frozenset[str]:
        return unkilled(self, self.spec.networks, number)

    patch.setattr(PlaceState, "unkilled", everything)


def new_era_without_its_record(patch: pytest.MonkeyPatch) -> None:
    """An ingest without a checkpoint numbers at once (1)."""

    def begin(self: Ingest) -> None:
        self._follow(self._eras.read(self._eras.ask(self.spec.networks), -1))

    patch.setattr(Ingest, "_ask_for_era", begin)


def any_checkpoint_ends_a_suspicion(patch: pytest.MonkeyPatch) -> None:
    """Claims are forgotten by owners that have not caught up (28)."""
    begin = Tenancy.begin

    def trusting(self: Tenancy) -> bool:
        begun = begin(self)
        self._survived = True
        return begun

    patch.setattr(Tenancy, "begin", trusting)


def survival_untold(patch: pytest.MonkeyPatch) -> None:
    """An owner that has caught up and finds nothing to write says nothing (28)."""
    snapshot = Task.snapshot

    def silent(self: Task, full: bool, anyhow: bool = False) -> Snapshot | None:
        return snapshot(self, full)

    patch.setattr(Task, "snapshot", silent)


def deadly_record_taken_again(patch: pytest.MonkeyPatch) -> None:
    """A record that two owners in a row died of is taken in like any other (28)."""
    patch.setattr(hand, "_SUSPECT_AFTER", 10**9)


def accusation_forgotten(patch: pytest.MonkeyPatch) -> None:
    """A stream is only accused if the checkpoint has it (28)."""
    accuse = Task.accuse

    def once(self: Task, field: str, error: str) -> None:
        accuse(self, field, error)
        self._accused.clear()

    patch.setattr(Task, "accuse", once)


def markers_waited_for(patch: pytest.MonkeyPatch) -> None:
    """Only records move a position, so that it never gets behind a marker at a log's end (6)."""
    patch.setattr(Reading, "pass_over", lambda self, topic, offset: False)


def markers_taken_for_a_gap(patch: pytest.MonkeyPatch) -> None:
    """Offsets without a record count as lost (9)."""

    def passed(self: Task | Ingest, topic: str, offset: int) -> None:
        if offset > self.reading.offset(topic):
            self.truncated(topic, offset)

    patch.setattr(Task, "passed", passed)
    patch.setattr(Ingest, "passed", passed)


def damage_taken_for_garbage(patch: pytest.MonkeyPatch) -> None:
    """What cannot be read any more is refused, as if nobody ever could have read it (9)."""
    unreadable = Ingest.unreadable

    def refuse(self: Ingest, topic: str, first: int, stop: int, why: str, _: bool) -> None:
        unreadable(self, topic, first, stop, why, is_intact=True)

    patch.setattr(Ingest, "unreadable", refuse)


def garbage_ends_everybodys_streams(patch: pytest.MonkeyPatch) -> None:
    """What nobody ever could read begins a new era, as if records were gone."""
    unreadable = Ingest.unreadable

    def lost(self: Ingest, topic: str, first: int, stop: int, why: str, _: bool) -> None:
        unreadable(self, topic, first, stop, why, is_intact=False)

    patch.setattr(Ingest, "unreadable", lost)


def forged_frames_are_taken(patch: pytest.MonkeyPatch) -> None:
    """A task believes whoever writes to its topics (35)."""
    patch.setattr(task, "trust", lambda *_: Trust.GENUINE)


def anybody_may_speak_for_the_system(patch: pytest.MonkeyPatch) -> None:
    """ERA, ROUTE and KILL are taken from anybody (35)."""
    patch.setattr(ingest, "trust", lambda *_: Trust.GENUINE)


def older_routes_count(patch: pytest.MonkeyPatch) -> None:
    """A ROUTE that is repeated takes effect again, though others came since (35)."""
    patch.setattr(ingest, "key_id", lambda _: 0)


def damaged_task_stops_the_claim(patch: pytest.MonkeyPatch) -> None:
    """A number that cannot be read is an error of the whole script."""
    text = script("claim").text
    check = "return type(text) == 'string' and string.match(text, '^%d+$') and tonumber(text)"
    assert check in text
    function = _compiled(text.replace(check, "return tonumber(text) + 0"))
    patch.setitem(simulated._lua()._scripts, "claim", function)


def _compiled(text: str) -> object:
    return simulated._lua()._runtime.execute(
        f"return function(redis, KEYS, ARGV) {text}\nend".encode()
    )


def kill_of_silence_whatever_was_said_since(patch: pytest.MonkeyPatch) -> None:
    """A stream is ended for its silence though it spoke before that was read (33)."""
    patch.setattr(ingest, "_is_silent", lambda flow, since: flow is not None and not flow.end)


def places_taken_by_streams_without_results(patch: pytest.MonkeyPatch) -> None:
    """How many streams are open follows from results, which a replay has at other times (32)."""
    check = Ingest._check_room

    def counted(self: Ingest, data: Data) -> None:
        by_log, self._names.n_open = self._names.n_open, len(self._flows)
        try:
            check(self, data)
        finally:
            self._names.n_open = by_log

    patch.setattr(Ingest, "_check_room", counted)


def held_records_in_no_checkpoint(patch: pytest.MonkeyPatch) -> None:
    """What waits for a lesser sequence number is lost with its owner (20)."""
    freeze = Flow.freeze

    def without(self: Flow) -> list[Any]:
        saved = freeze(self)
        saved[9] = []
        return saved

    patch.setattr(Flow, "freeze", without)


def open_streams_told_to_be_over(patch: pytest.MonkeyPatch) -> None:
    """Ingest tells that all numbers are over, also those of open streams (7)."""
    runs = Over.runs
    patch.setattr(Over, "runs", lambda self, alive, stop: runs(self, (), stop))


def superseded_in_silence(patch: pytest.MonkeyPatch) -> None:
    """A new era ends streams without a word, but by the tasks that have them (1)."""
    patch.setattr(Ingest, "_supersede", Ingest._close)
    patch.setattr(Superseded, "late", lambda *_: ())


def unnumbered_in_silence(patch: pytest.MonkeyPatch) -> None:
    """What was read before it was known that the log is not whole is passed over (1)."""
    patch.setattr(Unnumbered, "take", lambda *_: ())


@dataclass(frozen=True)
class Bug:
    """`shapes` and `faults` bring it out, within `n_seeds` of each shape."""

    plant: Plant
    shapes: tuple[str, ...]
    faults: tuple[str, ...] | None
    n_seeds: int = 150
    fatal: str = ""

    def draw(self, seed: int, shape: str) -> Plan:
        return draw(seed, shape=shape, faults=self.faults, fatal=self.fatal)


BUGS = (
    Bug(checkpoint_before_acknowledgement, ("chain",), ("crash after commit",)),
    Bug(no_ended_set, ("chain",), CRASHES),
    Bug(positions_taken_at_commit, ("chain",), CRASHES),
    Bug(positions_of_the_latest_read, ("join",), CRASHES),
    Bug(no_duplicate_check_on_one_edge, ("join",), ("echo", "crash")),
    Bug(snapshot_without_a_cursor, ("chain",), CRASHES),
    Bug(dirty_set_cleared_early, ("chain",), CRASHES),
    Bug(no_token_and_no_number, ("chain",), ("commit lost",)),
    Bug(abort_not_counted, ("chain",), ("crash after abort",), fatal="poison"),
    Bug(full_inbox_pauses, ("skip", "join"), ()),
    Bug(batches_without_routes, ("late",), ()),
    Bug(new_era_without_its_record, ("chain",), ()),
    Bug(any_checkpoint_ends_a_suspicion, ("group-loop", "skip"), ("pause",), fatal="deadly"),
    Bug(survival_untold, ("chain",), ("die out",)),
    Bug(deadly_record_taken_again, ("chain",), (), fatal="unreadable"),
    Bug(accusation_forgotten, ("chain",), (), fatal="deadly"),
    Bug(markers_waited_for, ("chain",), ("markers",)),
    Bug(markers_taken_for_a_gap, ("chain",), ("markers",)),
    Bug(damage_taken_for_garbage, ("chain",), ("damage",)),
    Bug(garbage_ends_everybodys_streams, ("chain",), ("garbage",)),
    Bug(forged_frames_are_taken, ("chain",), (), fatal="forged"),
    Bug(anybody_may_speak_for_the_system, ("chain",), (), fatal="forged"),
    Bug(older_routes_count, ("late", "late-prefix"), (), 300, fatal="forged"),
    Bug(damaged_task_stops_the_claim, ("chain",), ("turned bit",)),
    Bug(kill_of_silence_whatever_was_said_since, ("chain",), ()),
    Bug(places_taken_by_streams_without_results, ("chain",), ()),
    Bug(held_records_in_no_checkpoint, ("chain",), CRASHES, 400),
    Bug(open_streams_told_to_be_over, ("chain",), ()),
    Bug(superseded_in_silence, ("chain",), ("damage", "crash")),
    Bug(unnumbered_in_silence, ("chain",), ("damage", "turned bit"), 400),
)


def caught(bug: Bug) -> tuple[int, str]:
    """The first seed and shape of the selection that fails; -1 when none does."""
    for seed in range(bug.n_seeds):
        for shape in bug.shapes:
            if play(bug.draw(seed, shape)) is not None:
                return seed, shape
    return -1, ""


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.plant.__name__)
def test_planted_bug_is_caught(bug: Bug) -> None:
    with pytest.MonkeyPatch.context() as patch:
        bug.plant(patch)
        seed, shape = caught(bug)
    assert seed >= 0, f"no seed below {bug.n_seeds} shows it"
    assert play(bug.draw(seed, shape)) is None
