"""The store in memory, for tests and simulation: the shipped Lua text on a fake server.

The fake (`fake.lua`) knows just the commands that the scripts and queries use, and is strict where
the server is lenient. Its time is the caller's; nothing here is random.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cache, wraps
from importlib import import_module, resources
from types import ModuleType
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

from router.store import calls
from router.store.calls import Arg, BlobWrite, Call, Query, Reply, StoredCheckpoint, TaskId
from router.store.errors import StoreReplyError
from router.store.lua import script

__all__ = ["SimulatedStore", "Snapshot"]

P = ParamSpec("P")
T = TypeVar("T")


class Snapshot:
    """All data of a store at one instant; the server's identity is not part of it."""

    __slots__ = ("_data",)

    def __init__(self, data: object) -> None:
        self._data = data


def _implementation() -> ModuleType:
    """Lua 5.1, which is inside Redis and Valkey: LuaJIT where it is built, twice as fast."""
    try:
        return import_module("lupa.luajit21")
    except ImportError:
        return import_module("lupa.lua51")


class _Lua:
    """One Lua runtime with its compiled scripts, shared by every store of the process."""

    def __init__(self) -> None:
        lua = _implementation()
        self._runtime = lua.LuaRuntime(
            encoding=None, unpack_returned_tuples=True, register_eval=False, register_builtins=False
        )
        # Scripts of 50 commands are over before LuaJIT's compiler pays: 20 to 160 us each.
        self._runtime.execute(b"if jit then jit.off() end")
        boot = self._runtime.execute((resources.files(__package__) / "fake.lua").read_bytes())
        self.error: type[Exception] = lua.LuaError
        self.new, self._size, self._wide = boot
        self._scripts: dict[str, object] = {}

    def compiled(self, name: str) -> object:
        """The script as a function of `redis`, `KEYS` and `ARGV`."""
        function = self._scripts.get(name)
        if function is None:
            # On one line with the text, so that Lua's line numbers are those of the text.
            text = f"return function(redis, KEYS, ARGV) {script(name).text}\nend"
            function = self._scripts[name] = self._runtime.execute(text.encode())
        return function

    def sent(self, operands: Sequence[object]) -> Sequence[object]:
        """Values to hand to a function: one by one, or as one list if they are many."""
        return operands if len(operands) <= self._wide else [self._runtime.table_from(operands)]

    def value(self, reply: Any) -> Reply:
        """A result as the client library would give it; lists come as fake.lua sends them."""
        if type(reply) is bytes:
            return reply
        if type(reply) is not tuple:
            if reply is None or isinstance(reply, int | float):
                return _plain(reply)
            reply = tuple(reply[i + 1] for i in range(self._size(reply)))
        if reply[1] == len(reply) - 2:  # a list of no lists
            return [item if type(item) is bytes else _plain(item) for item in reply[2:]]
        return _tree(iter(reply))


def _tree(flat: Iterator[Any]) -> Reply:
    """The next of the values that stand behind one another; a list is `True`, its length, and so
    many of them."""
    value = next(flat)
    if value is True:
        return [_tree(flat) for _ in range(int(next(flat)))]
    return value if type(value) is bytes else _plain(value)


def _plain(value: object) -> Reply:
    """A reply that is neither text nor a list."""
    if value is None or value is False:
        return None
    if isinstance(value, int | float):
        return int(value)
    raise StoreReplyError(f"A script returned {value!r}, which no reply can carry.")


@cache
def _lua() -> _Lua:
    return _Lua()


