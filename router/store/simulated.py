"""The store in memory, for tests and simulation: the shipped Lua text on a fake server.

The fake knows just the commands that the scripts and queries use, and is strict where the server
is lenient: a number handed to a command, an unknown command or a global variable is an error.
Its time is the caller's; nothing here is random.

Stored values are never changed in place: each call copies what it writes to, once. So a snapshot
is a shallow copy, and the writes of the last calls can be taken back one by one.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, wraps
from typing import Any, Concatenate, ParamSpec, TypeAlias, TypeVar

from router.store import calls
from router.store.calls import Arg, BlobWrite, Call, Query, Reply, StoredCheckpoint, TaskId
from router.store.errors import StoreReplyError
from router.store.lua import script

__all__ = ["SimulatedStore", "Snapshot"]

P = ParamSpec("P")
T = TypeVar("T")

_Hash: TypeAlias = dict[bytes, bytes]
_Value: TypeAlias = bytes | _Hash | set[bytes]
_WIDE = 400  # values that may cross Lua's C stack at once; its limit is 8000

# Replies that are lists reach Lua as many values (quick) or, when they are long, as one table.
_BOOT = b"""
local error, ipairs, math, setmetatable, string, table, tonumber, type, unpack, G =
  error, ipairs, math, setmetatable, string, table, tonumber, type, unpack, _G
local lists = {HMGET = true, HGETALL = true, HKEYS = true, HVALS = true, SMEMBERS = true,
  TIME = true}

local function server(call)
  return {call = function(command, ...)
    if not lists[command] then
      return call(command, ...)
    end
    local reply = {call(command, ...)}
    return type(reply[1]) == 'table' and reply[1] or reply
  end}
end

local function strict(_, name)
  error('a script uses the global variable ' .. name)
end

local function size(list)
  return #list
end

setmetatable(G, {__index = strict, __newindex = strict})
return {server, unpack, size}
"""


@dataclass(frozen=True, slots=True)
class _Entry:
    value: _Value
    expires: int | None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All data of a store at one instant; its identity is not part of it."""

    data: Mapping[bytes, _Entry]


