-- Put before every script: the partition's keys, the server's clock, the store's identity.
-- KEYS[1] is the prefix of the partition's keys, hash tag included. Scripts touch no other slot.
local prefix = KEYS[1]

local function key(kind, id)
  return prefix .. kind .. ':' .. id
end

local function int(number)
  return string.format('%.0f', number)
end

-- A number as scripts write them, or `instead` of what is damaged: one damaged field must not stop
-- the tasks beside it.
local function number(text, instead)
  return type(text) == 'string' and string.match(text, '^%d+$') and tonumber(text) or instead
end

-- Fields of a hash; all of them false where the key is of another type.
local function fields(name, ...)
  local found = redis.pcall('HMGET', name, ...)
  if found.err then
    found = {...}
    for i = 1, #found do
      found[i] = false
    end
  end
  return found
end

-- What a script is about to write as a hash must be none of another type: nobody could ever.
local function be_hash(name)
  local kind = redis.call('TYPE', name).ok
  if kind ~= 'hash' and kind ~= 'none' then
    redis.call('UNLINK', name)
  end
end

-- Only what is a blob of this partition: a damaged key may name anything.
local function unlink(blob)
  local own = prefix .. 'blob:'
  if blob and string.sub(blob, 1, #own) == own then
    redis.call('UNLINK', blob)
  end
end

-- A worker's record: deadline, time to live, load elsewhere, and the rest; nil if it is damaged.
local function worker_record(text)
  local deadline, span, elsewhere, info = string.match(text, '^(%d+)|(%d+)|(%d+)|(.*)$')
  if deadline then
    return tonumber(deadline), tonumber(span), tonumber(elsewhere), info
  end
end

local function clock()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

-- A reservation beyond what the clock allows was made before the clock jumped: it is over (25).
local function pending(deadline, now, span)
  local left = (type(deadline) == 'number' and deadline or number(deadline, 0)) - now
  return left > 0 and left <= span
end

-- What a task needs: numbers, or nothing where that is not known.
local function legal_needs(needs)
  return type(needs) == 'string' and string.match(needs, '^[%d ]*$') ~= nil
end

-- Whether what a task needs is there: lists of as many numbers, '-' for a limit that is none.
-- A node with limits takes nothing of which the needs are not known.
local function within(needs, limits)
  if limits == '' then
    return true
  end
  if not legal_needs(needs) or needs == '' then
    return false
  end
  local limit = string.gmatch(limits, '%S+')
  for need in string.gmatch(needs, '%S+') do
    local most = limit()
    if most and most ~= '-' and number(need, math.huge) > tonumber(most) then
      return false
    end
  end
  return true
end

local function identity()
  return string.match(redis.call('INFO', 'replication'), 'master_replid:(%w+)')
end

local function sorted_tasks()
  local ids = redis.call('SMEMBERS', prefix .. 'tasks')
  table.sort(ids)
  return ids
end

local function anything_leased()
  for _, id in ipairs(redis.call('SMEMBERS', prefix .. 'tasks')) do
    local token = fields(key('task', id), 'token')[1]
    if token and token ~= '' then
      return true
    end
  end
  return false
end

-- Rule 26: how long claims are refused still, in milliseconds. The store settles for one TTL
-- when its identity changed (restart, failover), when it forgot it (lost data), and when it was
-- silent for a TTL although tasks are leased (an outage, or its clock jumped ahead).
local function settling(now, ttl)
  local server = prefix .. 'server'
  local id = identity()
  local known = redis.call('HMGET', server, 'replid', 'settle_until', 'seen')
  local settled, seen = number(known[2]), number(known[3])
  if known[1] ~= id or not settled or not seen then
    redis.call('HSET', server, 'replid', id, 'settle_until', int(now + ttl), 'seen', int(now))
    return ttl
  end
  -- Settling that was over stays over, and lasts no more than a TTL, when the clock jumps back.
  local stop = math.min(settled, settled > seen and now + ttl or now)
  if now - math.max(stop, seen) > ttl and anything_leased() then
    stop = now + ttl
  end
  redis.call('HSET', server, 'settle_until', int(stop), 'seen', int(now))
  return math.max(0, stop - now)
end
