"""One task in one worker, driven as `workers/hosted.py` drives it: read, step, send, checkpoint."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from loadtest.simulation.broker import Log
from loadtest.simulation.checker import Violation
from loadtest.simulation.numbers import DEADLY_SEED
from router.store.calls import Claimed, CommitOutcome, TaskId, write
from router.wire import Kind, WireError, decode_frame
from workers.hand import is_of_records, portions
from workers.reading import LogReplacedError, Record
from workers.tenancy import CommitPlan, Tenancy, TenancyLostError, TokenRefusedError
from workers.tenant import Feed, Halt, Tenant

if TYPE_CHECKING:
    from loadtest.simulation.worker import Worker

__all__ = ["Host"]

_AGAIN_MS = 3
_REFUSAL_MS = 200
_DEADLINES_MS = 100
"""How often a task at rest looks at its deadlines."""


class Host:
    """`at` is the next offset to fetch per topic; `is_clean`: there was nothing to commit."""

    def __init__(
        self, worker: "Worker", claimed: Claimed, tenant: Tenant, tenancy: Tenancy
    ) -> None:
        self.world = worker.world
        self.worker = worker
        self.claimed = claimed
        self.task: TaskId = claimed.task
        self.tenant = tenant
        self.tenancy = tenancy
        self.at: dict[str, int] = {}
        self.logs: list[Log] = []
        self.gone = False
        self.giving = False
        self._said_last = False
        self._is_stirred = True  # there may be something to send
        self.is_clean = False
        self.busy = False
        self._is_ingest = claimed.kind == "ingest"
        self._n_aborts = 0
        self._shown = ""
        self._reads_on_at = 0
        self._has_aborted = False
        self._dies_after_commit = False
        self._wake_at = -1
        self._next_tick = self.world.clock.now
        self._next_commit = self.world.clock.now

    # ---- taking over --------------------------------------------------------------------------

    def position(self) -> None:
        """Find the place in the logs, as workers/host.py does."""
        tenant, partition = self.tenant, self.task.partition
        self.at = tenant.start()
        ends = {}
        for topic in self.at:
            log = self.world.broker.log(topic, partition)
            ends[topic] = log.end
            tenant.reading.check_end(topic, log.end)
            if log.start > tenant.reading.offset(topic):
                tenant.truncated(topic, log.start)
        self.tenancy.replay_to(ends)
        self.subscribe()
        self.wake(0)

    def subscribe(self) -> None:
        self.at.update(self.tenant.take_seeks())
        topics = self.tenant.topics
        self.logs = [self.world.broker.log(topic, self.task.partition) for topic in topics]
        for log in self.logs:
            topic = log.place.topic
            if topic not in self.at:
                self.at[topic] = self.tenant.reading.offset(topic)
            self.world.read_by(log.place, self)

    def seek_back(self) -> None:
        """Another task of the same consumer needs older records: they come here again, too (6).

        What retention took before it was read stays to be told: nobody is sought past it.
        """
        for log in self.logs:
            topic = log.place.topic
            at, back = self.at[topic], self.world.clock.draw(4)
            self.at[topic] = min(at, max(log.start, min(at, log.end) - back))
        self.wake(1)

    def learn(self) -> None:
        """Look up which networks there are."""
        if not self.gone and self.world.deployment.has(self.task):
            self.is_clean = False
            self._is_stirred = True
            self.tenant.update(self.world.deployment.spec(self.task))  # type: ignore[attr-defined]
            self.subscribe()
            self.wake(1)

    # ---- at work ------------------------------------------------------------------------------

    def wake(self, delay: int) -> None:
        clock = self.world.clock
        at = clock.now + delay
        if self._wake_at < clock.now or at < self._wake_at:
            self._wake_at = at
            clock.after(delay, self._awake, at)

    def _awake(self, at: int) -> None:
        if self.gone or self._wake_at != at:
            return
        self._wake_at = -1
        if self.worker.defers(self.wake, 0):
            return
        try:
            again = self._turn()
        except LogReplacedError as error:
            raise Violation(f"{self}: {error}") from error
        if again:
            self.wake(_AGAIN_MS)
        elif self.giving or not (self.is_clean or self.tenancy.is_committing):
            self._wake_to_commit()
        elif self.tenant.n_streams or self._is_ingest:
            self.wake(_DEADLINES_MS)

    def _is_gone(self) -> bool:
        """Asked anew: what was done meanwhile may have ended the task, or its process."""
        return self.gone

    def _wake_to_commit(self) -> None:
        self.wake(1 if self.giving else max(1, self._next_commit - self.world.clock.now))

    def _turn(self) -> bool:
        """Whether there is more to do right away."""
        more = False
        if not self.giving:
            self._fetch()
            if self._is_gone():
                return False
            self._tick()
            more = not self.busy and self._work()
            if self._is_gone():
                return False
            self.tenancy.is_caught_up()
            more = more or self._has_unread()
        if self._is_stirred:
            self._is_stirred = False
            self._send()
        if not self.busy:
            self._checkpoint()
        return more

    def _tick(self) -> None:
        """Deadlines (17): an ingest's at every turn, a task's seldom."""
        now = self.world.clock.now
        if self._is_ingest or now >= self._next_tick:
            self._next_tick = now + _DEADLINES_MS
            self.tenant.tick(now / 1000)
            self._is_stirred = True

    def _fetch(self) -> None:
        """Deliver what has arrived: some topics now, some later."""
        clock = self.world.clock
        if self.worker.cut_off_until > clock.now:
            return
        paused = self.tenant.paused_topics
        for log in self.logs:
            topic = log.place.topic
            if self.at[topic] >= len(log.records) or topic in paused:
                continue
            if log.away_until <= clock.now and clock.draw(4) and not self._waits_for_commit():
                self._deliver(topic, log)
            if self.gone:
                return

    def _has_unread(self) -> bool:
        """Whether records are there that may be delivered, or could be but for a fault."""
        for log in self.logs:
            topic = log.place.topic
            if self.at[topic] < len(log.records) and topic not in self.tenant.paused_topics:
                return True
        return False

    def _deliver(self, topic: str, log: Log) -> None:
        tenant, at = self.tenant, self.at
        if at[topic] < log.start:
            tenant.truncated(topic, log.start)
            at[topic] = log.start
        last = min(log.end, at[topic] + self.world.plan.tuning.chunk)
        self._is_stirred = True
        if at[topic] < last:
            self.is_clean = False
        records, stop = log.fetch(at[topic], last)
        for portion in portions(self.claimed, records):
            if self.claimed.suspicious and not self._show(portion.hand):
                return
            if portion.error:
                self._refuse(portion.records[0], portion.error)
                return
            if self._fails() or self._is_deadly_to_read(portion.records):
                return
            if not self._feed(topic, portion.records):
                return
        if self._feed(topic, (), stop) and stop in log.unreadable:
            self._pass_over(log, stop)
        if is_of_records(self._shown):
            self._show("")

    def _feed(self, topic: str, records: Sequence[Record], stop: int | None = None) -> bool:
        """Hand records over, and say up to which offset they were all; whether it reads on."""
        feed = Feed(self.tenant, records, None if stop is None else (topic, stop))
        while (halt := feed.go()) is Halt.LOOK_UP and self.worker.learn_keys():
            self.learn()
        if feed.n_taken:
            self.at[topic] = records[feed.n_taken - 1].offset + 1
        if halt is None and stop is not None:
            self.at[topic] = stop
        self.at.update(feed.seeks)
        return halt is None

    def _pass_over(self, log: Log, offset: int) -> None:
        """Nobody can read what stands there: the task is told, and reads on behind it."""
        topic = log.place.topic
        self.at[topic] = offset + 1
        is_intact = log.unreadable[offset]
        self.tenant.unreadable(topic, offset, offset + 1, "no codec", is_intact)
        self.at.update(self.tenant.take_seeks())

    def _refuse(self, record: Record, error: str) -> None:
        """Pass it over; a task takes nothing more in before that is committed, if it can be."""
        self.world.note(f"{self}: {error}")
        self.world.faults.refused(self)
        self.tenant.refuse(record, error)
        self.at[record.topic] = max(self.at[record.topic], record.offset + 1)
        self.at.update(self.tenant.take_seeks())
        self._next_commit = self.world.clock.now
        self._reads_on_at = self.world.clock.now + _REFUSAL_MS

    def _waits_for_commit(self) -> bool:
        return self.tenant.is_held and self.world.clock.now < self._reads_on_at

    def _is_deadly_to_read(self, records: Sequence[Record]) -> bool:
        """Whether to take these records in takes the process with it (28)."""
        plan = self.world.plan
        if not plan.kills_readers or self.task.operator not in plan.deadly:
            return False
        at = self.tenant.reading.offset  # what lies before it is not looked into
        killers = [r for r in records if r.offset >= at(r.topic) and _is_deadly(r)]
        if killers:
            self.world.faults.killed_by_record(self, killers[0])
            self.worker.crash()
        return bool(killers)

    def _fails(self) -> bool:
        """Whether something is raised here that nobody expected: it ends this task alone."""
        if not self.world.strikes("task fails"):
            return False
        self.world.note(f"{self.worker.name} fails in {self}")
        self.world.faults.died(self)
        self.drop()
        store = self.world.store_of(self.worker)
        if store is not None:
            store.blame(self.task, self.tenancy.token, "MemoryError")
        self.worker.book.drop(self.task)
        self.worker.ask()
        return True

    def _work(self) -> bool:
        tenant, clock = self.tenant, self.world.clock
        for _ in range(4):
            work = tenant.work()
            if work is None:
                return False
            if self.claimed.suspicious and not self._show(self.claimed.shown(work.hand)):
                return False
            self.is_clean = False
            self._is_stirred = True
            if self._is_deadly(work):
                self.worker.crash()
                return False
            if self._fails():
                return False
            result = tenant.compute(work)
            took = clock.draw(self.world.plan.tuning.compute_ms + 1)
            if took:
                self.busy = True
                clock.after(took, self._computed, work, result)
                return False
            tenant.apply(work, result)
        return True

    def _is_deadly(self, work: Any) -> bool:
        """Whether stepping this work takes the process with it (28)."""
        plan = self.world.plan
        if plan.kills_readers or self.task.operator not in plan.deadly:
            return False
        windows = (w for each in work.rounds for w in each.windows)
        killers = [w for w in windows if w.seed == DEADLY_SEED and w.window == 1]
        if killers:
            self.world.faults.killed(self, killers[0].stream.id)
        return bool(killers)

    def _show(self, hand: str) -> bool:
        if hand == self._shown:
            return True
        store = self.world.store_of(self.worker)
        if store is None:
            self.wake(_AGAIN_MS)
            return False
        if not store.hand(self.task, self.tenancy.token, hand):
            self.worker.book.doubt(self.task)
            return False
        self._shown = hand
        return True

    def _computed(self, work: Any, result: Any) -> None:
        if self.gone or self.worker.defers(self._computed, work, result):
            return
        self.busy = False
        self._is_stirred = True
        self.tenant.apply(work, result)
        self.wake(0)

    # ---- sending ------------------------------------------------------------------------------

    def _send(self) -> None:
        for index, output in self.tenancy.take_outputs():
            self.is_clean = False
            self.worker.producer.send(self, index, output)

    def acknowledged(self, index: int) -> None:
        self.tenancy.acknowledged(index)
        self._plan()

    # ---- checkpoints --------------------------------------------------------------------------

    def _checkpoint(self) -> None:
        self._note_aborts()
        is_due = self.giving or self.world.clock.now >= self._next_commit
        if not is_due or self.tenancy.is_committing:
            return
        if self._said_last:
            self._given()
            return
        self._said_last = self.giving
        self._begin()

    def _begin(self) -> None:
        """Commit what there is; `is_clean` until something happens."""
        begun = self.tenancy.begin()
        if begun:
            self._send()
        self.is_clean = True
        if begun:
            self._next_commit = self.world.clock.now + self.world.plan.tuning.commit_every_ms
            self._plan()

    def _note_aborts(self) -> None:
        """A checkpoint right after an abort is the one that must not overtake it (14)."""
        n_aborts = self.tenant.counts["streams_aborted_total"]
        if n_aborts > self._n_aborts and "crash after abort" in self.world.faults.armed:
            self._has_aborted = True
            self.worker.producer.stall(10)
            self._next_commit = self.world.clock.now
        self._n_aborts = n_aborts

    def _plan(self) -> None:
        if not self.tenancy.is_committing:
            return
        plan = self.tenancy.plan(self.world.new_token())
        if plan is None:
            return
        if self.world.strikes("crash before commit"):
            self.worker.crash()
        self.world.clock.after(1 + self.world.clock.draw(2), self._write_blobs, plan)

    def _write_blobs(self, plan: CommitPlan) -> None:
        """They reach the store also when the worker is dead by now, or only some of them do."""
        world = self.world
        store = world.store_of(self.worker)
        if store is None:
            world.clock.after(3, self._finished, None)
            return
        blobs = plan.blobs
        if world.strikes("torn checkpoint"):
            blobs = blobs[: world.clock.draw(len(blobs) + 1)]
            world.note(f"{self.worker.name} writes {len(blobs)} of {len(plan.blobs)} blobs")
            if world.clock.draw(2):
                self.worker.crash()
        if blobs:
            store.run(write(blobs))
        world.clock.after(world.clock.draw(2), self._commit, plan)

    def _commit(self, plan: CommitPlan) -> None:
        """The store runs the commit; it may come from a worker that is dead by now."""
        world = self.world
        store = world.store_of(self.worker)
        if store is None:
            world.clock.after(3, self._finished, None)
            return
        outcome = store.run(plan.call)
        if world.trace is not None:
            number = plan.call.args[2]
            world.note(f"{self.worker.name} commits {self} #{number!s} {outcome.name}")
        if outcome is CommitOutcome.OK:
            world.faults.saved(self.task)
            if self._must_die():
                self.worker.crash()
                return
        if world.strikes("lost reply"):
            world.note("the reply is lost")
            world.clock.after(5, self._finished, None)
            return
        world.clock.after(world.clock.draw(3), self._finished, outcome)
        if outcome is CommitOutcome.OK and world.strikes("failover after commit"):
            world.faults.failover(1 + world.clock.draw(2) * (1 + len(plan.blobs)))
        if outcome is CommitOutcome.OK and world.strikes("commit lost"):
            world.faults.failover(1)
            self._dies_after_commit = True

    def _must_die(self) -> bool:
        """Whether a commit that was just done is the last thing this process does."""
        if self._dies_after_commit or self.world.strikes("crash after commit"):
            return True
        return self._has_aborted and self.world.strikes("crash after abort")

    def _finished(self, outcome: CommitOutcome | None) -> None:
        if self.gone or self.worker.defers(self._finished, outcome):
            return
        try:
            self.tenancy.finished(outcome)
        except TokenRefusedError:
            self.worker.book.doubt(self.task)
            self.worker.ask()
        except TenancyLostError as lost:
            self.world.note(f"{self.worker.name}: {lost}")
            self.drop()
            self.worker.book.drop(self.task)
            return
        self.worker.leave_if_settled(self)
        if self.giving or (not self.busy and self.tenant.work() is not None):
            self.wake(1)  # it may have waited for this (19)
        elif self.is_clean and outcome is CommitOutcome.OK:
            self._begin()  # what ended is deleted one commit later
        else:
            self.is_clean = False
            self._wake_to_commit()

    # ---- the end ------------------------------------------------------------------------------

    def give(self) -> None:
        """Hand the task over: one last checkpoint, then the release, however it went."""
        if not self.gone and not self.giving:
            self.world.note(f"{self.worker.name} hands {self} over")
            self.giving = True
            self.wake(0)

    def _given(self) -> None:
        self.drop()
        self.worker.book.release(self.task)
        self.worker.ask()

    def drop(self) -> None:
        if not self.gone:
            self.gone = True
            self.worker.hosts.pop(self.task, None)
            self.world.unread_by(self)

    def unrest(self) -> str:
        """Why the task is not at rest, "" when it is."""
        for log in self.logs:
            if self.tenant.reading.offset(log.place.topic) < log.end:
                return f"has not read {log.place.topic} to {log.end}"
        if self.busy or self.tenant.work() is not None:
            return "has windows to apply"
        if self.tenancy.is_committing or self.tenancy.n_unacknowledged:
            return "has a checkpoint or outputs under way"
        return "" if self.is_clean else "may have something to commit"

    def __str__(self) -> str:
        return short(self.task)


def _is_deadly(record: Record) -> bool:
    try:
        batches = decode_frame(record.value).batches
    except WireError:
        return False
    return any(b.seed == DEADLY_SEED and b.window == 1 and b.kind is Kind.SPIKES for b in batches)


def short(task: TaskId | None) -> str:
    return "" if task is None else f"{task.operator[:4]}/{task.group}/p{task.partition}"
