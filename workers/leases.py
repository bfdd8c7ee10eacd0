"""Which lease calls are due, and what their replies mean, without I/O (PROTOCOL 25 to 29).

A worker asks four things of the store, per partition: to *renew* what it holds (which also says
that it is alive), to *claim* what is free, to be given a task it *wants* of a loaded worker, and to
*release* what it hands over. The book says when (`due`), reads the answers (`replied`, `failed`)
and gives events to act on. Times are milliseconds of the caller's clock and only set the pace:
whether a lease holds is decided by the store, on its own clock.

A lease is about liveness, not safety: an owner that cannot reach the store goes on computing, and
the commit script refuses it when another worker has the task by then.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

from router.store import calls
from router.store.calls import Call, Claimed, ClaimReply, Info, Lease, RenewOutcome, TaskId

__all__ = [
    "Granted",
    "LeaseBook",
    "LeaseCall",
    "LeaseEvent",
    "Lost",
    "Regained",
    "Suspicious",
    "Wanted",
]

_UNBOUNDED = 1 << 40
"""A capacity that no sum of costs reaches, and that Lua's numbers hold exactly."""
_OVERHEAD = 1 << 18
"""What a task loads a worker with beside its cost, in neurons plus synapses: to read, write and
commit takes a millisecond or two of processor per micro-batch, however little is computed (29)."""
_HELD_BACK_MS = 10
"""How long a worker waits before the next claim, for each task it has: all are to get a share."""


class Granted(NamedTuple):
    """A task is ours now: load its checkpoint and run it."""

    claimed: Claimed


class Regained(NamedTuple):
    """The store had forgotten our claim; the task is ours again, under this token (27).

    Keep its state and write a full checkpoint.
    """

    task: TaskId
    token: str


class Lost(NamedTuple):
    """The task is another worker's: drop it, without a checkpoint."""

    task: TaskId


class Wanted(NamedTuple):
    """Another worker should have the task: checkpoint, stop it, then call `release` (29).

    Given at each renewal until then, so that one who cannot give it yet is asked again.
    """

    task: TaskId


class Suspicious(NamedTuple):
    """The task needs a process of its own, which the caller is to start (28)."""

    task: TaskId


LeaseEvent: TypeAlias = Granted | Regained | Lost | Wanted | Suspicious


class LeaseCall(NamedTuple):
    """A call to make now. Give its parsed reply to `replied`, or itself to `failed`."""

    verb: str
    partition: int
    call: Call[Any]
    leases: tuple[Lease, ...] = ()
    token: str = ""


@dataclass
class _Holding:
    """A lease of ours. `token` is what the store should show; `vanished`: it forgot the claim.

    `doubted`: another token stands there, perhaps that of a claim of ours that is under way.
    """

    cost: int
    token: str
    vanished: bool = False
    doubted: bool = False


@dataclass
class _Pace:
    """When each call of one partition is due next, which are under way, and how many tasks were
    given back that may still be free."""

    renew: int = 0
    claim: int = 0
    free: int = 0
    under_way: set[str] = field(default_factory=set)


