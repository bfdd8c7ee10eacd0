-- remove_task: delete a task's record, its checkpoint and every blob it refers to (31).
-- ARGV: id. Reply: 1 removed, 0 unknown.
local id = ARGV[1]

be_hash(key('streams', id))
be_hash(key('head', id))
for _, reference in ipairs(redis.call('HVALS', key('streams', id))) do
  for blob in string.gmatch(reference, '[^|]+') do
    unlink(blob)
  end
end
for _, blob in ipairs(redis.call('HVALS', key('head', id))) do
  unlink(blob)
end
redis.call('UNLINK', key('streams', id))
redis.call('UNLINK', key('head', id))
redis.call('UNLINK', key('pos', id))
redis.call('SREM', prefix .. 'tasks', id)
return redis.call('UNLINK', key('task', id))
