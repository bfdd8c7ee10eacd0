-- hand: what a suspicious owner is about to step (28). ARGV: id, token, value or ''.
-- Reply: 1 written, 0 not the caller's: it must not step.
local task = key('task', ARGV[1])
if fields(task, 'token')[1] ~= ARGV[2] then
  return 0
end
redis.call('HSET', task, 'hand', ARGV[3])
return 1
