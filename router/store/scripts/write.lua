-- write: blobs under fresh keys, which vanish unless a commit names them in time (22).
-- KEYS: the prefix, then one per blob. ARGV: time to live in ms, then the blobs.
-- Reply: how many.
for i = 2, #KEYS do
  redis.call('SET', KEYS[i], ARGV[i], 'PX', ARGV[1])
end
return #KEYS - 1
