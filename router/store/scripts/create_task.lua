-- create_task: write a task record unless it is there (27). Deploying again clears its error, and
-- writes anew what never changes of it, and what is missing: some of it may be damaged.
-- ARGV: id, operator, group, kind, cost, generation, settle_ms, needs, mend.
-- Who is to `mend` writes nothing of a task that the store does not know of: it may be removed.
-- Reply: 1 new, 0 known.
local id, settle, mend = ARGV[1], tonumber(ARGV[7]), ARGV[9] == '1'
local record, now = key('task', id), clock()
local is_new = redis.call('EXISTS', record) == 0
local is_known = redis.call('SISMEMBER', prefix .. 'tasks', id) == 1
if mend and is_new and not is_known then
  return 0
end

-- Rule 26: owners may have outlived the data, all of it or this record. Workers that looked at the
-- empty store since have let a time of settling pass in which there was nothing to renew.
local is_first = redis.call('EXISTS', prefix .. 'server') == 0
local is_lost = redis.call('EXISTS', prefix .. 'tasks') == 0
  or (is_known and not fields(record, 'token')[1])
if (is_first and not mend) or (is_lost and settle > 0) then
  redis.call('HSET', prefix .. 'server', 'replid', identity(),
    'settle_until', int(now + settle), 'seen', int(now))
end
redis.call('SADD', prefix .. 'tasks', id)
be_hash(record)
local first = {
  worker = '', token = '', released = '', deadline = '0', ttl = '0', claims = '0', number = '0',
  format = '0=0', committed = '', hand = '', hand_last = '', hand_count = '0', alone = '',
  alone_until = '0', wanted_by = '', wanted_until = '0', error = '', last_error = '',
}
for field, value in pairs(first) do
  if redis.call('HEXISTS', record, field) == 0 then
    redis.call('HSET', record, field, value)
  end
end
redis.call('HSET', record, 'op', ARGV[2], 'group', ARGV[3], 'kind', ARGV[4], 'cost', ARGV[5],
  'generation', ARGV[6])
if ARGV[8] ~= '' or not legal_needs(fields(record, 'needs')[1]) then
  redis.call('HSET', record, 'needs', ARGV[8])
end
if not mend then
  redis.call('HSET', record, 'error', '')
end
return is_new and 1 or 0
