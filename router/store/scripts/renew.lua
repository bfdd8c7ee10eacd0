-- renew: prolong leases, expired ones too if nobody took them: owners come first (26).
-- ARGV: worker, ttl, elsewhere, info, (id, token)...
-- Reply: one number per lease: 0 ok, 1 wanted by another worker, 2 lost, 3 vanished (27).
local worker, ttl = ARGV[1], tonumber(ARGV[2])
local now = clock()
local deadline = int(now + ttl)
settling(now, ttl)
redis.call('HSET', prefix .. 'workers', worker,
  deadline .. '|' .. ARGV[2] .. '|' .. ARGV[3] .. '|' .. ARGV[4])

local outcomes = {}
for i = 5, #ARGV, 2 do
  local f = fields(key('task', ARGV[i]), 'token', 'released', 'wanted_until')
  local outcome
  if not f[1] or (f[1] == '' and (f[2] or '') == '') then
    outcome = 3
  elseif f[1] ~= ARGV[i + 1] then
    outcome = 2
  else
    redis.call('HSET', key('task', ARGV[i]), 'worker', worker, 'deadline', deadline,
      'ttl', ARGV[2])
    outcome = pending(f[3], now, ttl) and 1 or 0
  end
  outcomes[#outcomes + 1] = outcome
end
return outcomes
