-- Put before every script: the partition's keys, the server's clock, the store's identity.
-- KEYS[1] is the prefix of the partition's keys, hash tag included. Scripts touch no other slot.
local prefix = KEYS[1]

local function key(kind, id)
  return prefix .. kind .. ':' .. id
end

local function int(number)
  return string.format('%.0f', number)
end

local function clock()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

-- A reservation beyond what the clock allows was made before the clock jumped: it is over (25).
local function pending(deadline, now, span)
  local left = tonumber(deadline) - now
  return left > 0 and left <= span
end

-- Whether what a task needs is there: lists of as many numbers, '-' for a limit that is none.
-- A node with limits takes nothing of which the needs are not known.
local function within(needs, limits)
  if limits == '' then
    return true
  end
  if not needs or needs == '' then
    return false
  end
  local limit = string.gmatch(limits, '%S+')
  for need in string.gmatch(needs, '%S+') do
    local most = limit()
    if most ~= '-' and tonumber(need) > tonumber(most) then
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
    if redis.call('HGET', key('task', id), 'token') ~= '' then
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
  if known[1] ~= id then
    redis.call('HSET', server, 'replid', id, 'settle_until', int(now + ttl), 'seen', int(now))
    return ttl
  end
  local settled, seen = tonumber(known[2]), tonumber(known[3])
  -- Settling that was over stays over, and lasts no more than a TTL, when the clock jumps back.
  local stop = math.min(settled, settled > seen and now + ttl or now)
  if now - math.max(stop, seen) > ttl and anything_leased() then
    stop = now + ttl
  end
  redis.call('HSET', server, 'settle_until', int(stop), 'seen', int(now))
  return math.max(0, stop - now)
end
