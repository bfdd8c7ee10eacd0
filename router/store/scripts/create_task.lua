-- create_task: write a task record unless it is there (27). Deploying again clears its error.
-- ARGV: id, operator, group, kind, cost, generation, settle_ms, needs. Reply: 1 new, 0 known.
local id = ARGV[1]
local now = clock()

-- Rule 26: owners may have outlived the data. Workers that looked at the empty store since have let
-- a time of settling pass in which there was nothing to renew.
if redis.call('EXISTS', prefix .. 'server') == 0
  or (tonumber(ARGV[7]) > 0 and redis.call('EXISTS', prefix .. 'tasks') == 0) then
  redis.call('HSET', prefix .. 'server', 'replid', identity(),
    'settle_until', int(now + tonumber(ARGV[7])), 'seen', int(now))
end

redis.call('SADD', prefix .. 'tasks', id)
if redis.call('EXISTS', key('task', id)) == 1 then
  redis.call('HSET', key('task', id), 'error', '')
  return 0
end
redis.call('HSET', key('task', id),
  'op', ARGV[2], 'group', ARGV[3], 'kind', ARGV[4], 'cost', ARGV[5], 'generation', ARGV[6],
  'needs', ARGV[8],
  'worker', '', 'token', '', 'released', '', 'deadline', '0', 'ttl', '0',
  'claims', '0', 'number', '0', 'format', '0', 'committed', '',
  'hand', '', 'hand_last', '', 'hand_count', '0', 'alone', '',
  'alone_until', '0',
  'wanted_by', '', 'wanted_until', '0', 'error', '', 'last_error', '')
return 1