def _method(build: Callable[P, Call[T]]) -> Callable[Concatenate["SimulatedStore", P], T]:
    """The method that builds a call with `build` and runs it."""

    @wraps(build)
    def method(self: "SimulatedStore", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.run(build(*args, **kwargs))

    return method


class SimulatedStore:
    """An in-memory store with the methods of `RedisStore`, without `await`.

    `clock` gives the server's time in whole milliseconds. `replid` is the server's replication
    id (letters and digits); setting it models a restart or a failover (rule 26). The last
    `undo_depth` writing calls can be taken back by `lose_writes`.
    """

    create_task = _method(calls.create_task)
    mend_task = _method(calls.mend_task)
    remove_task = _method(calls.remove_task)
    claim = _method(calls.claim)
    renew = _method(calls.renew)
    leave = _method(calls.leave)
    release = _method(calls.release)
    want = _method(calls.want)
    commit = _method(calls.commit)
    hand = _method(calls.hand)
    fail_task = _method(calls.fail_task)
    blame = _method(calls.blame)
    status = _method(calls.status)

    def __init__(
        self, clock: Callable[[], int], *, replid: str = "0" * 40, undo_depth: int = 16
    ) -> None:
        self.replid = replid
        self._clock = clock
        self._lua = _lua()
        fake = self._lua.new(undo_depth)
        self._run, self._query, self._dump = fake[b"run"], fake[b"query"], fake[b"dump"]
        self._take, self._put = fake[b"snapshot"], fake[b"restore"]
        self._lose_writes = fake[b"lose_writes"]

    def run(self, call: Call[T]) -> T:
        """Run one script's text on the data; what it wrote before an error stays written."""
        script, n_keys = self._lua.compiled(call.script), len(call.keys)
        operands = self._lua.sent(_encoded((*call.keys, *call.args)))
        return call.read(self._execute(call.script, self._run, script, n_keys, *operands))

    def read(self, query: Query[T]) -> T:
        """Run the read commands of a query."""
        return query.read(self.commands(query.commands))

    def commands(self, commands: Sequence[Sequence[Arg]]) -> list[Reply]:
        """Run plain commands, of those that fake.lua knows, at one instant."""
        if not commands:
            return []
        parts: list[object] = []
        for command in commands:
            parts.append(len(command))
            parts += _encoded(command)
        replies: Any = self._execute("a query", self._query, *self._lua.sent(parts))
        return cast(list[Reply], replies)

    def command(self, *args: Arg) -> Reply:
        """Run one plain command."""
        (reply,) = self.commands([args])
        return reply

    def write_blobs(self, writes: Sequence[BlobWrite]) -> None:
        """Write blobs that vanish unless a commit names them in time, each by a call of its own:
        so a failover can lose some of them."""
        for each in writes:
            self.run(calls.write([each]))

    def load(self, task: TaskId) -> StoredCheckpoint | None:
        """The last checkpoint with both versions of every blob; None when there is none."""
        references = self.read(calls.load_references(task))
        return None if references is None else self.read(calls.load_blobs(references))

    def snapshot(self) -> Snapshot:
        """All data as of now, as a value that later calls do not change."""
        return Snapshot(self._take())

    def restore(self, snapshot: Snapshot) -> None:
        """Go back to a snapshot of this process; what was written since is forgotten for good."""
        self._put(snapshot._data)

    def lose_writes(self, count: int) -> int:
        """Take back the last `count` calls that wrote; returns how many there were to take.

        A failover that loses writes is this and a new `replid`. Each script is one call, and so
        is each blob.
        """
        taken: int = self._lose_writes(count)
        return taken

    def lose_everything(self) -> None:
        """Forget all data, as a server without persistence does when it restarts."""
        self._put(self._lua.new(0)[b"snapshot"]())

    def dump(self) -> dict[bytes, tuple[object, bool]]:
        """Every living key with its value (bytes, dict or set) and whether it will expire."""
        found: dict[bytes, tuple[object, bool]] = {}
        for row in _rows(self._lua.value(self._dump(self._clock()))):
            key, kind, expires, *parts = row
            value: object = parts[0] if kind == b"string" else set(parts)
            if kind == b"hash":
                value = dict(zip(parts[::2], parts[1::2], strict=True))
            found[key] = (value, expires == 1)
        return found

    def _execute(self, what: str, function: Callable[..., object], *operands: object) -> Reply:
        lua = self._lua
        try:
            reply = function(self._clock(), self.replid.encode(), *operands)
        except lua.error as error:
            raise StoreReplyError(f"The store refused {what!r}: {error}.") from error
        return lua.value(reply)


def _rows(reply: Any) -> Sequence[Any]:
    rows: Sequence[Any] = reply
    return rows


def _encoded(args: Sequence[Arg]) -> list[bytes]:
    return [
        arg.encode() if isinstance(arg, str) else arg if isinstance(arg, bytes) else b"%d" % arg
        for arg in args
    ]
