-- fail_task: give a lease back with an error; nobody claims the task until it is deployed again.
-- ARGV: id, token, error. Reply: 1 marked, 0 not the caller's.
local task, token = key('task', ARGV[1]), ARGV[2]
if fields(task, 'token')[1] ~= token then
  return 0
end
redis.call('HSET', task, 'worker', '', 'token', '', 'released', token, 'deadline', int(clock()),
  'claims', '0', 'hand', '', 'hand_last', '', 'hand_count', '0', 'alone', '', 'error', ARGV[3])
return 1
