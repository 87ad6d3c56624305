-- A call that leaves later than was thought when it was let in counts from now on; false where it counts no more.
local counts = true
for _, name in ipairs({'requests', 'tokens'}) do
  if redis.call('ZSCORE', at(name), q.grant) then
    redis.call('ZADD', at(name), 'GT', now + q.within, q.grant)
  elseif redis.call('HEXISTS', state, name .. ':mark') == 1 or not redis.call('HGET', state, 'calls') then
    counts = false
  end
end
return cjson.encode({counts = counts})
