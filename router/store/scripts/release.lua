-- release: give a lease back. Who leaves politely was not killed by its task (28). Workers that
-- listen come for it at once; the others with their next claim.
-- ARGV: id, token. Reply: 1 released, 0 not the caller's.
local task, token = key('task', ARGV[1]), ARGV[2]
if fields(task, 'token')[1] ~= token then
  return 0
end
redis.call('HSET', task, 'worker', '', 'token', '', 'released', token, 'deadline', int(clock()),
  'claims', '0', 'hand', '', 'hand_last', '', 'hand_count', '0', 'alone', '', 'last_error', '')
redis.call('PUBLISH', prefix .. 'released', ARGV[1])
return 1