class LeaseBook:
    """The leases of one worker. At most one call of a verb is under way per partition.

    `capacity` bounds the sum of costs held (None: unbounded), `limit` the tasks taken by one claim,
    `most` those held at once; `limits` are what a node has of each need of a task.
    `new_token` gives a random text that was never given before (25). With `alone`, the worker is
    one that was started for a suspicious task: it claims that one, and only that one, and stops
    when that is not to be had (28). What is free is claimed at once; while `is_cold`, no task is
    asked of another worker, which serves it better for now (29).
    """

    def __init__(
        self,
        worker: str,
        partitions: Sequence[int],
        ttl_ms: int,
        *,
        kinds: Collection[str],
        new_token: Callable[[], str],
        capacity: int | None = None,
        limit: int = 4,
        details: Mapping[str, Info] | None = None,
        format_version: int = 1,
        alone: TaskId | None = None,
        limits: Sequence[int | None] = (),
        most: int | None = None,
    ) -> None:
        self.worker = worker
        self.ttl_ms = ttl_ms
        self.details: Mapping[str, Info] = details or {}
        self.is_stopping = False
        self.is_cold = False
        self._kinds = tuple(sorted(kinds))
        self._new_token = new_token
        self._capacity = capacity
        self._limit = limit
        self._limits = tuple(limits)
        self._most = most
        self._format = format_version
        self._alone = alone
        self._had_alone = False
        homes = partitions if alone is None else [alone.partition]
        self._paces = {p: _Pace() for p in homes}
        self._held: dict[TaskId, _Holding] = {}
        self._giving: dict[TaskId, LeaseCall] = {}
        self._left: set[int] = set()
        self._told: dict[int, calls.WorkerInfo] = {}
        self._want_at: int | None = None
        self._want_in = 0

    # ---- what is held -------------------------------------------------------------------------

    @property
    def tasks(self) -> tuple[TaskId, ...]:
        """Tasks to run: claimed, and neither lost nor given back."""
        return tuple(self._held)

    def token(self, task: TaskId) -> str:
        """The token to commit with; raises KeyError for a task that is not held."""
        return self._held[task].token

    @property
    def load(self) -> int:
        """Cost of all tasks held."""
        return sum(h.cost for h in self._held.values())

    @property
    def is_over(self) -> bool:
        """After `stop`: whether everything is given back, and every record of us is gone."""
        return self.is_stopping and not self._giving and self._left == set(self._paces)

    # ---- what the host decides ----------------------------------------------------------------

    def release(self, task: TaskId) -> None:
        """Give the task back: its last checkpoint is committed, and it does not run any more."""
        held = self._held.pop(task, None)
        if held is not None:
            call = calls.release(task, held.token)
            self._giving[task] = LeaseCall("release", task.partition, call, token=held.token)

    def fail(self, task: TaskId, error: str) -> None:
        """Give the task back with an error: nobody claims it until it is deployed again."""
        held = self._held.pop(task, None)
        if held is not None:
            call = calls.fail_task(task, held.token, error)
            self._giving[task] = LeaseCall("fail", task.partition, call, token=held.token)

    def drop(self, task: TaskId) -> None:
        """Stop renewing: the task could not be run here, and its lease runs out by itself."""
        self._held.pop(task, None)

    def doubt(self, task: TaskId) -> None:
        """A checkpoint was refused by token: ask at once whether the task is lost or vanished."""
        self._paces[task.partition].renew = 0

    def released(self, task: TaskId, now_ms: int) -> None:
        """Another worker gave a task back: claim at once, who holds less before who holds more."""
        pace = self._paces.get(task.partition)
        if pace is not None:
            pace.free += 1
            pace.claim = min(pace.claim, now_ms + len(self._held))

    def stop(self) -> None:
        """Claim nothing any more, and leave each partition once nothing is held there."""
        self.is_stopping = True

    # ---- calls --------------------------------------------------------------------------------

    def due(self, now_ms: int) -> list[LeaseCall]:
        """The calls to make now; each counts as under way until `replied` or `failed`.

        Ask after every reply and event, and every twentieth of the time to live.
        """
        found: list[LeaseCall] = []
        if self._had_alone and not self._held:  # what it was started for is no longer here (28)
            self.stop()
        for task, call in self._giving.items():
            pace = self._paces[task.partition]
            verb = f"{call.verb} {task}"
            if verb not in pace.under_way:
                pace.under_way.add(verb)
                found.append(call)
        for partition, pace in self._paces.items():
            found += self._due_in(partition, pace, now_ms)
        found += self._due_want(now_ms)
        return found

    def _due_in(self, partition: int, pace: _Pace, now: int) -> list[LeaseCall]:
        found = []
        if self._may_leave(partition, pace):  # before the next renewal, which would put it off
            pace.under_way.add("leave")
            return [LeaseCall("leave", partition, calls.leave(partition, self.worker))]
        if self._is_due("renew", pace, pace.renew, now) and partition not in self._left:
            pace.renew = now + self.ttl_ms // 3
            found.append(self._renew(partition))
        if self._is_due("claim", pace, pace.claim, now) and self._may_claim(partition):
            pace.claim = now + self.ttl_ms // 4
            found.append(self._claim(partition))
        for call in found:
            pace.under_way.add(call.verb)
        return found

    def _due_want(self, now: int) -> list[LeaseCall]:
        """Ask for one task, in one partition at a time: loads elsewhere are known only as of the
        last renewals, so that asking everywhere at once would move tasks to and fro (29)."""
        if self._want_at is None:  # claim what is free before asking for what is not
            self._want_at = now + self.ttl_ms // 2
        if now < self._want_at or not self._may_want():
            return []
        if any({"want", "claim"} & pace.under_way for pace in self._paces.values()):
            return []
        self._want_at = now + self.ttl_ms // 2
        partitions = list(self._paces)
        self._want_in = (self._want_in + 1) % len(partitions)
        call = self._want(partitions[self._want_in])
        self._paces[call.partition].under_way.add("want")
        return [call]

    @staticmethod
    def _is_due(verb: str, pace: _Pace, at: int, now: int) -> bool:
        return at <= now and verb not in pace.under_way

    def _may_claim(self, partition: int) -> bool:
        if self._vanished(partition):
            return True
        if self.is_stopping or self._had_alone or self._free() <= 0:
            return False
        if self._capacity is None and self._most is None:
            return True
        # A bounded capacity is promised to one claim at a time.
        return not any("claim" in p.under_way for p in self._paces.values())

    def _may_want(self) -> bool:
        if self.is_stopping or self.is_cold or self._alone is not None:
            return False
        return self._free() > 0

    def _may_leave(self, partition: int, pace: _Pace) -> bool:
        held = any(t.partition == partition for t in (*self._held, *self._giving))
        return self.is_stopping and not held and partition not in self._left and not pace.under_way

    def _free(self) -> int:
        if self._most is not None and len(self._held) >= self._most:
            return 0
        return (_UNBOUNDED if self._capacity is None else self._capacity) - self.load

    def _take(self) -> int:
        """The most tasks that one claim may bring."""
        if self._most is None:
            return self._limit
        return max(0, min(self._limit, self._most - len(self._held)))

    def _elsewhere(self, partition: int) -> int:
        return sum(h.cost + _OVERHEAD for t, h in self._held.items() if t.partition != partition)

    def _vanished(self, partition: int) -> list[TaskId]:
        return [t for t, h in self._held.items() if h.vanished and t.partition == partition]

    def _renew(self, partition: int) -> LeaseCall:
        mine = ((t, h.token) for t, h in self._held.items() if t.partition == partition)
        leases = tuple(Lease(task, token) for task, token in mine)
        info = self._info(partition)
        call = calls.renew(partition, self.worker, self.ttl_ms, info, leases)
        return LeaseCall("renew", partition, call, leases)

    def _info(self, partition: int) -> calls.WorkerInfo:
        """What the partition is told of this worker; made anew when that is something new."""
        told, elsewhere = self._told.get(partition), self._elsewhere(partition)
        if told is None or (told.elsewhere, told.details) != (elsewhere, self.details):
            told = self._told[partition] = calls.WorkerInfo(
                capacity=_UNBOUNDED if self._capacity is None else self._capacity,
                kinds=self._kinds, elsewhere=elsewhere, details=self.details, limits=self._limits,
            )  # fmt: skip
        return told

    def _claim(self, partition: int) -> LeaseCall:
        token = self._new_token()
        gone = self._vanished(partition)
        closed = self.is_stopping or self._had_alone
        call = calls.claim(
            partition, self.worker, token, self.ttl_ms, kinds=self._kinds, capacity=self._free(),
            limit=0 if closed else self._take(), format_version=self._format, held=gone,
            alone=None if self._had_alone else self._alone, limits=self._limits,
        )  # fmt: skip
        leases = tuple(Lease(task, self._held[task].token) for task in gone)
        return LeaseCall("claim", partition, call, leases, token)

    def _want(self, partition: int) -> LeaseCall:
        call = calls.want(
            partition, self.worker, self.ttl_ms, kinds=self._kinds, capacity=self._free(),
            elsewhere=self._elsewhere(partition), overhead=_OVERHEAD, limits=self._limits,
        )  # fmt: skip
        return LeaseCall("want", partition, call)

    # ---- replies ------------------------------------------------------------------------------

    def replied(self, call: LeaseCall, reply: Any, now_ms: int) -> list[LeaseEvent]:
        """What a call's parsed reply means for the host."""
        pace = self._done(call)
        if call.verb == "renew":
            return self._renewed(call, reply, pace)
        if call.verb == "claim":
            return self._claimed(call, reply, pace, now_ms)
        if call.verb == "want":
            if reply is not None:  # it comes with the giver's next renewal and checkpoint
                self._want_at = now_ms + self.ttl_ms
        elif call.verb == "leave":
            self._left.add(call.partition)
        else:
            self._given(call)
        return []

    def failed(self, call: LeaseCall, now_ms: int) -> None:
        """Nobody knows whether the call was run. Everything is asked again when it is due."""
        pace = self._done(call)
        if call.verb == "claim":
            # What the claim took back from oblivion stands under its token, if it was run.
            for task, token in call.leases:
                held = self._held.get(task)
                if held is not None and held.token == token:
                    held.token, held.doubted = call.token, False
                    pace.renew = min(pace.renew, now_ms)

    def _done(self, call: LeaseCall) -> _Pace:
        pace = self._paces[call.partition]
        pace.under_way.discard(call.verb)
        if call.verb in ("release", "fail"):
            for task, giving in self._giving.items():
                if giving is call:
                    pace.under_way.discard(f"{call.verb} {task}")
        return pace

    def _given(self, call: LeaseCall) -> None:
        for task, giving in list(self._giving.items()):
            if giving is call:
                del self._giving[task]

    def _renewed(
        self, call: LeaseCall, outcomes: Mapping[TaskId, RenewOutcome], pace: _Pace
    ) -> list[LeaseEvent]:
        events: list[LeaseEvent] = []
        for task, token in call.leases:
            held = self._held.get(task)
            if held is None or held.token != token:  # given back or regained meanwhile
                continue
            outcome = outcomes[task]
            if outcome is RenewOutcome.LOST and held.vanished and "claim" in pace.under_way:
                held.doubted = True  # perhaps to that claim of ours: its reply tells
                continue
            if outcome is RenewOutcome.LOST:
                del self._held[task]
                events.append(Lost(task))
            elif outcome is RenewOutcome.VANISHED:
                held.vanished = True
                pace.claim = 0
            else:
                events += self._confirmed(task, held, outcome)
        return events

    def _confirmed(self, task: TaskId, held: _Holding, outcome: RenewOutcome) -> list[LeaseEvent]:
        events: list[LeaseEvent] = []
        if held.vanished:  # an earlier claim was run, though its reply was lost
            held.vanished = False
            events.append(Regained(task, held.token))
        if outcome is RenewOutcome.WANTED:
            events.append(Wanted(task))
        return events

    def _claimed(
        self, call: LeaseCall, reply: ClaimReply, pace: _Pace, now: int
    ) -> list[LeaseEvent]:
        pace.free = max(0, pace.free - len(reply.claimed)) if reply.claimed else 0
        events: list[LeaseEvent] = [Suspicious(task) for task in reply.suspicious]
        asked = dict(call.leases)
        for claimed in reply.claimed:
            held = self._held.get(claimed.task)
            if held is not None and claimed.task in asked:
                held.token, held.vanished, held.doubted = claimed.token, False, False
                events.append(Regained(claimed.task, claimed.token))
                continue
            self._held[claimed.task] = _Holding(claimed.cost, claimed.token)
            self._had_alone = self._alone is not None
            events.append(Granted(claimed))
        for task in asked:
            if task in self._held and self._held[task].doubted:
                del self._held[task]
                events.append(Lost(task))
        if reply.settling_ms:
            pace.claim = max(pace.claim, min(now + reply.settling_ms, now + self.ttl_ms))
        elif reply.claimed:  # there may be more; who has less goes first
            pace.claim = now + (1 if pace.free else _HELD_BACK_MS) * len(self._held)
        elif reply.expiry_ms is not None:  # its owner may be dead: be there when the lease is over
            pace.claim = min(pace.claim, now + reply.expiry_ms + 1)
        if self.is_stopping:
            self._return_unwanted(events)
        elif self._alone is not None and not (self._had_alone or reply.settling_ms):
            self.stop()  # somebody has the task; who is needed is told again (28)
        return events

    def _return_unwanted(self, events: list[LeaseEvent]) -> None:
        """A claim that was under way when `stop` was called is given back unseen."""
        for event in list(events):
            if isinstance(event, Granted):
                events.remove(event)
                self.release(event.claimed.task)
