-- blame: why an owner ended that could still say so; it stands there until one has caught up (28).
-- ARGV: id, token, error. Reply: 1 written, 0 not the caller's.
local task = key('task', ARGV[1])
if redis.call('HGET', task, 'token') ~= ARGV[2] then
  return 0
end
redis.call('HSET', task, 'last_error', ARGV[3])
return 1