class _Lua:
    """One Lua runtime with its compiled scripts, shared by every store of the process."""

    def __init__(self) -> None:
        from lupa import lua51

        self.runtime = lua51.LuaRuntime(
            encoding=None, unpack_returned_tuples=True, register_eval=False, register_builtins=False
        )
        boot = self.runtime.execute(_BOOT)
        self.error: type[Exception] = lua51.LuaError
        self.server, self.unpack, self.size = boot[1], boot[2], boot[3]
        self.table_type = type(boot)
        self.scripts: dict[str, Callable[..., Any]] = {}

    def compiled(self, name: str) -> Callable[..., Any]:
        function = self.scripts.get(name)
        if function is None:
            # On one line with the text, so that Lua's line numbers are those of the text.
            head = "return function(redis, given, key, ...) local KEYS = {key} "
            head += "local ARGV = given or {...} "
            text = f"{head}{script(name).text}\nend"
            function = self.scripts[name] = self.runtime.execute(text.encode())
        return function

    def value(self, reply: object) -> Reply:
        """A script's result as the client library would give it."""
        if isinstance(reply, bytes):
            return reply
        if isinstance(reply, self.table_type):
            size = self.size(reply)
            return [self.value(item) for item in self._items(reply, size)]
        if reply is None or reply is False:
            return None
        if reply is True:
            return 1
        if isinstance(reply, int | float):
            return int(reply)
        raise StoreReplyError(f"A script returned {reply!r}, which no reply can carry.")

    def _items(self, table: Any, size: int) -> Sequence[object]:
        if size == 0:
            return ()
        if size == 1:
            return (table[1],)
        if size <= _WIDE:
            items: Sequence[object] = self.unpack(table)
            return items
        return [table[i + 1] for i in range(size)]


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
    id (letters and digits); setting it models a restart or a failover (rule 26). `undo_depth`
    writing calls can be taken back by `lose_writes`.
    """

    create_task = _method(calls.create_task)
    remove_task = _method(calls.remove_task)
    claim = _method(calls.claim)
    renew = _method(calls.renew)
    leave = _method(calls.leave)
    release = _method(calls.release)
    want = _method(calls.want)
    commit = _method(calls.commit)
    hand = _method(calls.hand)
    fail_task = _method(calls.fail_task)
    status = _method(calls.status)

    def __init__(
        self, clock: Callable[[], int], *, replid: str = "0" * 40, undo_depth: int = 16
    ) -> None:
        self.replid = replid
        self._clock = clock
        self._now = 0
        self._data: dict[bytes, _Entry] = {}
        self._written: dict[bytes, _Entry | None] = {}
        self._undo: deque[dict[bytes, _Entry | None]] = deque(maxlen=undo_depth)
        self._commands: dict[bytes, Callable[..., Any]] = {
            b"TIME": self._time,
            b"INFO": self._info,
            b"EXISTS": self._exists,
            b"GET": self._get,
            b"SET": self._set,
            b"PERSIST": self._persist,
            b"UNLINK": self._unlink,
            b"HSET": self._hset,
            b"HGET": self._hget,
            b"HMGET": self._hmget,
            b"HGETALL": self._hgetall,
            b"HKEYS": self._hkeys,
            b"HVALS": self._hvals,
            b"HEXISTS": self._hexists,
            b"HDEL": self._hdel,
            b"SADD": self._sadd,
            b"SREM": self._srem,
            b"SMEMBERS": self._smembers,
        }
        self._server = _lua().server(self._from_lua)

    def run(self, call: Call[T]) -> T:
        """Run one script's text on the data; what it wrote before an error stays written."""
        lua = _lua()
        function = lua.compiled(call.script)
        (key,) = call.keys
        args = [_encoded(arg) for arg in call.args]
        self._now = self._clock()
        try:
            if len(args) > _WIDE:
                reply = function(self._server, lua.runtime.table_from(args), key.encode())
            else:
                reply = function(self._server, None, key.encode(), *args)
        except lua.error as error:
            raise StoreReplyError(f"The store refused {call.script!r}: {error}.") from error
        finally:
            self._close_call()
        return call.parse(lua.value(reply))

    def read(self, query: Query[T]) -> T:
        """Run the read commands of a query."""
        return query.parse([self.command(*command) for command in query.commands])

    def write_blobs(self, writes: Sequence[BlobWrite]) -> None:
        """Write blobs that vanish unless a commit names them in time."""
        for each in writes:
            self.command("SET", each.key, each.data, "PX", each.ttl_ms)

    def load(self, task: TaskId) -> StoredCheckpoint | None:
        """The last checkpoint with both versions of every blob; None when there is none."""
        references = self.read(calls.load_references(task))
        return None if references is None else self.read(calls.load_blobs(references))

    def command(self, *args: Arg) -> Reply:
        """Run one plain command."""
        self._now = self._clock()
        name, *operands = map(_encoded, args)
        try:
            reply = self._dispatch(name, operands)
        finally:
            self._close_call()
        if reply is False:
            return None
        if isinstance(reply, tuple):
            return [None if item is False else item for item in reply]
        value: Reply = reply
        return value

    def snapshot(self) -> Snapshot:
        """All data as of now."""
        return Snapshot(dict(self._data))

    def restore(self, snapshot: Snapshot) -> None:
        """Go back to a snapshot; what was written since is forgotten, for good."""
        self._data = dict(snapshot.data)
        self._undo.clear()

    def lose_writes(self, count: int) -> int:
        """Take back the last `count` calls that wrote; returns how many there were to take.

        A failover that loses writes is this and a new `replid`.
        """
        taken = 0
        while taken < count and self._undo:
            for key, entry in self._undo.pop().items():
                if entry is None:
                    self._data.pop(key, None)
                else:
                    self._data[key] = entry
            taken += 1
        return taken

    def lose_everything(self) -> None:
        """Forget all data, as a server without persistence does when it restarts."""
        self._data = {}
        self._undo.clear()

    def dump(self) -> dict[bytes, tuple[_Value, bool]]:
        """Every living key with its value and whether it will expire."""
        self._now = self._clock()
        living = {key: self._entry(key) for key in sorted(self._data)}
        return {key: (e.value, e.expires is not None) for key, e in living.items() if e}

    # What the server does.

    def _from_lua(self, name: bytes, *operands: Any) -> Any:
        reply = self._dispatch(name, operands)
        if type(reply) is tuple and len(reply) > _WIDE:
            return _lua().runtime.table_from(reply)
        return reply

    def _dispatch(self, name: bytes, operands: Sequence[Any]) -> Any:
        command = self._commands.get(name)
        if command is None:
            raise StoreReplyError(f"The simulated store does not know the command {name!r}.")
        return command(*operands)

    def _close_call(self) -> None:
        if self._written:
            self._undo.append(self._written)
            self._written = {}

    def _entry(self, key: bytes) -> _Entry | None:
        entry = self._data.get(key)
        if entry is not None and entry.expires is not None and entry.expires <= self._now:
            return None
        return entry

    def _hash(self, key: bytes) -> _Hash | None:
        entry = self._entry(key)
        if entry is None:
            return None
        if type(entry.value) is not dict:
            raise _wrong_type(key)
        return entry.value

    def _put(self, key: bytes, entry: _Entry | None) -> None:
        if key not in self._written:
            self._written[key] = self._data.get(key)
        if entry is None:
            self._data.pop(key, None)
        else:
            self._data[key] = entry

    def _own_hash(self, key: bytes) -> _Hash:
        """The hash at `key`, copied once per call so that it may be written to."""
        old = self._hash(key)
        if old is not None and key in self._written:
            return old
        new = {} if old is None else dict(old)
        self._put(key, _Entry(new, None))
        return new

    def _own_set(self, key: bytes) -> set[bytes]:
        new = set(self._set_at(key))
        self._put(key, _Entry(new, None))
        return new

    def _set_at(self, key: bytes) -> set[bytes]:
        entry = self._entry(key)
        if entry is None:
            return set()
        if not isinstance(entry.value, set):
            raise _wrong_type(key)
        return entry.value

    def _time(self) -> tuple[bytes, bytes]:
        return b"%d" % (self._now // 1000), b"%d" % (self._now % 1000 * 1000)

    def _info(self, section: bytes) -> bytes:
        if section != b"replication":
            raise StoreReplyError(f"The simulated store has no INFO section {section!r}.")
        return b"# Replication\r\nrole:master\r\nmaster_replid:%s\r\n" % self.replid.encode()

    def _exists(self, key: bytes) -> int:
        return int(self._entry(key) is not None)

    def _get(self, key: bytes) -> Any:
        entry = self._entry(key)
        if entry is None:
            return False
        if not isinstance(entry.value, bytes):
            raise _wrong_type(key)
        return entry.value

    def _set(self, key: bytes, value: bytes, px: bytes, ttl: bytes) -> bytes:
        if px != b"PX":
            raise StoreReplyError("The simulated store knows SET with PX only.")
        self._put(key, _Entry(value, self._now + int(ttl)))
        return b"OK"

    def _persist(self, key: bytes) -> int:
        entry = self._entry(key)
        if entry is None or entry.expires is None:
            return 0
        self._put(key, _Entry(entry.value, None))
        return 1

    def _unlink(self, key: bytes) -> int:
        known = self._entry(key) is not None
        if known:
            self._put(key, None)
        return int(known)

    def _hset(self, key: bytes, *pairs: bytes) -> int:
        target = self._own_hash(key)
        before = len(target)
        for field, value in zip(pairs[::2], pairs[1::2], strict=True):
            if type(value) is not bytes:
                raise StoreReplyError(f"A script stores the number {value!r}; format it first.")
            target[field] = value
        return len(target) - before

    def _hget(self, key: bytes, field: bytes) -> Any:
        return (self._hash(key) or {}).get(field, False)

    def _hmget(self, key: bytes, *fields: bytes) -> tuple[Any, ...]:
        get = (self._hash(key) or {}).get
        return tuple([get(field, False) for field in fields])

    def _hgetall(self, key: bytes) -> tuple[bytes, ...]:
        return tuple(part for pair in (self._hash(key) or {}).items() for part in pair)

    def _hkeys(self, key: bytes) -> tuple[bytes, ...]:
        return tuple(self._hash(key) or {})

    def _hvals(self, key: bytes) -> tuple[bytes, ...]:
        return tuple((self._hash(key) or {}).values())

    def _hexists(self, key: bytes, field: bytes) -> int:
        return int(field in (self._hash(key) or {}))

    def _hdel(self, key: bytes, field: bytes) -> int:
        if not self._hexists(key, field):
            return 0
        target = self._own_hash(key)
        del target[field]
        if not target:
            self._put(key, None)
        return 1

    def _sadd(self, key: bytes, member: bytes) -> int:
        if member in self._set_at(key):
            return 0
        self._own_set(key).add(member)
        return 1

    def _srem(self, key: bytes, member: bytes) -> int:
        if member not in self._set_at(key):
            return 0
        target = self._own_set(key)
        target.remove(member)
        if not target:
            self._put(key, None)
        return 1

    def _smembers(self, key: bytes) -> tuple[bytes, ...]:
        return tuple(sorted(self._set_at(key)))


def _encoded(arg: Arg) -> bytes:
    if type(arg) is bytes:
        return arg
    return str(arg).encode()


def _wrong_type(key: bytes) -> StoreReplyError:
    return StoreReplyError(f"The key {key!r} holds another type than the command works on.")
