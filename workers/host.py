"""A worker process: claims tasks, feeds them records, and gives them back.

Loops in one task group: `_lease` asks the store what the lease book says is due, and `_hear` is
told by it of tasks that are free; `_fetch` reads Kafka for all tasks at once; each task has its own
loops (`workers.hosted`); `_report` tells the store how it goes. What is decided is decided in the
pure modules.
"""

import asyncio
import json
import logging
import secrets
import time
from collections import Counter
from collections.abc import (
    Awaitable,
    Callable,
    Collection,
    Coroutine,
    Iterable,
    Mapping,
    Sequence,
)
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from itertools import count
from typing import Any, Final

from router.artifacts import ArtifactCache, open_artifacts
from router.bus import Bus, BusError, Place, Polled
from router.deploy import group_cost, load_networks, task_specs
from router.fetching import Unreadable
from router.keyrings import load_keys, restore_keys
from router.kinds import installed_extras, operator_kind, with_extras
from router.loops import Turn
from router.seals import Keyring, NoKeyError, Trust, seal_of
from router.settings import Settings
from router.status import task_detail
from router.store.calls import Call, Claimed, Info, TaskId, blame
from router.store.calls import TaskSpec as StoredSpec
from router.store.errors import StoreError, StoreUnavailable
from router.store.redis import RedisStore
from router.strays import DETAIL as STRAYS
from router.strays import details_of
from router.wire import clip_text
from topologies.compiled import CompiledNetwork, Group, Operator
from topologies.errors import SpikeRouterError
from topologies.stages.base import Encoder
from workers.children import Children
from workers.compute import EncoderEncode, KernelCompute
from workers.conformance import admit, largest_batch
from workers.device import DeviceCompute, open_device
from workers.eras import Fresh
from workers.hand import accused, portions
from workers.hosted import Hosted
from workers.ingest import Ingest
from workers.kernel import Kernel, UnfitProcessError, check_subnormals
from workers.leases import (
    Granted,
    LeaseBook,
    LeaseCall,
    LeaseEvent,
    Lost,
    Regained,
    Suspicious,
    Wanted,
)
from workers.mending import records_to_mend
from workers.pool import FairPool
from workers.reading import LogReplacedError, Record
from workers.shelf import KernelShelf
from workers.snapshot import NEWEST, Stored
from workers.spec import TaskSpec, ingest_spec, kernels_wanted, task_spec
from workers.strays import StrayWatch
from workers.task import Task
from workers.tenancy import TenancyLostError, stored_of
from workers.tenant import Feed, Halt, Limits, Tenant, trust

__all__ = ["Host", "HostError"]

_POLL_MS: Final = 20  # a task that is claimed waits so long for its first records
_TURN_S: Final = 0.02  # records are taken in for so long before the leases get their turn
_AT_ONCE: Final = 16  # records; one takes 20 us to some ms
_RETRY_S: Final = 0.1
_REPORT_S: Final = 0.25
_LEASE_PACE_S: Final = 0.02
_WATCH_S: Final = 1.0
_REREAD_TURNS: Final = 10  # of watching: then every manifest is read again
_STRAYS_S: Final = 5.0
_HEAR_S: Final = 60.0  # then the channel is opened anew: nothing tells that it went dead
_HAND_OVER_S: Final = 5.0
_COLD_S: Final = 10.0  # a worker that is to host very much may take longer to get warm
_MOST_PLACES: Final = 32  # whose faults are told: all of a broker's may have the same
_ALWAYS_TOLD: Final = (
    "checkpoints_total",
    "duplicates_dropped_total",
    "fenced_writes_total",
    "loop_failures_total",
    "tasks_failed_total",
    "windows_applied_total",
    "windows_replayed_total",
)
_log = logging.getLogger(__name__)


class HostError(SpikeRouterError, RuntimeError):
    """This worker cannot serve what it was given."""


@dataclass
class _Running:
    """A task here: its loops, and when each phase of taking it over was done (wall clock, ms)."""

    hosted: Hosted
    loops: asyncio.Task[None]
    times: dict[str, float]


