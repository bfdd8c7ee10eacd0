"""What befalls a world: each kind is done at its time, or armed to strike at the next occasion."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from loadtest.simulation.broker import Log, Place
from loadtest.simulation.checker import Violation
from loadtest.simulation.damage import turn_bit
from loadtest.simulation.host import Host
from loadtest.simulation.plan import EVICT
from router.store.calls import TaskId
from router.wire import StreamId
from workers.reading import Record

if TYPE_CHECKING:
    from loadtest.simulation.worker import Worker
    from loadtest.simulation.world import World

__all__ = ["Faults"]

_N_BROKERS = 3
_MOST_KILLED = 8
"""Two owners that are not suspicious, three that are, and as many zombies. Where several streams of
a task are deadly, each of them may come between two deaths of another."""
_MOST_READ = 20
"""As many, of whom those that run alone name a run of records first; and another fault may end one
with nothing in hand, then they begin anew."""


class Faults:
    """Does the faults of a plan, and tells the checker which of them excuse a lost stream."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._draw = world.clock.draw
        self.armed: list[str] = []
        self.n = 0
        self.store_forgot = False
        self._unsaved: set[TaskId] = set()
        self._n_killed: dict[tuple[TaskId, StreamId], int] = {}
        self._n_read: dict[tuple[TaskId, str, int], int] = {}
        self._corrupted = False
        self._damaged = False
        self._truncated = False
        self._kinds: Mapping[str, Callable[[], None]] = {
            "crash": self._crash, "die out": self._die_out, "pause": self._pause,
            "hand over": self._hand_over,
            "cut off": self._cut_off, "astray": self._astray, "outage": self._outage,
            "failover": lambda: self.failover(1 + self._draw(4)), "store lost": self._lose_store,
            "clock jump": self._jump, "corrupt": self._corrupt, "truncate": self._truncate,
            "leader change": self._change_leaders, "echo": self._echo,
            "seek back": self._seek_back, "markers": self._mark, "garbage": self._litter,
            "damage": self._damage, "turned bit": self._turn_bit, EVICT: self._evict,
        }  # fmt: skip

    def do(self, kind: str) -> None:
        """A kind without an action of its own waits for its occasion."""
        self.n += 1
        action = self._kinds.get(kind)
        if action is None:
            self.armed.append(kind)
        else:
            action()

    # ---- what saves a task that the store has lost ----------------------------------------------

    def saved(self, task: TaskId) -> None:
        self._unsaved.discard(task)

    def died(self, host: Host) -> None:
        if host.task in self._unsaved:
            self._world.checker.excuse(host.task.partition, "store lost")

    def killed(self, host: Host, stream: StreamId) -> None:
        """A window takes its process with it; it must not tour the spares (28)."""
        key = (host.task, stream)
        self._world.checker.slow.add(host.task.partition)
        self._n_killed[key] = self._n_killed.get(key, 0) + 1
        if self._n_killed[key] > _MOST_KILLED * len(self._n_killed) and not self.store_forgot:
            raise Violation(f"stream {stream} has killed {self._n_killed[key]} owners of {host}")

    def killed_by_record(self, host: Host, record: Record) -> None:
        """A record takes its process with it, as often as it takes to find it (28)."""
        key = (host.task, record.topic, record.offset)
        self._n_read[key] = self._n_read.get(key, 0) + 1
        if self._n_read[key] > _MOST_READ and not self.store_forgot:
            raise Violation(f"{record.topic}@{record.offset} has killed {_MOST_READ} of {host}")

    def refused(self, host: Host) -> None:
        """A record is passed over: whoever is in it ends with the gap (9)."""
        self._world.checker.excuse(host.task.partition, "refused")

    # ---- workers ------------------------------------------------------------------------------

    def _victim(self) -> "Worker | None":
        alive = [w for w in self._world.workers if w.is_alive and not w.book.is_stopping]
        return alive[self._draw(len(alive))] if alive else None

    def _crash(self) -> None:
        worker = self._victim()
        if worker is not None:
            worker.crash()

    def _die_out(self) -> None:
        """Every process dies at once, as when a machine is switched off."""
        for worker in list(self._world.workers):
            worker.crash()

    def _hand_over(self) -> None:
        worker = self._victim()
        if worker is not None:
            worker.stop()
            self._world.clock.after(1 + self._draw(40), self._world.start_worker)

    def _pause(self) -> None:
        """Stopped like by SIGSTOP: it comes back as a zombie if that took longer than a lease."""
        worker = self._victim()
        if worker is not None:
            self._note(f"{worker.name} is paused")
            worker.paused_until = self._until(3 * self._world.plan.ttl_ms)
            self._world.clock.after(10 + self._draw(40), self._world.start_worker)

    def _cut_off(self) -> None:
        worker = self._victim()
        if worker is not None:
            self._note(f"{worker.name} is cut off from the broker")
            worker.cut_off_until = self._until(2 * self._world.plan.ttl_ms)

    def _astray(self) -> None:
        worker = self._victim()
        if worker is not None:
            self._note(f"{worker.name} is cut off from the store")
            worker.astray_until = self._until(3 * self._world.plan.ttl_ms)

    def _until(self, at_most: int) -> int:
        return self._world.clock.now + self._draw(at_most)

    # ---- the store ----------------------------------------------------------------------------

    def _outage(self) -> None:
        self._note("the store is away")
        self._world.outage_until = self._until(2 * self._world.plan.ttl_ms) + 5

    def _jump(self) -> None:
        self._note("the store's clock jumps")
        by = self._draw(5 * self._world.plan.ttl_ms)
        self._world.clock_skew += by if self._draw(2) else -by

    def failover(self, n_lost: int) -> None:
        lost = self._world.store.lose_writes(n_lost)
        self._note(f"the store fails over and loses {lost} writes")
        self._another_server()

    def _lose_store(self) -> None:
        """Everything is gone; what no living owner holds cannot come back."""
        world = self._world
        self._note("the store loses everything")
        world.store.lose_everything()
        world.deployment.lose_keys()
        held = {t for w in world.workers if w.is_alive for t in w.hosts}
        for task in world.deployment.tasks():
            self._unsaved.add(task)
            if task not in held:
                world.checker.excuse(task.partition, "store lost")
        self._another_server()

    def _another_server(self) -> None:
        """The store knows less than it did: what it points to may have been truncated."""
        self.store_forgot = True
        self._excuse_older_positions()
        self._world.store.replid = self._world.new_token().rjust(40, "0")
        self._world.clock.after(3, self._world.deployment.again)

    def _excuse_older_positions(self) -> None:
        if self._truncated:
            for partition in range(self._world.plan.n_partitions):
                self._world.checker.excuse(partition, "truncated")

    def _corrupt(self) -> None:
        """Bytes of one version of one thing rot, and its owner dies."""
        owned = [h for w in self._world.workers if w.is_alive for h in w.hosts.values()]
        if not owned:
            return
        host = owned[self._draw(len(owned))]
        references = self._references(host.task)
        which = self._draw(len(references))
        current, previous = references[which]
        both = self._draw(4) == 0
        if not current:
            return
        self._note(f"blob {which} of {host} rots{', both versions' if both else ''}")
        for key in (current, previous) if both else (current,):
            self._rot(key)
        if both or not previous or (host.claimed.kind == "ingest" and which):
            self._world.checker.excuse(host.task.partition, "corrupt")
        self._corrupted = True
        self.store_forgot = True
        self._excuse_older_positions()
        host.worker.crash()

    def _turn_bit(self) -> None:
        """One bit of anything that the store holds turns over; perhaps an owner dies soon after."""
        world = self._world
        what = turn_bit(world.store, self._draw)
        if what is None:
            return
        self._note(f"a bit of {what} turns over")
        for partition in range(world.plan.n_partitions):
            # What one bit costs has its own name; who falls back twice may miss what he needs.
            world.checker.excuse(partition, "bits turned" if self._damaged else "bit turned")
        self._damaged = True
        self._corrupted = True
        self.store_forgot = True
        self._excuse_older_positions()
        world.clock.after(1 + self._draw(40), world.deployment.mend)
        if self._draw(2):
            world.clock.after(self._draw(20), self._crash)

    def _evict(self) -> None:
        """The store is short of memory and drops what it likes; often every process dies, too."""
        world = self._world
        share = (10, 30, 60)[self._draw(3)]
        gone = [key for key in sorted(world.store.dump()) if self._draw(100) < share]
        self._note(f"the store evicts {', '.join(key.decode() for key in gone)}")
        for key in gone:
            world.store.command("UNLINK", key)
        for partition in range(world.plan.n_partitions):
            for why in ("store lost", "corrupt", "bit turned", "bits turned"):
                world.checker.excuse(partition, why)
        self._damaged = self._corrupted = self.store_forgot = True
        self._excuse_older_positions()
        if self._draw(3):
            self._die_out()
        world.clock.after(3, world.deployment.mend)
        world.clock.after(3 + self._draw(40), world.deployment.again)

    def _references(self, task: TaskId) -> list[tuple[bytes, bytes]]:
        """The keys of the current and the previous version: of the head, then of each stream."""
        prefix = f"snn:{{p{task.partition}}}:"
        command: Callable[..., Any] = self._world.store.command
        heads = command("HMGET", f"{prefix}head:{task}", "current", "previous")
        found = [(heads[0] or b"", heads[1] or b"")]
        for reference in command("HGETALL", f"{prefix}streams:{task}")[1::2]:
            _, current, previous = reference.split(b"|")
            found.append((current, previous))
        return found

    def _rot(self, key: bytes) -> None:
        store = self._world.store
        data = store.command("GET", key) if key else None
        if isinstance(data, bytes):
            store.command("SET", key, data[: len(data) // 2] + b"?", "PX", 10**12)

    # ---- the broker ---------------------------------------------------------------------------

    def _change_leaders(self) -> None:
        """A broker dies with what it had not replicated; others lead its logs after a while."""
        away_ms = 5 + self._draw(40)
        places = self._world.broker.change_leaders(away_ms, self._draw(_N_BROKERS), _N_BROKERS)
        self._note(f"{len(places)} logs change their leader")

    def _echo(self) -> None:
        """Records of one internal topic come again, as from a zombie."""
        logs = [g for p, g in self._world.broker.logs.items() if _is_internal(p) and g.legible()]
        if not logs:
            return
        log = logs[self._draw(len(logs))]
        records = log.legible()
        first = self._draw(len(records))
        self._note(f"{log.place.topic} hears its records from {records[first].offset} on again")
        for record in records[first : first + 1 + self._draw(4)]:
            self._world.broker.append(
                log.place.topic, record.key, log.place.partition, record.value, record.seal
            )

    def _seek_back(self) -> None:
        worker = self._victim()
        for host in worker.hosts.values() if worker is not None else ():
            host.seek_back()

    def _any_log(self) -> Log | None:
        logs = list(self._world.broker.logs.values())
        return logs[self._draw(len(logs))] if logs else None

    def _mark(self) -> None:
        """A transaction of somebody else ends here: offsets that nobody is given, and no loss."""
        if (log := self._any_log()) is not None:
            for _ in range(1 + self._draw(2)):
                self._note(f"{log.place.topic}/{log.place.partition}@{log.end} is a marker")
                self._world.broker.append_blank(log, unreadable=False)

    def _litter(self) -> None:
        """Somebody appends to an input what nobody can read: it is refused, and nobody is hurt."""
        logs = [g for p, g in self._world.broker.logs.items() if p.topic.startswith("snn.in.")]
        if logs:
            log = logs[self._draw(len(logs))]
            self._note(f"{log.place.topic}/{log.place.partition}@{log.end} is garbage")
            self._world.broker.append_blank(log, unreadable=True)

    def _damage(self) -> None:
        """A record rots in its log, be it read or not: to who still needs it, it is gone."""
        logs = [g for g in self._world.broker.logs.values() if g.legible() and g.end > g.start]
        if not logs:
            return
        log = logs[self._draw(len(logs))]
        n = log.end - log.start
        offset = log.end - 1 - self._draw(min(n, 2) if self._draw(2) else n)  # maybe unread yet
        if not log.holds(log.records[offset]) or self._is_of_first_era(log.place, offset):
            return
        self._note(f"{log.place.topic}/{log.place.partition}@{offset} of {log.end} rots")
        log.unreadable[offset] = False
        self._lost_from(log, offset + 1)

    def _is_of_first_era(self, place: Place, offset: int) -> bool:
        """Whether it is an input without an era, or lies before the first one, which counts from
        the beginning, as far as whoever adopts it can read: what that is nobody else can say, if it
        rots meanwhile."""
        name = place.topic.removeprefix("snn.in.")
        log = self._world.inputs.get((name, place.partition))
        if log is None:
            return False
        return not log.era or (not log.predecessor and offset <= log.era_at)

    def _truncate(self) -> None:
        """Retention takes the older part of one log, be it read or not."""
        logs = [g for g in self._world.broker.logs.values() if g.end > g.start]
        if not logs:
            return
        log = logs[self._draw(len(logs))]
        log.start += 1 + self._draw(log.end - log.start)
        self._note(f"{log.place.topic}/{log.place.partition} begins at {log.start} of {log.end}")
        self._lost_from(log, log.start)

    def _lost_from(self, log: Log, stop: int) -> None:
        """Records below `stop` are gone: who has to read them again is excused."""
        self._truncated = True
        if self._corrupted or stop > self._safe(log.place):
            self._world.checker.excuse(log.place.partition, "truncated")
            # Who begins behind the gap has caught up with a log that kills nobody: the suspicion
            # is over, and comes anew when ingest sends the window again.
            for task, stream in list(self._n_killed):
                if task.partition == log.place.partition:
                    del self._n_killed[task, stream]

    def _safe(self, place: Place) -> int:
        """The lowest position that anybody may read this log from again."""
        world = self._world
        safe = world.broker.log(*place).end
        for task, spec in world.deployment.specs():
            if task.partition == place.partition and place.topic in spec.topics:
                key = f"snn:{{p{place.partition}}}:pos:{task}"
                (known,) = world.store.command("HMGET", key, place.topic)  # type: ignore[misc]
                safe = min(safe, int(known.split(b"|")[0]) if known else 0)  # type: ignore[union-attr]
        for worker in world.workers:
            for host in worker.hosts.values():
                if host.task.partition == place.partition and place.topic in host.at:
                    safe = min(safe, host.at[place.topic])
        return safe

    def _note(self, text: str) -> None:
        self._world.note(text)


def _is_internal(place: Place) -> bool:
    return place.topic.startswith(("snn.spikes.", "snn.out."))
