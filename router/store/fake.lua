-- The simulated server: the commands that the store's scripts and queries use, in memory.
-- It is itself Lua so that a script's commands need not cross into Python and back.
-- Strict where the server is lenient: a number handed to a command is an error, and so is the use
-- of a global variable. Replies of unordered types are sorted, so that a run can be replayed.
--
-- Each call that writes leaves a list of what was there before, key by key and field by field, so that
-- the writes of the last calls can be taken back one by one.
local error, ipairs, next, pairs, pcall, string, type, unpack, setmetatable, G =
  error, ipairs, next, pairs, pcall, string, type, unpack, setmetatable, _G
local floor, min, huge, format, sort, remove =
  math.floor, math.min, math.huge, string.format, table.sort, table.remove

local function copy(source)
  local target = {}
  for k, v in pairs(source) do
    target[k] = v
  end
  return target
end

local function sorted_keys(source)
  local keys = {}
  for k in pairs(source) do
    keys[#keys + 1] = k
  end
  sort(keys)
  return keys
end

-- A value that later writes do not change.
local function frozen(value)
  return type(value) == 'string' and value or {kind = value.kind, fields = copy(value.fields)}
end

-- How many values cross to Python at once; Lua's C stack holds 8000.
local WIDE = 400

-- A reply as it crosses to Python, all at once: a list is `true`, its length, and its items.
local function flatten(flat, value)
  if type(value) ~= 'table' then
    flat[#flat + 1] = value == true and 1 or value
    return
  end
  flat[#flat + 1] = true
  flat[#flat + 1] = #value
  for i = 1, #value do
    flatten(flat, value[i])
  end
end

local function sent(reply)
  if type(reply) ~= 'table' then
    return reply == true and 1 or reply
  end
  local flat = {}
  flatten(flat, reply)
  if #flat > WIDE then
    return flat
  end
  return unpack(flat)
end

local function new(undo_depth)
  local data, expires = {}, {} -- key -> string or {kind, fields}; key -> ms, if it expires
  -- What was there before each write of this call, three entries each, `n` in all; one such list
  -- per call.
  local written, n_written, undo = {}, 0, {}
  local now, replid, info = 0, '', ''
  local soonest = huge -- when the next key expires, or earlier
  local fake, commands = {}, {}

  local function find(key, kind)
    local value = data[key]
    if value == nil then
      return nil
    end
    if kind and (type(value) == 'string' and 'string' or value.kind) ~= kind then
      error('WRONGTYPE ' .. key .. ' is no ' .. kind, 0)
    end
    return value
  end

  -- `false` stands for what was not there: a list has no gaps.
  local function remember(where, first, second)
    local n = n_written
    written[n + 1], written[n + 2], written[n + 3] = where, first or false, second or false
    n_written = n + 3
  end

  local function put(key, value, expiry)
    remember(key, data[key], expires[key])
    data[key], expires[key] = value, expiry
    if expiry and expiry < soonest then
      soonest = expiry
    end
  end

  -- What expired is gone for good, even if the clock jumps back.
  local function begin(at)
    now = at
    if now < soonest then
      return
    end
    soonest = huge
    for key, expiry in pairs(copy(expires)) do
      if expiry <= now then
        data[key], expires[key] = nil, nil
      else
        soonest = min(soonest, expiry)
      end
    end
  end

  local function fields_of(key, kind)
    local value = find(key, kind)
    return value and value.fields or {}
  end

  -- The fields of a key that is to be written to; it is there from now on.
  local function made(key, kind)
    local value = find(key, kind)
    if not value then
      value = {kind = kind, fields = {}}
      put(key, value, nil)
    end
    return value.fields
  end

  local function write(fields, field, value)
    remember(fields, field, fields[field])
    fields[field] = value
  end

  local function revert(writes)
    for i = writes.n - 2, 1, -3 do
      local where, first, second = writes[i], writes[i + 1], writes[i + 2]
      if type(where) == 'table' then
        where[first] = second or nil
      else
        data[where], expires[where] = first or nil, second or nil
      end
    end
  end

  local function check(value)
    if type(value) ~= 'string' then
      error('a script hands ' .. type(value) .. ' to a command: format it first', 0)
    end
    return value
  end

  local function discard(key, kind, field)
    if fields_of(key, kind)[field] == nil then
      return 0
    end
    local fields = made(key, kind)
    write(fields, field, nil)
    if next(fields) == nil then
      put(key, nil, nil)
    end
    return 1
  end

  function commands.TIME()
    return {format('%d', floor(now / 1000)), format('%d', now % 1000 * 1000)}
  end

  function commands.INFO(section)
    if section ~= 'replication' then
      error('the simulated store has no INFO section ' .. section, 0)
    end
    return info
  end

  function commands.EXISTS(key)
    return find(key) and 1 or 0
  end

  function commands.GET(key)
    return find(key, 'string') or false
  end

  function commands.SET(key, value, px, ttl)
    if px ~= 'PX' then
      error('the simulated store knows SET with PX only', 0)
    end
    put(key, check(value), now + ttl)
    return {ok = 'OK'}
  end

  function commands.PERSIST(key)
    local value = find(key)
    if not value or not expires[key] then
      return 0
    end
    put(key, value, nil)
    return 1
  end

  function commands.UNLINK(key)
    if not find(key) then
      return 0
    end
    put(key, nil, nil)
    return 1
  end

  function commands.HSET(key, ...)
    local pairs_, added = {...}, 0
    if #pairs_ == 0 or #pairs_ % 2 == 1 then
      error('wrong number of arguments for HSET', 0)
    end
    local fields = made(key, 'hash')
    for i = 1, #pairs_, 2 do
      local field, value = check(pairs_[i]), check(pairs_[i + 1])
      if fields[field] == nil then
        added = added + 1
      end
      write(fields, field, value)
    end
    return added
  end

  function commands.HGET(key, field)
    return fields_of(key, 'hash')[field] or false
  end

  function commands.HMGET(key, ...)
    local fields, reply = fields_of(key, 'hash'), {...}
    for i = 1, #reply do
      reply[i] = fields[reply[i]] or false
    end
    return reply
  end

  function commands.HGETALL(key)
    local fields, reply = fields_of(key, 'hash'), {}
    for _, field in ipairs(sorted_keys(fields)) do
      reply[#reply + 1] = field
      reply[#reply + 1] = fields[field]
    end
    return reply
  end

  function commands.HLEN(key)
    return #sorted_keys(fields_of(key, 'hash'))
  end

  function commands.TYPE(key)
    local value = find(key)
    return {ok = not value and 'none' or type(value) == 'string' and 'string' or value.kind}
  end

  function commands.HKEYS(key)
    return sorted_keys(fields_of(key, 'hash'))
  end

  function commands.HVALS(key)
    local fields = fields_of(key, 'hash')
    local reply = sorted_keys(fields)
    for i, field in ipairs(reply) do
      reply[i] = fields[field]
    end
    return reply
  end

  function commands.HEXISTS(key, field)
    return fields_of(key, 'hash')[field] and 1 or 0
  end

  function commands.HDEL(key, field)
    return discard(key, 'hash', field)
  end

  function commands.SADD(key, member)
    if fields_of(key, 'set')[check(member)] then
      return 0
    end
    write(made(key, 'set'), member, true)
    return 1
  end

  function commands.SISMEMBER(key, member)
    return fields_of(key, 'set')[member] and 1 or 0
  end

  function commands.SREM(key, member)
    return discard(key, 'set', member)
  end

  function commands.SMEMBERS(key)
    return sorted_keys(fields_of(key, 'set'))
  end

  function commands.PUBLISH()
    return 0  -- nobody listens: who is told by chance must not depend on it
  end

  local function call(name, ...)
    local command = commands[name]
    if not command then
      error('the simulated store does not know the command ' .. name, 0)
    end
    return command(...)
  end

  local function try(name, ...)
    local ok, reply = pcall(call, name, ...)
    return ok and reply or {err = reply}
  end

  local server = {call = call, pcall = try}

  local function finish(ok, reply)
    if n_written > 0 then
      written.n, undo[#undo + 1] = n_written, written
      -- What is too old to be taken back is written over: a list that has grown once is quick.
      written, n_written = #undo > undo_depth and remove(undo, 1) or {}, 0
    end
    if not ok then
      error(reply, 0)
    end
    return reply
  end

  local function greet(at, id)
    begin(at)
    if id ~= replid then
      replid = id
      info = '# Replication\r\nrole:master\r\nmaster_replid:' .. id .. '\r\n'
    end
  end

  -- What a script is given: one by one, or in one list if it is much. Most have one key.
  local function operands(n_keys, first, ...)
    if n_keys == 1 and type(first) ~= 'table' then
      return {first}, {...}
    end
    local keys, args = type(first) == 'table' and first or {first, ...}, {}
    for i = n_keys + 1, #keys do
      args[i - n_keys], keys[i] = keys[i], nil
    end
    return keys, args
  end

  -- What a script wrote before it failed stays written, as on the server.
  function fake.run(at, id, script, n_keys, ...)
    greet(at, id)
    return sent(finish(pcall(script, server, operands(n_keys, ...))))
  end

  -- What is of another type is absent to who loads a checkpoint.
  local function answer(...)
    local ok, reply = pcall(call, ...)
    if not ok and string.sub(reply, 1, 9) ~= 'WRONGTYPE' then
      error(reply, 0)
    end
    return ok and reply
  end

  -- Plain commands, each behind the number of its parts.
  local function answers(parts)
    local replies, i = {}, 1
    while i < #parts do
      local last = i + parts[i]
      replies[#replies + 1] = answer(unpack(parts, i + 1, last))
      i = last + 1
    end
    return replies
  end

  function fake.query(at, id, ...)
    greet(at, id)
    local parts = type((...)) == 'table' and (...) or {...}
    return sent(finish(pcall(answers, parts)))
  end

  function fake.snapshot()
    local values = {}
    for key, value in pairs(data) do
      values[key] = frozen(value)
    end
    return {data = values, expires = copy(expires)}
  end

  function fake.restore(snapshot)
    data, expires, undo, soonest = {}, copy(snapshot.expires), {}, 0
    for key, value in pairs(snapshot.data) do
      data[key] = frozen(value)
    end
  end

  function fake.lose_writes(count)
    local taken = min(count, #undo)
    for _ = 1, taken do
      revert(remove(undo))
    end
    soonest = 0
    return taken
  end

  -- Every living key: name, kind, whether it expires, then its value or its fields.
  function fake.dump(at)
    begin(at)
    local rows = {}
    for _, key in ipairs(sorted_keys(data)) do
      local value = find(key)
      if type(value) == 'string' then
        rows[#rows + 1] = {key, 'string', expires[key] and 1 or 0, value}
      elseif value then
        local list = value.kind == 'hash' and commands.HGETALL(key) or commands.SMEMBERS(key)
        rows[#rows + 1] = {key, value.kind, expires[key] and 1 or 0, unpack(list)}
      end
    end
    return sent(rows)
  end

  return fake
end

local function strict(_, name)
  error('a script uses the global variable ' .. name, 0)
end

local function size(list)
  return #list
end

setmetatable(G, {__index = strict, __newindex = strict})
return new, size, WIDE