class Host:
    """Runs tasks until `stop` is called; `alone` names the one task a process is started for."""

    def __init__(
        self, settings: Settings, store: RedisStore, bus: Bus, alone: TaskId | None = None
    ) -> None:
        self._settings = settings
        self._store = store
        self._bus = bus
        self._alone = alone
        self._kinds = with_extras(settings.hosted_kinds, installed_extras())
        self._book = LeaseBook(
            settings.worker_name, range(settings.partitions), settings.lease_ttl_ms,
            kinds=self._kinds, new_token=lambda: secrets.token_hex(8),
            capacity=settings.capacity, limit=1, format_version=NEWEST, alone=alone,
            limits=() if settings.node is None else settings.node.limits, most=settings.max_tasks,
        )  # fmt: skip
        self._book.is_cold = self._is_to_warm
        self._pool = FairPool(settings.compute_threads, initializer=check_subnormals)
        self._running: dict[TaskId, _Running] = {}
        self._starting: dict[TaskId, asyncio.Task[None]] = {}
        self._giving: set[TaskId] = set()
        self._readers: dict[Place, list[Hosted]] = {}
        self._networks: dict[str, CompiledNetwork] = {}
        self._keys = Keyring()
        # Whether keys, and networks, were looked up since the poll came that is handed over.
        self._has_new_keys = self._has_new_networks = False
        self._settled_at = 0.0  # until then the store may lack what others have not given back yet
        self._specs: list[StoredSpec] = []
        self._begins: dict[str, bytes | None] = {}
        self._encoders: dict[str, Operator] = {}
        self._generation = 0
        artifacts = open_artifacts(settings, store)
        cache = settings.artifact_cache
        self._artifacts = artifacts
        self._cache = None if cache is None else ArtifactCache(artifacts, cache)
        self._shelf = KernelShelf(
            self._cache or artifacts, self._admit, settings.warm_bytes,
            lambda operator: store.want_artifact(operator),
        )  # fmt: skip
        self._strays = StrayWatch(bus, settings.partitions)
        self._stopping = asyncio.Event()
        self._children = Children(self._stopping)
        self._rousing = asyncio.Event()
        self._changed = asyncio.Event()
        self._looking = asyncio.Lock()
        self._assignment_changed = False
        self._turn = Turn(_TURN_S)
        self._recoveries: list[dict[str, Any]] = []
        self.counts = Counter(dict.fromkeys(_ALWAYS_TOLD, 0))  # its own, and of tasks that left
        self._group = asyncio.TaskGroup()

    # ---- life ---------------------------------------------------------------------------------

    async def run(self) -> None:
        """Serve until `stop` is called and everything is handed over."""
        async with self._group:
            lease = self._group.create_task(self._always(self._lease))
            loops = (
                *(self._fetch, self._report, self._watch, self._warm, self._hear),
                self._look_for_strays,
            )
            helpers = [self._group.create_task(self._always(loop)) for loop in loops]
            await lease
            for helper in helpers:
                helper.cancel()
            for running in self._running.values():
                running.loops.cancel()
        self._shelf.close()
        self._pool.close()

    def stop(self) -> None:
        """Hand everything over, then return from `run`."""
        self._stopping.set()
        self._rousing.set()

    # ---- what fails ---------------------------------------------------------------------------

    async def _always(self, loop: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run a loop of the worker's own to its end; when it fails, that is told, and it begins
        anew."""
        while True:
            try:
                await loop()
            except Exception:  # noqa: BLE001 - nobody else would hear of it
                self.counts["loop_failures_total"] += 1
                _log.exception("%s failed and begins anew", loop.__qualname__)
                await asyncio.sleep(_RETRY_S)
            else:
                return

    async def _for(self, task: TaskId, work: Awaitable[None]) -> None:
        """Do what concerns one task."""
        try:
            await work
        except Exception as error:  # noqa: BLE001 - a task's top: it ends the task
            self._failed(task, error)

    def _failed(self, task: TaskId, error: BaseException) -> None:
        """What fails in one task ends that task, by name. Its lease runs out and its claims are
        counted on, so that it soon runs where it can end no other (28)."""
        if isinstance(error, UnfitProcessError):
            raise error
        is_ours = isinstance(error, SpikeRouterError)
        _log.error("task %s ends here: %r", task, error, exc_info=None if is_ours else error)
        self.counts["tasks_failed_total"] += 1
        if task in self._book.tasks:
            text = clip_text(f"{type(error).__name__}: {error}")
            self._group.create_task(self._tell(blame(task, self._book.token(task), text)))
            self._book.drop(task)
        self._drop(task, "it failed")
        self._rousing.set()

    async def _tell(self, call: Call[bool]) -> None:
        try:
            await self._store.run(call)
        except StoreError as error:
            _log.warning("the store is not told: %s", error)

    # ---- leases -------------------------------------------------------------------------------

    async def _lease(self) -> None:
        while not self._book.is_over:
            if self._stopping.is_set() and not self._book.is_stopping:
                self._begin_stop()
            for call in self._book.due(_now_ms()):
                self._group.create_task(self._ask(call))
            self._rousing.clear()
            try:
                async with asyncio.timeout(_LEASE_PACE_S):
                    await self._rousing.wait()
            except TimeoutError:
                continue

    async def _hear(self) -> None:
        """Claim what others give back when the store tells of it; claims come by themselves too."""
        while True:
            released = self._store.released(range(self._settings.partitions))
            try:
                async with asyncio.timeout(_HEAR_S), aclosing(released):
                    async for task in released:
                        self._book.released(task, _now_ms())
                        self._rousing.set()
            except TimeoutError:
                continue
            except StoreError as error:
                _log.debug("releases are not heard of: %s", error)
            await asyncio.sleep(_WATCH_S)

    def _begin_stop(self) -> None:
        self._book.stop()
        self._group.create_task(self._give_keys_back())
        for task in (*self._book.tasks,):
            self._group.create_task(self._for(task, self._hand_over(task)))

    async def _ask(self, call: LeaseCall) -> None:
        try:
            reply = await self._store.run(call.call)
            for event in self._book.replied(call, reply, _now_ms()):
                self._act(event)
        except Exception as error:  # noqa: BLE001 - whatever it was, the call is not under way
            if not isinstance(error, StoreError):
                self.counts["loop_failures_total"] += 1
            _log.warning("%s: %r", call.verb, error)
            await asyncio.sleep(_RETRY_S)
            self._book.failed(call, _now_ms())
        self._rousing.set()

    def _act(self, event: LeaseEvent) -> None:
        match event:
            case Granted(claimed):
                task = claimed.task
                starting = self._group.create_task(self._for(task, self._start(claimed)))
                self._starting[task] = starting
            case Regained(task, token):
                self._group.create_task(self._give_keys_back())
                if running := self._running.get(task):
                    running.hosted.tenancy.token = token
                    running.hosted.tenancy.full = True
            case Lost(task):
                self._drop(task, "another worker has it")
            case Wanted(task):
                running = self._running.get(task)
                # One that is still catching up would wait twice: it is wanted again soon.
                if running and running.hosted.caught_up.is_set() and task not in self._giving:
                    self._group.create_task(self._for(task, self._hand_over(task)))
            case Suspicious(task):
                self._group.create_task(self._for(task, self._children.run(task)))

    async def _look_up_keys(self) -> None:
        """Learn keys, and give back what the store lost: then it may lack others for a while."""
        if await restore_keys(self._store, self._keys):
            ttl_s = self._settings.lease_ttl_ms / 1000
            self._settled_at = asyncio.get_running_loop().time() + ttl_s

    async def _has_keys(self) -> bool:
        """Whether there are keys, which who knows them may have to give back first."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self._settings.lease_ttl_ms / 1000
        while not (await load_keys(self._store, self._keys)).keys:
            if loop.time() > until:
                return False
            await asyncio.sleep(_RETRY_S)
        return True

    async def _give_keys_back(self) -> None:
        """The store may have lost what it had: who claims a task next must know what its log was
        sealed by, and may claim none before a time to live is over (26, 35)."""
        while not self._book.is_over:
            try:
                await self._look_up_keys()
            except StoreError as error:
                _log.warning("keys are not written anew yet: %s", error)
                await asyncio.sleep(_RETRY_S)
            else:
                return

    def _doubt(self, task: TaskId) -> None:
        self._book.doubt(task)
        self._rousing.set()

    async def _hand_over(self, task: TaskId) -> None:
        """Checkpoint, stop, release; what takes too long is left to its deadline."""
        self._giving.add(task)
        try:
            await self._give(task)
        finally:
            self._giving.discard(task)

    async def _give(self, task: TaskId) -> None:
        if starting := self._starting.get(task):
            await asyncio.wait([starting])
        running = self._running.get(task)
        if running is not None:
            try:
                async with asyncio.timeout(_HAND_OVER_S):
                    await running.hosted.hand_over()
            except (TimeoutError, TenancyLostError, StoreError) as error:
                _log.warning("task %s was not handed over: %r", task, error)
                self._book.drop(task)
            self._drop(task, "handed over")
        self._book.release(task)
        self._rousing.set()

    # ---- taking a task over -------------------------------------------------------------------

    async def _start(self, claimed: Claimed) -> None:
        """Load the operator, restore the checkpoint, find the place in the logs, begin."""
        task = claimed.task
        times = {"idle_ms": claimed.idle_ms, "claimed": time.time() * 1000}
        try:
            tenant, stored = await self._restore(claimed)
            hosted = Hosted(
                self._settings, claimed, tenant, self._bus, self._store, self._pool, stored
            )
            await self._position(hosted)
        except LogReplacedError as error:
            _log.error("task %s cannot go on: %s", task, error)
            self._book.fail(task, str(error))
            return
        except (StoreError, BusError) as error:
            _log.error("task %s does not start here: %s", task, error)
            self._book.drop(task)
            return
        finally:
            is_latest = self._starting.get(task) is asyncio.current_task()
            if is_latest:
                del self._starting[task]
        if task not in self._book.tasks or not is_latest:
            return  # it was lost, or claimed anew, while it was restored
        token = self._book.token(task)
        if token != claimed.token:  # the store forgot the claim meanwhile (27)
            hosted.tenancy.regained(token)
        times["restored"] = time.time() * 1000
        hosted.doubt = lambda: self._doubt(task)
        loops = self._group.create_task(self._keep(hosted, times))
        self._running[task] = _Running(hosted, loops, times)
        self._reread(hosted)
        hosted.wake()

    async def _restore(self, claimed: Claimed) -> tuple[Tenant, Stored | None]:
        task = claimed.task
        stored = stored_of(await self._store.load(task))
        if not any(task.operator in n.summaries for n in self._networks.values()):
            await self._refresh()
        if not await self._has_keys():
            raise NoKeyError(
                f"Task {task} cannot tell whose records it reads: the store has lost the keys that"
                " they are sealed with. Deploy its networks again, which begins a new one."
            )
        limits = self._limits(claimed)
        begin = {} if stored is not None else await self._begin(task)
        kind = operator_kind(claimed.kind)
        if kind == "ingest":
            tenant: Tenant = await self._ingest(task, limits, begin, stored)
        else:
            tenant = await self._task(task, kind, limits, stored)
        for topic in tenant.topics:
            tenant.reading.skip_to(topic, begin.get(topic, 0))
        field, error = accused(claimed)
        if field:
            tenant.accuse(field, error)
        return tenant, stored

    async def _begin(self, task: TaskId) -> dict[str, int]:
        """Where a task without a checkpoint begins in its topics: where the first of its networks
        does. What lies below is of networks that were removed (31)."""
        begins = []
        for name in [n for n, net in self._networks.items() if task.operator in net.summaries]:
            data = await self._store.get_begin(name)
            begins.append({} if data is None else json.loads(data))
        topics = set(begins[0]).intersection(*begins[1:]) if begins else set()
        return {topic: min(b[topic][task.partition] for b in begins) for topic in topics}

    async def _ingest(
        self, task: TaskId, limits: Limits, begin: Mapping[str, int], stored: Stored | None
    ) -> Ingest:
        spec = ingest_spec(self._networks, task.operator, task.partition)
        operator = self._encoders[task.operator] = await self._shelf.operator(task.operator)
        encoder = operator.program.stages[-1]
        if not isinstance(encoder, Encoder):
            raise HostError(f"operator {task.operator} is no ingest: it has no encoder")
        place = Place(spec.in_topic, task.partition)
        first, last = (await self._bus.bounds([place]))[place]
        era = (int(time.time() * 1000) << 20) | secrets.randbits(20)
        fresh = Fresh(era, first, last, begin.get(spec.in_topic, 0))
        return Ingest(spec, EncoderEncode(spec, encoder), limits, fresh, stored, self._keys)

    async def _on_device(self, spec: TaskSpec) -> DeviceCompute:
        """A node of its own for a synapse group, programmed with it."""
        operator = await self._shelf.operator(spec.operator)
        node = open_device(self._settings.device)
        return await asyncio.to_thread(DeviceCompute, spec, operator, node)

    async def _task(self, task: TaskId, kind: str, limits: Limits, stored: Stored | None) -> Task:
        spec = task_spec(self._networks, task.operator, task.group, task.partition)
        if self._settings.device and kind == "synaptic":
            return Task(spec, await self._on_device(spec), limits, stored, self._keys)
        kernel = await self._shelf.get(task.operator, spec.group)
        most = largest_batch(kernel.operator.program, limits.max_batch)
        compute = KernelCompute(spec, kernel)
        tenant = Task(spec, compute, replace(limits, max_batch=most), stored, self._keys)
        compute.count_in(tenant.counts)
        return tenant

    def _admit(self, operator: Operator, group: Group) -> Kernel:
        """Every worker tests an operator against the reference before it serves it."""
        return admit(operator, group, self._settings.backend, self._settings.max_batch)

    async def _refresh(self) -> None:
        async with self._looking:  # an older answer must not come after a newer one
            await self._look_up_keys()
            removed = await self._store.removed_networks()
            found = await load_networks(self._store)
            # What is neither there nor removed, the store has forgotten: its owners remember (27).
            kept = {n: net for n, net in self._networks.items() if n not in removed}
            self._networks = {**kept, **found}
            self._specs = [s for n in self._networks.values() for s in task_specs(n, 1)]
            for name in found.keys() - self._begins.keys():
                self._begins[name] = await self._store.get_begin(name)
            if lost := kept.keys() - found.keys():
                await self._write_anew(lost)
        self._shelf.keep(self._deployed())

    async def _give_artifacts(self) -> None:
        """Write anew what another worker could not read, if it is held here (27)."""
        wanted = await self._store.wanted_artifacts()
        if not wanted:
            return
        done = await self._put_held(wanted)
        for operator in done | (wanted - self._deployed()):  # or a damaged name
            await self._store.want_no_more(operator)

    async def _put_held(self, wanted: Collection[str]) -> set[str]:
        """Write anew the artifacts of those operators that are held here; which they are."""
        held = {**self._encoders, **self._shelf.operators}
        mine = held.keys() & set(wanted)
        for operator in sorted(mine):
            await self._artifacts.put_artifact(operator, held[operator].to_bytes())
            _log.warning("the artifact of operator %s is written anew", operator)
        return mine

    async def _write_anew(self, names: Collection[str]) -> None:
        """Networks of which the store has lost the manifest, and perhaps whatever belongs to it."""
        _log.warning("the store has lost %s: written anew", ", ".join(sorted(names)))
        await self._store.restore_generation(self._generation)
        await self._put_held({o for name in names for o in self._networks[name].summaries})
        for name in sorted(names):
            if begin := self._begins.get(name):
                await self._store.put_begin(name, begin)
            await self._store.restore_manifest(name, self._networks[name].to_bytes())

    def _deployed(self) -> set[str]:
        return {operator for n in self._networks.values() for operator in n.summaries}

    async def _watch(self) -> None:
        """Look which networks there are. Tasks leave those that were removed (31)."""
        known: tuple[object, ...] = ()
        for turn in count():
            try:
                deployed = (
                    await self._store.list_networks(),
                    await self._store.generation(),
                    tuple(sorted(await self._store.get_keys())),
                )
                self._generation = max(self._generation, deployed[1])
                # What was damaged since looks as before: it is read again from time to time.
                if deployed != known or turn % _REREAD_TURNS == 0:
                    await self._refresh()
                    for task, running in tuple(self._running.items()):
                        try:
                            self._bring(running.hosted)
                        except Exception as error:  # noqa: BLE001 - a task's top
                            self._failed(task, error)
                    self._changed.set()
                    known = deployed
                    if self._cache is not None:
                        await self._cache.keep(self._deployed())
                await self._give_artifacts()
                await self._mend(turn % self._settings.partitions)
            except SpikeRouterError as error:
                _log.warning("networks are not looked up: %s", error)
            await asyncio.sleep(_WATCH_S)

    async def _mend(self, partition: int) -> None:
        """Write anew what is damaged of the records of tasks whose networks are known here."""
        reply = await self._store.status(partition)
        for spec in records_to_mend(reply, self._specs, self._running, self._generation):
            await self._store.mend_task(spec, settle_ms=self._settings.lease_ttl_ms)

    async def _warm(self) -> None:
        """Get ready for whatever this worker could be asked for, whenever networks change."""
        asyncio.get_running_loop().call_later(_COLD_S, self._end_cold)
        while self._is_to_warm:
            await self._changed.wait()
            self._changed.clear()
            try:
                await self._shelf.warm(self._hostable())
            except StoreError as error:
                _log.warning("operators do not get warm: %s", error)
            self._end_cold()

    @property
    def _is_to_warm(self) -> bool:
        return self._alone is None and self._settings.warm_bytes != 0

    def _end_cold(self) -> None:
        """From now on a planned move waits for no kernel, or for few of many."""
        self._book.is_cold = False

    def _hostable(self) -> list[tuple[str, Group]]:
        """Synapse groups that this worker may need a kernel for, each once."""
        most, on_nodes = self._settings.capacity, bool(self._settings.device)
        found = kernels_wanted(self._networks.values(), self._kinds, on_nodes=on_nodes)
        return [k for k, s in found.items() if most is None or group_cost(s, k[1]) <= most]

    def _limits(self, claimed: Claimed) -> Limits:
        settings = self._settings
        return Limits(
            max_batch=1 if claimed.one_by_one else settings.max_batch,
            most_ahead=0 if claimed.one_by_one else Limits.most_ahead,
            uncommitted_bytes=settings.uncommitted_bytes,
            flight_bytes=settings.unconfirmed_bytes,
            stream_windows=settings.unconfirmed_windows,
            deadline_s=settings.progress_deadline_s,
            frame_bytes=settings.max_record_bytes,
            max_streams=settings.max_streams,
            stream_idle_s=settings.stream_idle_s,
            n_partitions=settings.partitions,
        )

    async def _position(self, hosted: Hosted) -> None:
        """Compare the positions with the logs: lost records, and logs that were replaced (30)."""
        tenant, partition = hosted.tenant, hosted.claim.task.partition
        starts = tenant.start()
        bounds = await self._bus.bounds(Place(t, partition) for t in starts)
        for topic in starts:
            first, last = bounds[Place(topic, partition)]
            tenant.reading.check_end(topic, last)
            if first > tenant.reading.offset(topic):
                tenant.truncated(topic, first)
        hosted.tenancy.replay_to({t: bounds[Place(t, partition)][1] for t in starts})

    # ---- running ------------------------------------------------------------------------------

    async def _keep(self, hosted: Hosted, times: dict[str, float]) -> None:
        """Run a task's loops to their end; a task's failure never ends the worker."""
        task = hosted.claim.task
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(hosted.run())
                group.create_task(self._note_recovery(hosted, times))
                if self._alone is not None:
                    group.create_task(self._leave_once_committed(hosted))
        except* TenancyLostError as lost:
            _log.warning("task %s: %s", task, _first_of(lost))
            self._book.doubt(task)
            self._book.drop(task)
        except* LogReplacedError as replaced:
            _log.error("task %s: %s", task, _first_of(replaced))
            self._book.fail(task, str(_first_of(replaced)))
        except* Exception as failed:  # noqa: BLE001 - a task's top: log it and end the task
            self._failed(task, _first_of(failed))
        self._forget(task, hosted)
        self._rousing.set()

    async def _note_recovery(self, hosted: Hosted, times: dict[str, float]) -> None:
        await hosted.caught_up.wait()
        times["caught_up"] = time.time() * 1000
        claim = hosted.claim
        entry = {"task": str(claim.task), "previous": claim.previous, **times}
        entry["windows_replayed"] = hosted.tenant.counts["windows_replayed_total"]
        self._recoveries = [*self._recoveries[-9:], entry]

    async def _leave_once_committed(self, hosted: Hosted) -> None:
        """The suspicion is over with the next checkpoint: give the task back to the pool (28)."""
        while not hosted.tenancy.n_commits:
            await asyncio.sleep(_RETRY_S)
        self.stop()

    def _drop(self, task: TaskId, why: str) -> None:
        running = self._running.get(task)
        if running is not None:
            _log.info("task %s stops here: %s", task, why)
            self._forget(task, running.hosted)
            running.loops.cancel()

    def _forget(self, task: TaskId, hosted: Hosted) -> None:
        running = self._running.get(task)
        if running is not None and running.hosted is hosted:
            del self._running[task]
            self._shelf.trim({(t.operator, t.group) for t in (*self._running, *self._starting)})
            self.counts.update(hosted.tenant.counts)
            self._assign()

    # ---- reading ------------------------------------------------------------------------------

    def _assign(self) -> None:
        """Which task reads which place."""
        self._readers = {}
        for running in self._running.values():
            hosted = running.hosted
            for topic in hosted.tenant.topics:
                place = Place(topic, hosted.claim.task.partition)
                self._readers.setdefault(place, []).append(hosted)
        self._assignment_changed = True

    def _reread(self, hosted: Hosted) -> None:
        """This task needs records from other offsets on: seek to the lowest of all (6)."""
        if hosted.claim.task in self._running:
            self._assign()

    def _seek(self) -> None:
        self._assignment_changed = False
        starts: dict[Place, int] = {}
        for running in self._running.values():
            hosted = running.hosted
            for topic, offset in hosted.tenant.start().items():
                place = Place(topic, hosted.claim.task.partition)
                starts[place] = min(offset, starts.get(place, offset))
        self._bus.read(starts)

    async def _fetch(self) -> None:
        self._assignment_changed = True  # begun anew, it has not handed over all that it had polled
        while True:
            if self._assignment_changed:
                self._seek()
            self._bus.pause(self._paused())
            try:
                polled = await self._bus.poll(_POLL_MS)
            except BusError as error:
                _log.warning("%s", error)
                await asyncio.sleep(_RETRY_S)
                continue
            if not self._assignment_changed:
                await self._dispatch(polled)
            if polled.lost:
                await self._lost(polled.lost)

    def _paused(self) -> Iterable[Place]:
        """Only inputs pause, and only while ingest may send no more (18)."""
        for running in self._running.values():
            hosted = running.hosted
            for topic in hosted.tenant.paused_topics:
                yield Place(topic, hosted.claim.task.partition)

    async def _dispatch(self, polled: Polled) -> None:
        self._turn.begin()
        self._has_new_keys = self._has_new_networks = False
        for at in {**polled.records, **polled.positions, **polled.unreadable}:
            messages = polled.records.get(at, ())
            records = [
                Record(at.topic, m.offset, m.timestamp, m.key, m.value or b"", seal_of(m.headers))
                for m in messages
            ]
            stop = polled.positions.get(at)
            passed = None if stop is None else (at.topic, stop)
            for hosted in tuple(self._readers.get(at, ())):
                if self._turn.is_over:
                    await self._turn.end()
                # A task that came meanwhile, or reads on elsewhere: this poll is not its next one.
                if self._assignment_changed:
                    return
                await self._deliver(hosted, records, passed)
                if (gap := polled.unreadable.get(at)) and not self._assignment_changed:
                    try:
                        self._tell_unreadable(hosted, at, gap)
                    except Exception as error:  # noqa: BLE001 - a task's top: it ends the task
                        self._failed(hosted.claim.task, error)

    def _tell_unreadable(self, hosted: Hosted, place: Place, gap: Unreadable) -> None:
        """What nobody can read was passed over: it is lost to whoever reads this place (9)."""
        _log.error(
            "offsets %d to %d of topic %s, partition %d, cannot be read and are passed over: %s",
            gap.first, gap.stop - 1, place.topic, place.partition, gap.reason,
        )  # fmt: skip
        hosted.tenant.unreadable(place.topic, *gap)
        if hosted.tenant.take_seeks():
            self._reread(hosted)
        hosted.wake()

    async def _deliver(
        self, hosted: Hosted, records: list[Record], passed: tuple[str, int] | None
    ) -> None:
        task = hosted.claim.task
        try:
            if hosted.claim.suspicious:
                await self._deliver_alone(hosted, records, passed)
            else:
                await self._feed(hosted, records, passed)
        except LogReplacedError as error:
            self._book.fail(task, str(error))
            self._drop(task, str(error))
        except (StoreError, TenancyLostError) as error:
            _log.error("task %s cannot read its input here: %s", task, error)
            self._book.drop(task)
            self._drop(task, "it cannot read its input")
        except Exception as error:  # noqa: BLE001 - a task's top: it ends the task
            self._failed(task, error)
        hosted.wake()

    async def _deliver_alone(
        self, hosted: Hosted, records: list[Record], passed: tuple[str, int] | None
    ) -> None:
        """Hand records to a suspicious task, none before the store knows which (28)."""
        for portion in portions(hosted.claim, records):
            async with hosted.hand_of(portion.hand):
                if portion.error:
                    _log.error("task %s: %s", hosted.claim.task, portion.error)
                    hosted.tenant.refuse(portion.records[0], portion.error)
                else:
                    await self._feed(hosted, portion.records)
            if portion.error:
                await self._until_committed(hosted)
            if self._assignment_changed:
                return
        await self._feed(hosted, (), passed)
        await hosted.let_go()

    async def _until_committed(self, hosted: Hosted) -> None:
        """What was refused is to be so for good before the next record: that one may kill, too. An
        ingest, or a task that fell back, has to read on before it can commit."""
        hosted.wake()
        with suppress(TimeoutError):
            async with asyncio.timeout(_HAND_OVER_S):
                while hosted.tenant.is_held and not self._assignment_changed:
                    await asyncio.sleep(_RETRY_S)

    async def _feed(
        self, hosted: Hosted, records: Sequence[Record], passed: tuple[str, int] | None = None
    ) -> None:
        feed = Feed(hosted.tenant, records, passed)
        while (halt := feed.go(_AT_ONCE)) is not None:
            if halt is Halt.SEEK or (
                halt is Halt.LOOK_UP and not await self._update(hosted, records[feed.n_taken])
            ):
                self._reread(hosted)
                return
            if self._turn.is_over:
                hosted.wake()
                await self._turn.end()
                if self._assignment_changed:  # the rest is fetched anew, by whom it concerns
                    return

    async def _update(self, hosted: Hosted, record: Record) -> bool:
        """A network was deployed or removed, a key begun: look it up, and go on with the record.

        One look-up does for all records of a poll, since whatever they name was in the store before
        they were written. So nobody can have a reader look up as often as he makes keys up; and no
        id is remembered as one of no key, which the next deployment may begin.

        False while the store is away, or may not have got back all that it lost (27): the record
        was not taken, and is to be read again.
        """
        is_strange = self._lacks_key(hosted, record)
        try:
            if is_strange and not self._has_new_keys:
                await self._look_up_keys()
                is_strange = self._lacks_key(hosted, record)
            if not (is_strange or self._has_new_networks):
                await self._refresh()
        except StoreUnavailable as error:
            _log.warning("task %s reads no further: %s", hosted.claim.task, error)
            await asyncio.sleep(_RETRY_S)
            return False
        if not is_strange:
            self._bring(hosted)
        if asyncio.get_running_loop().time() < self._settled_at:
            await asyncio.sleep(_RETRY_S)
            return False
        self._has_new_keys = True
        self._has_new_networks = self._has_new_networks or not is_strange
        return True

    def _lacks_key(self, hosted: Hosted, record: Record) -> bool:
        return trust(self._keys, record, hosted.claim.task.partition) is Trust.UNKNOWN

    def _bring(self, hosted: Hosted) -> None:
        """Bring a task up to the networks that are known now; it ends with the last of its own."""
        task, tenant = hosted.claim.task, hosted.tenant
        if not any(task.operator in network.summaries for network in self._networks.values()):
            self._book.drop(task)
            self._drop(task, "its networks were removed")
            return
        known, topics = (self._networks, task.operator), tenant.topics
        if isinstance(tenant, Ingest):
            tenant.update(ingest_spec(*known, task.partition))
        elif isinstance(tenant, Task):
            tenant.update(task_spec(*known, task.group, task.partition))
        if tenant.take_seeks() or tenant.topics != topics:
            self._reread(hosted)
        hosted.wake()

    async def _lost(self, places: Iterable[Place]) -> None:
        """Positions that are no longer in the log: truncated below, or replaced."""
        try:
            bounds = await self._bus.bounds(places)
        except BusError as error:
            _log.warning("%s", error)
            return
        for place, (first, last) in bounds.items():
            for hosted in tuple(self._readers.get(place, ())):
                try:
                    hosted.tenant.reading.check_end(place.topic, last)
                    hosted.tenant.truncated(place.topic, first)
                except LogReplacedError as error:
                    self._book.fail(hosted.claim.task, str(error))
                    self._drop(hosted.claim.task, str(error))
                except Exception as error:  # noqa: BLE001 - a task's top: it ends the task
                    self._failed(hosted.claim.task, error)
                hosted.wake()
        self._assignment_changed = True

    async def _look_for_strays(self) -> None:
        """Tell of input in partitions that are not deployed: nobody else would ever see it."""
        while True:
            await asyncio.sleep(_STRAYS_S)
            tenants = [r.hosted.tenant for r in self._running.values()]
            ingests = [t.spec for t in tenants if isinstance(t, Ingest)]
            try:
                news = await self._strays.look(s.in_topic for s in ingests if s.partition == 0)
            except BusError as error:
                _log.debug("partitions that are not deployed are not looked into: %s", error)
                continue
            for stray in news:
                _log.warning("%s", stray.sentence())

    # ---- status -------------------------------------------------------------------------------

    @property
    def details(self) -> Mapping[str, Info]:
        """What this worker last told of itself."""
        return self._book.details

    async def _report(self) -> None:
        while True:
            self._book.details = self._details()
            await asyncio.sleep(_REPORT_S)

    def _details(self) -> dict[str, Info]:
        now = asyncio.get_running_loop().time()
        details: dict[str, Info] = {"backend": self._settings.backend}
        totals = self.counts.copy()
        for task, running in tuple(self._running.items()):
            try:
                told = self._told_of(running.hosted, now)
            except Exception as error:  # noqa: BLE001 - a task's top: it ends the task
                self._failed(task, error)
                continue
            details |= {task_detail(task, what): value for what, value in told.items()}
            totals.update(running.hosted.tenant.counts)
        totals.update(self._bus.counts)
        details["counts"] = json.dumps(totals)
        faults = sorted(self._bus.faults.items())
        details["places"] = json.dumps([[*place, why] for place, why in faults[:_MOST_PLACES]])
        details[STRAYS] = details_of(self._strays.found.values())
        details["recoveries"] = json.dumps(self._recoveries)
        return details

    def _told_of(self, hosted: Hosted, now: float) -> dict[str, Info]:
        tenant = hosted.tenant
        told: dict[str, Info] = {
            "lag_records": self._lag_records(hosted),
            "lag_windows": tenant.n_waiting,
            "streams": tenant.n_streams,
            "checkpoint_age_ms": int((now - hosted.committed_at) * 1000),
        }
        if isinstance(tenant, Ingest):
            read, streams = tenant.reading.offset(tenant.spec.in_topic), tenant.open_streams()
            told["open"] = json.dumps({"read": read, "streams": streams, "routes": tenant.routes})
        return told

    def _lag_records(self, hosted: Hosted) -> int:
        partition, reading = hosted.claim.task.partition, hosted.tenant.reading
        ends = ((t, self._bus.end(Place(t, partition))) for t in hosted.tenant.topics)
        return sum(max(0, end - reading.offset(t)) for t, end in ends if end is not None)


def _first_of(group: BaseException) -> BaseException:
    """The first error of all that a group of tasks raised."""
    while isinstance(group, BaseExceptionGroup):
        group = group.exceptions[0]
    return group


def _now_ms() -> int:
    return int(asyncio.get_running_loop().time() * 1000)
