-- After a call: its requests and tokens as they were, its slot back (unless it was given up and runs on), and what the breaker
-- makes of it.
local function settle(name, used)
  local meter = {name = name, log = at(name), use = at('use:' .. name)}
  if not redis.call('ZSCORE', meter.log, q.grant) then return end
  redis.call('ZADD', meter.log, 'LT', now, q.grant)
  if not used then return end
  local more = used - (number(at('amounts'), q.grant) or 0)
  redis.call('HINCRBY', at('amounts'), q.grant, more)
  count(meter.use, string.match(q.grant, SEP .. '(.*)$'), more)
  redis.call('HINCRBYFLOAT', state, name .. ':used', more)
  redis.call('HINCRBYFLOAT', state, name .. ':paced', PACE * more * MINUTE / number(state, name .. ':limit'))
end

-- It did not leave: as if it had not been let in.
local function take_back(name)
  local meter = {name = name, log = at(name), use = at('use:' .. name), amounts = name == 'tokens' and at('amounts') or nil}
  if redis.call('ZREM', meter.log, q.grant) == 0 then return end
  local amount = amount_of(meter, q.grant)
  meter.used = number(state, name .. ':used') or amount
  drop(meter, q.grant, amount)
  redis.call('HSET', state, name .. ':used', meter.used)
  local pace = PACE * amount * number(state, name .. ':period') / number(state, name .. ':limit')
  redis.call('HINCRBYFLOAT', state, name .. ':paced', -pace)
end

if q.unsent then
  take_back('requests')
  take_back('tokens')
else
  settle('requests')
  settle('tokens', q.used)
end
if q.slot and not q.runs_on then
  give_back(q.grant)
elseif q.slot and redis.call('ZSCORE', slots, q.grant) then
  redis.call('SADD', given_up, q.grant)
end
if q.ok == nil then
  if b.canary == q.grant and not q.runs_on then redis.call('HSET', breaker, 'canary_until', now) end
  return '{}'
end

local hold = number(state, 'hold') or q.duration
redis.call('HSET', state, 'hold', hold + (q.duration - hold) / 10)
in_minute('c')
if not q.ok then in_minute('f') end
in_minute('b' .. math.max(0, math.floor(2 * log2(math.max(q.duration * 1000, 1)))))
local change = q.terms and judge(q.terms, q.ok)
return cjson.encode({change = change or nil})
