-- leave: delete the record of a worker that stops. ARGV: worker. Reply: 1 deleted, 0 unknown.
return redis.call('HDEL', prefix .. 'workers', ARGV[1])
