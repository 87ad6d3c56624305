-- Before a call: may it be made now? Takes everything it needs, or nothing.
local function before(other, mine)
  if other.share ~= mine.share then return other.share < mine.share end
  return other.last < mine.last
end

lapse()
local meters = {}
local function limited(name, limit, period, cost)
  if limit then table.insert(meters, window(name, limit, period, cost)) elseif q.windows then forget_window(name) end
end
limited('requests', q.requests, q.period, 1)
limited('tokens', q.tokens_per_minute, MINUTE, math.max(q.tokens or 0, 1))
if q.concurrency then
  table.insert(meters, slots_of(q.concurrency))
elseif q.windows then
  redis.call('HSET', state, 'slots:free', now)
end

local sides = {}
local function side(key)
  if not sides[key] then
    local found = {share = 0, last = number(at('last'), key) or 0}
    for _, meter in ipairs(meters) do
      found.share = math.max(found.share, (number(meter.use, key) or 0) / meter.limit)
    end
    sides[key] = found
  end
  return sides[key]
end

local active = redis.call('HLEN', waiting)
for _, meter in ipairs(meters) do active = math.max(active, redis.call('HLEN', meter.use)) end
local mine = side(q.key)
local light = mine.share < 1 / (active + 1)
local free = math.huge
for _, meter in ipairs(meters) do free = math.min(free, room(meter, light)) end

-- Those who are to come now and go first: of keys that have used less; and of the same key, before one that is early.
local function ahead()
  local me, others = q.key .. SEP .. q.ticket, 0
  local told = tonumber(redis.call('ZSCORE', due, me))
  local on_time = told and told <= now + EARLY
  for _, who in ipairs(redis.call('ZRANGEBYSCORE', due, now - PROTECT, now + EARLY, 'LIMIT', 0, 200)) do
    local key = string.match(who, '^(.-)' .. SEP)
    if key == q.key then
      if not on_time and who ~= me then others = others + 1 end
    elseif before(side(key), mine) then
      others = others + 1
    end
    if others >= free then break end
  end
  return others
end

local place = rank()
local first = (free == math.huge) and 0 or ahead()
local position = position(place) + first
local says, seconds, next_try = 'closed', nil, nil
if q.terms then says, seconds, next_try = verdict(position) end

-- Nobody is sent away for longer than LOOK, at times of their own: limits are raised and others give up meanwhile. Who
-- looks before its turn keeps its place, and gets in only where nobody whose turn it is wants to.
local function held_back(answer, moment)
  come_back(math.max(moment, now + SOON))
  in_minute('h')
  answer.seconds = math.max(moment - now, SOON)
  if answer.seconds > LOOK then answer.seconds = LOOK * (0.5 + position * 0.618034 % 1 / 2) end
  return cjson.encode(answer)
end

local latest, binding = now, meters[1]
for _, meter in ipairs(says == 'wait' and meters or free <= first and meters or {}) do
  local moment = opens(meter, position, light)
  if moment > latest then latest, binding = moment, meter end
end

if says == 'wait' then
  local moment = math.max(now + seconds, latest)
  return held_back({cause = 'open', state = b.state, why = b.why or '', next_try = next_try}, moment)
end
if free <= first then
  local answer = {cause = binding.name, used = binding.used, limit = binding.limit}
  if binding.name == 'slots' then answer.holders = holders(20) end
  return held_back(answer, latest)
end

local answer = {grant = '', canary = says == 'canary', within = 0}
give_up_place(q.key .. SEP .. q.ticket)
if answer.canary then
  answer.change = begin_canary(q.terms)
elseif b.ramp_since then
  if ramping() then redis.call('HINCRBY', breaker, 'ramped', 1) else redis.call('HDEL', breaker, 'ramp_since', 'ramped') end
end
if #meters > 0 then
  answer.grant = string.format('%.0f-%d', now * 1000000, redis.call('HINCRBY', state, 'calls', 1)) .. SEP .. q.key
  redis.call('HSET', at('last'), q.key, now)
  redis.call('EXPIRE', at('last'), DAY)
end
for _, meter in ipairs(meters) do
  if meter.name == 'slots' then take_slot(meter) else spend(meter, answer.grant) end
  answer.within = math.max(answer.within, meter.lag)
end
return cjson.encode(answer)
