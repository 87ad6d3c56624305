-- Everything a page shows, as it is now.
local answer = {breaker = b, ramp = ramping() and true or false, holders = holders(200)}
local function see(meter) answer[meter.name] = {used = meter.used, full_for = math.max((meter.full_until or 0) - now, 0)} end
if q.requests then see(window('requests', q.requests, q.period, 1)) end
if q.tokens_per_minute then see(window('tokens', q.tokens_per_minute, MINUTE, 1)) end
see(slots_of(0))
answer.waiting = redis.call('ZCARD', due)
answer.window = in_window(number(counted, 'seconds') or MINUTE)
if q.minutes then
  answer.minutes = {}
  for number = math.floor(now / 60) - q.minutes + 1, math.floor(now / 60) do
    table.insert(answer.minutes, {number, map(redis.call('HGETALL', at('minute:' .. number)))})
  end
end
return cjson.encode(answer)
