-- want: reserve one task of the most loaded worker, if that one stays at least as loaded as the
-- caller (29). A task's load is its cost and the overhead that any task has. Loads are exact in this
-- partition; those elsewhere are as last renewed.
-- ARGV: worker, ttl, free capacity, elsewhere, overhead, limits, kind...
-- Reply: id, or '' when all is fair.
local worker, ttl, capacity = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local overhead, limits = tonumber(ARGV[5]), ARGV[6]
local kinds = {}
for i = 7, #ARGV do
  kinds[ARGV[i]] = true
end

local now = clock()
if settling(now, ttl) > 0 then
  return ''
end

local load = {}
local records = redis.call('HGETALL', prefix .. 'workers')
for i = 1, #records, 2 do
  local deadline, span, elsewhere = worker_record(records[i + 1])
  if deadline and pending(deadline, now, span) then
    load[records[i]] = elsewhere
  end
end
load[worker] = tonumber(ARGV[4])

local movable, asked = {}, {}
for _, id in ipairs(sorted_tasks()) do
  local f = fields(key('task', id), 'kind', 'cost', 'token', 'deadline', 'worker',
    'claims', 'wanted_by', 'wanted_until', 'needs')
  if f[1] and f[5] and number(f[2]) and (f[3] or '') ~= '' and number(f[4], 0) > now then
    local cost, owner, heir = tonumber(f[2]), f[5], f[5]
    if (f[7] or '') ~= '' and pending(f[8], now, ttl) then
      heir = f[7]
      asked[owner] = true
    elseif owner ~= worker and kinds[f[1]] and cost <= capacity and number(f[6], 0) <= 2
      and within(f[9], limits) then
      movable[#movable + 1] = {id, owner, cost + overhead}
    end
    if heir == worker and heir ~= owner then
      return ''
    end
    if load[heir] then
      load[heir] = load[heir] + cost + overhead
    end
  end
end

local best
for _, move in ipairs(movable) do
  local giver, weight = load[move[2]], move[3]
  if giver and not asked[move[2]] and giver - weight >= load[worker] + weight
    and (not best or giver > best.load or (giver == best.load and weight > best.weight)) then
    best = {id = move[1], load = giver, weight = weight}
  end
end
if not best then
  return ''
end
redis.call('HSET', key('task', best.id), 'wanted_by', worker, 'wanted_until', int(now + ttl))
return best.id
