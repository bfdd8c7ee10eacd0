-- status: everything about one partition at one instant; writes nothing.
-- Reply: {now, settling ms, {{worker, alive, info}...}, {{id, kind, cost, worker, lease ms,
--         claims, number, checkpoint age or '', hand, wanted by or '', error, needs,
--         last error}...}}.
local now = clock()
local settle = redis.call('HGET', prefix .. 'server', 'settle_until')

local workers, tasks = {}, {}
local records = redis.call('HGETALL', prefix .. 'workers')
for i = 1, #records, 2 do
  local deadline, span, info = string.match(records[i + 1], '^(%d+)|(%d+)|%d+|(.*)$')
  local alive = pending(deadline, now, tonumber(span)) and 1 or 0
  workers[#workers + 1] = {records[i], alive, info}
end
table.sort(workers, function(a, b) return a[1] < b[1] end)

for _, id in ipairs(sorted_tasks()) do
  local f = redis.call('HMGET', key('task', id), 'kind', 'cost', 'worker', 'token', 'deadline',
    'ttl', 'claims', 'number', 'committed', 'hand', 'wanted_by', 'wanted_until', 'error', 'needs',
    'last_error')
  if f[1] then
    local lease, age, wanted = 0, '', ''
    if f[4] ~= '' then
      lease = math.min(tonumber(f[5]) - now, tonumber(f[6]))
    end
    if f[9] ~= '' then
      age = int(math.max(0, now - tonumber(f[9])))
    end
    if tonumber(f[12]) > now then
      wanted = f[11]
    end
    tasks[#tasks + 1] = {id, f[1], f[2], f[3], int(lease), f[7], f[8], age, f[10], wanted, f[13],
      f[14] or '', f[15] or ''}
  end
end
return {int(now), int(math.max(0, tonumber(settle or '0') - now)), workers, tasks}
