"""The right to run one task, and the checkpoint procedure under it, without I/O (PROTOCOL 20-23).

1. Take a snapshot: one instant of streams, inbox, ended set and read positions.
2. Wait until Kafka has acknowledged every output up to that instant.
3. Write the blobs under fresh keys, with a time to live.
4. Run the commit script: token, number, cursors and positions are checked there.
5. Committed: go on. Refused by number, or outcome unknown: the next one is full. Refused by token:
   the task is another worker's, or the store has lost its data: the next renewal says which.

The order is the argument: a commit before step 2 loses outputs that a crash takes with it.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from router.store.calls import (
    BlobWrite,
    Call,
    Change,
    CommitOutcome,
    Position,
    StoredCheckpoint,
    TaskId,
    blob_calls,
    commit,
)
from topologies.errors import SpikeRouterError
from workers.snapshot import VERSION, Snapshot, Stored
from workers.tenant import Output, Tenant

__all__ = [
    "BLOB_TTL_MS",
    "CommitPlan",
    "Tenancy",
    "TenancyLostError",
    "TokenRefusedError",
    "stored_of",
    "tenancy_of",
]

BLOB_TTL_MS = 60_000
"""How long blobs outlive a commit that never comes."""


class TenancyLostError(SpikeRouterError, RuntimeError):
    """The task belongs to another worker now, or cannot be continued here."""


class TokenRefusedError(TenancyLostError):
    """A checkpoint was refused by token: `LeaseBook.doubt` asks what that means.

    LOST: drop the task. VANISHED: keep it, its state may be the only one left (27); once the lease
    is regained, `Tenancy.regained` takes the new token.
    """


class CommitPlan(NamedTuple):
    """Steps 3 and 4: write `blobs`, then run `call`."""

    blobs: tuple[BlobWrite, ...]
    call: Call[CommitOutcome]


class Tenancy:
    """Drives one tenant: counts what was sent and acknowledged, and when to checkpoint."""

    def __init__(
        self,
        task: TaskId,
        token: str,
        tenant: Tenant,
        number: int,
        format_version: int = VERSION,
        fields: Iterable[str] | None = None,
    ) -> None:
        """`number` and `format_version` are those of the stored checkpoint, 0 and any for none;
        `fields` are the streams that it holds, None where nobody looked.

        One in another format is replaced as a whole: who reads this release's formats only must
        find no blob of another one once the checkpoint says so.
        """
        self.task = task
        self.token = token
        self.tenant = tenant
        self.number = number
        self.full = number == 0 or format_version != VERSION or tenant.found_damage
        self._mends = tenant.found_damage
        self._fields = None if fields is None else set(fields)
        self.n_commits = 0  # since it had caught up
        self._n_taken = 0
        self._acked_ahead: set[int] = set()
        self._n_acked = 0
        self._pending: Snapshot | None = None
        self._survived = False
        self._keeps_nothing = False
        self._planned = False
        self._replay_to: dict[str, int] = {}
        self._replayed_at: int | None = None

    def regained(self, token: str) -> None:
        """The store had forgotten the claim: go on under a new token, with a full checkpoint."""
        self.token = token
        self.full = True

    # ---- outputs ------------------------------------------------------------------------------

    def take_outputs(self) -> list[tuple[int, Output]]:
        """What is to be sent, each with the index to acknowledge it by."""
        outputs = self.tenant.take_outputs()
        if not outputs:
            return []
        first = self._n_taken
        self._n_taken += len(outputs)
        return list(enumerate(outputs, first))

    def acknowledged(self, index: int) -> None:
        """Kafka has output `index`. They may come in any order; only the run from 0 counts."""
        self._acked_ahead.add(index)
        while self._n_acked in self._acked_ahead:
            self._acked_ahead.remove(self._n_acked)
            self._n_acked += 1

    @property
    def n_unacknowledged(self) -> int:
        return self._n_taken - self._n_acked

    # ---- replay -------------------------------------------------------------------------------

    def replay_to(self, ends: Mapping[str, int]) -> None:
        """The topics' ends at the claim: up to them, windows count as replayed."""
        self._replay_to = {t: end for t, end in ends.items() if t in self.tenant.topics}
        self.tenant.replaying = not self.is_caught_up()

    def is_caught_up(self) -> bool:
        """Whether everything that lay in the log at the claim has been read and applied."""
        if not self._replay_to and not self.tenant.replaying:
            return True
        reading = self.tenant.reading
        left = {t: end for t, end in self._replay_to.items() if reading.offset(t) < end}
        if left:
            self._replay_to = left
            return False
        if self.tenant.replaying:
            applied = self.tenant.counts["windows_applied_total"]
            if self._replayed_at is None:
                self._replayed_at = applied + self.tenant.n_waiting
            has_work = self.tenant.is_held or self.tenant.work() is not None
            if applied < self._replayed_at and has_work:
                return False
            self.tenant.replaying = False
        self._replay_to = {}
        return True

    # ---- checkpoint ---------------------------------------------------------------------------

    @property
    def is_committing(self) -> bool:
        return self._pending is not None

    def begin(self) -> bool:
        """Step 1. False when one is under way, or there is nothing to write.

        An owner that has caught up writes one in any case, of no stream perhaps. The likely
        mistake: to leave that out, so that a task at rest stays under suspicion for ever (28).
        """
        if self._pending is not None:
            return False
        self._survived = self.is_caught_up()
        # Nothing may have changed since the owner before. That this one lives is news (28).
        is_news = self._survived and not self.n_commits
        self._pending = self.tenant.snapshot(self.full, is_news)
        self._planned = False
        return self._pending is not None

    def plan(self, nonce: str) -> CommitPlan | None:
        """Steps 3 and 4, once step 2 is over; given once. `nonce` is random and never reused."""
        snapshot = self._pending
        if snapshot is None or self._planned or self._n_acked < snapshot.n_outputs:
            return None
        self._planned = True
        contents = [snapshot.head, *(blob for _, _, blob in snapshot.changed)]
        blobs = blob_calls(self.task.partition, nonce, contents, BLOB_TTL_MS)
        changed = [
            Change(field, cursor, blob.key)
            for (field, cursor, _), blob in zip(snapshot.changed, blobs[1:], strict=True)
        ]
        call = commit(
            self.task, self.token, self.number + 1, full=snapshot.full, head=blobs[0].key,
            positions={t: Position(o) for t, o in snapshot.positions.items()}, changed=changed,
            deleted=self._deleted(snapshot), keep=self._keep(snapshot), format_version=VERSION,
            caught_up=self._survived, mends=self._mends and snapshot.full,
            entries=None if self._fields is None else len(self._fields),
        )  # fmt: skip
        return CommitPlan(blobs, call)

    def _deleted(self, snapshot: Snapshot) -> list[str]:
        written = {field for field, _, _ in snapshot.changed}
        return [field for field in snapshot.deleted if field not in written]

    def _keep(self, snapshot: Snapshot) -> tuple[str, ...]:
        """References that stay as they are, as far as the store has them."""
        if not snapshot.full or self._keeps_nothing:
            return ()
        gone = {*self._deleted(snapshot)}
        return tuple(
            f for f in snapshot.keep
            if f not in gone and (self._fields is None or f in self._fields)
        )  # fmt: skip

    def _count(self, snapshot: Snapshot) -> None:
        """The streams that the store holds once it has taken a snapshot."""
        changed = {field for field, _, _ in snapshot.changed}
        if snapshot.full:
            self._fields = {*self._keep(snapshot), *changed}
        elif self._fields is not None:
            self._fields.difference_update(self._deleted(snapshot))
            self._fields |= changed

    def finished(self, outcome: CommitOutcome | None) -> None:
        """Step 5. None: nobody knows whether it was written.

        Raises TokenRefusedError when it is doubtful whose the task is, and another TenancyLostError
        when it must be dropped. The tenancy stays usable after the former.
        """
        snapshot, self._pending = self._pending, None
        if snapshot is None:
            return
        self.number += 1
        if outcome is CommitOutcome.OK:
            self._count(snapshot)
            self.full = self._mends = self._keeps_nothing = False
            self.n_commits += self._survived
            self.tenant.committed(snapshot)
            return
        self.tenant.refused(snapshot)
        self.full = True
        self._keeps_nothing = outcome is CommitOutcome.BLOB_MISSING
        if outcome is CommitOutcome.TOKEN:
            raise TokenRefusedError(f"The store refused the token of task {self.task}.")
        if outcome is CommitOutcome.BACKWARDS:
            raise TenancyLostError(
                f"Task {self.task} is ahead in the store of what this worker holds: claim it again."
            )


def tenancy_of(task: TaskId, token: str, tenant: Tenant, stored: Stored | None) -> Tenancy:
    """The right to run a task whose tenant began with this checkpoint."""
    if stored is None:
        return Tenancy(task, token, tenant, 0, fields=())
    return Tenancy(task, token, tenant, stored.number, stored.format_version, stored.streams)


def stored_of(loaded: StoredCheckpoint | None) -> Stored | None:
    """A checkpoint as the store gives it, as the tenant takes it."""
    if loaded is None:
        return None
    streams = {f: (s.current, s.previous) for f, s in loaded.streams.items()}
    return Stored(
        number=loaded.number,
        heads=(loaded.head_current, loaded.head_previous),
        streams=streams,
        positions={topic: at.offset for topic, at in loaded.positions.items()},
        cursors={name: stream.cursor for name, stream in loaded.streams.items()},
        format_version=loaded.format_version,
    )
