-- status: everything about one partition at one instant; writes nothing.
-- Reply: {now, settling ms, {{worker, alive, info}...}, {{id, kind, cost, worker, lease ms,
--         claims, number, checkpoint age or '', hand, wanted by or '', error, needs, last error,
--         whole}...}}.
-- A name without a record is no task: a bit of another's name was turned, or its record is lost,
-- and who knows its network writes it anew. What is damaged of a record is '' or 0; without its kind
-- or cost it is not `whole`.
local now = clock()
local settle = redis.call('HGET', prefix .. 'server', 'settle_until')

local workers, tasks = {}, {}
local records = redis.call('HGETALL', prefix .. 'workers')
for i = 1, #records, 2 do
  local deadline, span, _, info = worker_record(records[i + 1])
  local alive = deadline and pending(deadline, now, span) and 1 or 0
  workers[#workers + 1] = {records[i], alive, info or ''}
end
table.sort(workers, function(a, b) return a[1] < b[1] end)

local function row_of(id)
  local f = fields(key('task', id), 'kind', 'cost', 'worker', 'token', 'deadline',
    'ttl', 'claims', 'number', 'committed', 'hand', 'wanted_by', 'wanted_until', 'error', 'needs',
    'last_error')
  local lease, age, wanted = 0, '', ''
  if (f[4] or '') ~= '' then
    lease = math.min(number(f[5], now) - now, number(f[6], 0))
  end
  if number(f[9]) then
    age = int(math.max(0, now - number(f[9])))
  end
  if number(f[12], 0) > now then
    wanted = f[11] or ''
  end
  local whole = f[1] and number(f[2]) and legal_needs(f[14]) and '1' or '0'
  return {id, f[1] or '', int(number(f[2], 0)), f[3] or '', int(lease),
    int(number(f[7], 0)), int(number(f[8], 0)), age, f[10] or '', wanted, f[13] or '',
    legal_needs(f[14]) and f[14] or '', f[15] or '', whole}
end

for _, id in ipairs(sorted_tasks()) do
  if redis.call('EXISTS', key('task', id)) == 1 then
    tasks[#tasks + 1] = row_of(id)
  end
end
return {int(now), int(math.max(0, number(settle, 0) - now)), workers, tasks}
