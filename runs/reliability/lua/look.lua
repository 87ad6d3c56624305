-- Everything a page shows, as it is now.
local answer = {keys = {}, breaker = b, ramp = ramping() and true or false, holders = holders(200)}
local function of_key(key)
  answer.keys[key] = answer.keys[key] or {requests = 0, tokens = 0, slots = 0, waiting = 0}
  return answer.keys[key]
end
for key, length in pairs(map(redis.call('HGETALL', waiting))) do of_key(key).waiting = tonumber(length) end
local function see(meter)
  answer[meter.name] = {used = meter.used, full_for = math.max((meter.full_until or 0) - now, 0)}
  for key, used in pairs(map(redis.call('HGETALL', meter.use))) do of_key(key)[meter.name] = tonumber(used) end
end
if q.requests then see(window('requests', q.requests, q.period, 1)) end
if q.tokens_per_minute then see(window('tokens', q.tokens_per_minute, MINUTE, 1)) end
see(slots_of(0))
answer.waiting = redis.call('ZCARD', due)
answer.window = in_window(number(counted, 'seconds') or MINUTE)
return cjson.encode(answer)
