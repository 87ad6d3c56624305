-- A call that leaves later than was thought when it was let in counts from now on; false where it may not leave any more,
-- because what it was given is no longer its own: a place in a window, a slot, or to be the canary.
local counts = b.state == 'closed' or b.canary == q.grant
for _, name in ipairs({'requests', 'tokens'}) do
  if redis.call('ZSCORE', at(name), q.grant) then
    redis.call('ZADD', at(name), 'GT', now + q.within, q.grant)
  elseif redis.call('HEXISTS', state, name .. ':mark') == 1 or not redis.call('HGET', state, 'calls') then
    counts = false
  end
end
if q.slot then
  if redis.call('ZSCORE', slots, q.grant) then redis.call('ZADD', slots, now + q.lease, q.grant) else counts = false end
end
if counts and b.canary == q.grant then redis.call('HSET', breaker, 'canary_until', now + q.lease) end
return cjson.encode({counts = counts})
