-- commit: make a checkpoint the task's state, all of it or nothing (22).
-- ARGV: id, token, number, full, format, head blob, n_positions, n_changed, n_deleted, n_kept,
--       caught up, mends, entries, (topic, offset, mark)..., (field, cursor, blob)..., deleted field..., kept field...
-- Who `mends` found damage at its claim: what is stored is no floor for it. `entries` is how many
-- streams the owner knows to be stored, '' when it does not: another number is as good as another
-- checkpoint.
-- Reply: 0 done; 1 token, 2 number, 3 backwards, 4 blob missing: refused, nothing written.
local id, token, number, full = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4] == '1'
local head = ARGV[6]
local mends, entries = ARGV[12] == '1', ARGV[13]
local first_position = 14
local first_changed = first_position + 3 * tonumber(ARGV[7])
local first_deleted = first_changed + 3 * tonumber(ARGV[8])
local first_kept = first_deleted + tonumber(ARGV[9])
local last = first_kept + tonumber(ARGV[10]) - 1
local task, streams = key('task', id), key('streams', id)
local positions, heads = key('pos', id), key('head', id)

-- Refusals come before the first write.
local known = fields(task, 'token', 'number')
if known[1] ~= token then
  return 1
end
if not full and tonumber(known[2]) ~= number - 1 then
  return 2
end
if full then
  be_hash(streams)
  be_hash(positions)
  be_hash(heads)
elseif entries ~= '' and redis.call('HLEN', streams) ~= tonumber(entries) then
  return 2
end

-- A reference as commits write it; nothing of a damaged one that is to be replaced.
local function reference_of(field)
  local text = redis.call('HGET', streams, field)
  if text then
    return string.match(text, '^(%d+)|([^|]*)|(.*)$')
  end
end

for i = first_position, first_changed - 1, 3 do
  local stored = redis.call('HGET', positions, ARGV[i])
  local at = stored and tonumber(string.match(stored, '^%d+') or '0')
  if at and at > tonumber(ARGV[i + 1]) and not mends then
    return 3
  end
end
local references = {}
for i = first_changed, first_deleted - 1, 3 do
  local cursor, current, previous = reference_of(ARGV[i])
  if cursor then
    if tonumber(cursor) > tonumber(ARGV[i + 1]) and not mends then
      return 3
    end
    references[ARGV[i]] = {current, previous}
  end
end

if redis.call('EXISTS', head) == 0 then
  return 4
end
for i = first_changed, first_deleted - 1, 3 do
  if redis.call('EXISTS', ARGV[i + 2]) == 0 then
    return 4
  end
end
local kept = {}
for i = first_kept, last do
  if redis.call('HEXISTS', streams, ARGV[i]) == 0 then
    return 4
  end
  kept[ARGV[i]] = true
end

-- From here on everything is written. The current version becomes the previous one (24).
local function drop(field)
  local _, current, previous = reference_of(field)
  unlink(current)
  unlink(previous)
  redis.call('HDEL', streams, field)
end

local old = redis.call('HMGET', heads, 'current', 'previous')
if old[1] ~= head then
  unlink(old[2])
  redis.call('HSET', heads, 'current', head, 'previous', old[1] or '')
end
redis.call('PERSIST', head)

for i = first_changed, first_deleted - 1, 3 do
  local field, blob = ARGV[i], ARGV[i + 2]
  local current, previous = '', ''
  if references[field] then
    current, previous = references[field][1], references[field][2]
  end
  if current ~= blob then
    unlink(previous)
    previous = current
  end
  redis.call('HSET', streams, field, ARGV[i + 1] .. '|' .. blob .. '|' .. previous)
  redis.call('PERSIST', blob)
  kept[field] = true
end
for i = first_deleted, first_kept - 1 do
  drop(ARGV[i])
end
if full then
  for _, field in ipairs(redis.call('HKEYS', streams)) do
    if not kept[field] then
      drop(field)
    end
  end
end
for i = first_position, first_changed - 1, 3 do
  redis.call('HSET', positions, ARGV[i], ARGV[i + 1] .. '|' .. ARGV[i + 2])
end
-- What the owner has in hand stays: it may be stepping it while this older state is committed (28).
redis.call('HSET', task, 'number', int(number), 'format', ARGV[5] .. '=' .. ARGV[5], 'committed', int(clock()))
if ARGV[11] == '1' then -- the owner survived all that its predecessor may have died of
  redis.call('HSET', task, 'claims', '0', 'last_error', '')
end
return 0
