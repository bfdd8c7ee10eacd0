-- claim: lease free tasks that the caller can host (25 to 29).
-- ARGV: worker, token, ttl, free capacity, limit, newest readable format, alone, limits, n_kinds,
--       kind..., held id...
-- Reply: {settling ms, {{id, kind, cost, claims, number, hand_last, hand_count, previous worker,
--         idle ms}...}, {id of a suspicious task that needs a process of its own...},
--         ms until the first lease runs out that is held now, '' when none is}.
local worker, token, ttl = ARGV[1], ARGV[2], tonumber(ARGV[3])
local capacity, limit, readable = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local alone, limits, n_kinds = ARGV[7], ARGV[8], tonumber(ARGV[9])
local kinds, held = {}, {}
for i = 10, 9 + n_kinds do
  kinds[ARGV[i]] = true
end

local now = clock()
local wait = settling(now, ttl)
local claimed, suspicious = {}, {}

-- Written twice, since a wrong one would leave the task to nobody; what is damaged is looked at.
local function format_of(text)
  local once, again = string.match(text or '', '^(%d+)=(%d+)$')
  return once == again and number(once, 0) or 0
end

local function read(id)
  local f = fields(key('task', id),
    'kind', 'cost', 'token', 'released', 'deadline', 'ttl', 'claims', 'number', 'format', 'error',
    'hand', 'hand_last', 'hand_count', 'alone_until', 'wanted_by', 'wanted_until', 'worker',
    'alone', 'needs')
  if not f[1] or not number(f[2]) then -- unknown, or damaged: `status` tells, deployment mends
    return nil
  end
  local span = number(f[6], ttl)
  return {
    id = id, kind = f[1], cost = tonumber(f[2]), token = f[3] or '', released = f[4] or '',
    deadline = number(f[5], now + span), ttl = span, claims = number(f[7], 0),
    number = int(number(f[8], 0)), format = format_of(f[9]), error = f[10] or '',
    hand = f[11] or '', hand_last = f[12] or '', hand_count = number(f[13], 0),
    alone_until = f[14] or '0', wanted_by = f[15] or '', wanted_until = f[16] or '0',
    worker = f[17] or '', alone = f[18] or '', needs = f[19], is_dated = number(f[5]) ~= nil,
  }
end

-- Rule 25: a deadline beyond now + TTL counts as now + TTL. It is written back, else a clock
-- that jumped back would keep a dead owner's lease for as long as the jump. One that cannot be read
-- counts as that, too.
local function free(task)
  if task.token == '' then
    return true
  end
  if task.deadline > now + task.ttl or not task.is_dated then
    task.deadline = math.min(task.deadline, now + task.ttl)
    redis.call('HSET', key('task', task.id), 'deadline', int(task.deadline))
  end
  return task.deadline <= now
end

local function grant(task)
  -- Rule 28: the same (stream, window) in the hands of two vanished owners in a row. Only owners
  -- that ran the task alone show their hands; others in between neither add to the row nor end it.
  local last, count = task.hand_last, task.hand_count
  if task.alone == '1' and task.hand == '' then
    last, count = '', 0
  elseif task.alone == '1' then
    last, count = task.hand, task.hand == last and count + 1 or 1
  end
  redis.call('HSET', key('task', task.id),
    'worker', worker, 'token', token, 'deadline', int(now + ttl), 'ttl', int(ttl),
    'claims', int(task.claims + 1), 'hand', '', 'hand_last', last, 'hand_count', int(count),
    'alone', task.claims >= 2 and '1' or '', 'wanted_by', '', 'wanted_until', '0',
    'alone_until', '0')
  local idle = 0
  if task.deadline > 0 then
    idle = now - task.deadline
  end
  claimed[#claimed + 1] = {task.id, task.kind, int(task.cost), int(task.claims + 1), task.number,
    last, int(count), task.worker, int(idle)}
end

-- Rule 27: the caller held these when the store forgot who did. Also while settling (26).
for i = 10 + n_kinds, #ARGV do
  local task = read(ARGV[i])
  held[ARGV[i]] = true
  if task and task.token == '' and task.released == '' and task.error == '' then
    grant(task)
    capacity = capacity - task.cost
  end
end

if wait > 0 then
  return {int(wait), claimed, suspicious, ''}
end

local function suits(task)
  return kinds[task.kind] and task.cost <= capacity and task.format <= readable
    and within(task.needs, limits) and task.error == '' and free(task)
end

if alone ~= '' then
  local task = read(alone)
  if task and suits(task) then
    grant(task)
  end
  return {'0', claimed, suspicious, ''}
end

-- Whether a task is surely leased: most are, and then the rest of its record is not needed.
local first = nil
local function leased(id)
  local f = fields(key('task', id), 'token', 'deadline', 'ttl')
  if (f[1] or '') == '' or not pending(f[2], now, number(f[3], 0)) then
    return false
  end
  first = math.min(first or math.huge, tonumber(f[2]) - now)
  return true
end

for _, id in ipairs(sorted_tasks()) do
  local task = not held[id] and not leased(id) and read(id)
  if task and suits(task) then
    if task.claims >= 2 then
      -- Rule 28: not into a process that runs other tasks. One caller at a time is told; a process
      -- takes seconds to start, and on a busy machine more.
      if not pending(task.alone_until, now, 5 * ttl) then
        redis.call('HSET', key('task', id), 'alone_until', int(now + 5 * ttl))
        suspicious[#suspicious + 1] = id
      end
    elseif limit > 0
      and (task.wanted_by == worker or not pending(task.wanted_until, now, ttl)) then
      grant(task)
      limit = limit - 1
      capacity = capacity - task.cost
    end
  end
end
return {'0', claimed, suspicious, first and int(first) or ''}
