-- Before a call: may it be made now? Takes everything it needs, or nothing.
local function before(other, mine)
  if other.share ~= mine.share then return other.share < mine.share end
  return other.last < mine.last
end

lapse()
local meters, tokens = {}, nil
local function limited(name, limit, period, cost)
  if not limit then return q.windows and forget_window(name) end
  local meter = window(name, limit, period, cost)
  table.insert(meters, meter)
  return meter
end
limited('requests', q.requests, q.period, 1)
tokens = limited('tokens', q.tokens_per_minute, MINUTE, math.max(q.tokens or 0, 1))
if q.concurrency then
  table.insert(meters, slots_of(q.concurrency))
elseif q.windows then
  redis.call('HSET', state, 'slots:free', now)
end

local grant = q.grant .. SEP .. q.key
-- So soon it is to leave, or it must be stamped anew: what it was given may else be another's by then.
local function let_in(canary, change)
  local within = canary and q.lease / 2 or math.huge
  for _, meter in ipairs(meters) do within = math.min(within, meter.name == 'slots' and q.lease / 2 or meter.lag) end
  return cjson.encode({grant = grant, canary = canary, change = change, within = within < math.huge and within or 0})
end

local has_it = b.canary == grant
for _, meter in ipairs(meters) do has_it = has_it or redis.call('ZSCORE', meter.log or slots, grant) end
if has_it then -- the answer was lost on the way, and it asks again
  return let_in(b.canary == grant, b.first == grant and {old = 'open', new = 'half-open', why = b.why} or nil)
end

-- When a call of each key was last let in. Tenants come and go: the oldest are forgotten.
local turns, KEYS_KNOWN = at('turns'), 10000
local sides = {}
local function side(key)
  if not sides[key] then
    local found = {share = 0, last = tonumber(redis.call('ZSCORE', turns, key)) or 0}
    for _, meter in ipairs(meters) do
      found.share = math.max(found.share, (number(meter.use, key) or 0) / meter.limit)
    end
    sides[key] = found
  end
  return sides[key]
end

local active = redis.call('HLEN', waiting)
for _, meter in ipairs(meters) do active = math.max(active, redis.call('HLEN', meter.use)) end
local me, mine = q.key .. SEP .. q.ticket, side(q.key)
local light = mine.share < 1 / (active + 1)
local free, full = math.huge, false
for _, meter in ipairs(meters) do
  meter.room = room(meter, light)
  full = full or meter.room <= 0
  if meter ~= tokens then free = math.min(free, meter.room) end
end

-- For the first in line for tokens room is kept, which small calls would else fill for ever. It is of the key that has used
-- least, and there who has waited longest; for longer than a window no other key goes before it.
local line = tokens and in_line() or {}
local is_first, waited = line.who == me, redis.call('ZSCORE', queue(q.key), q.ticket) or now
local function goes_first()
  if is_first or not line.who then return true end
  if line.key ~= q.key then
    if now - line.from >= MINUTE then return false end
    local theirs = side(line.key).share
    if mine.share ~= theirs then return mine.share < theirs end
  end
  return tonumber(waited) < line.waited
end
local passes = goes_first()

-- Those who are to come now and go first: of keys that have used less; and of the same key, before one that is early. What is
-- kept for the first in line counts as well.
local function ahead()
  local turn = tonumber(redis.call('ZSCORE', due, me))
  local on_time = turn and turn <= now + EARLY
  local others, amount = 0, 0
  if is_first and now - line.from >= MINUTE then return others, amount end
  if not passes then amount = line.tokens end
  for _, who in ipairs(redis.call('ZRANGEBYSCORE', due, now - PROTECT, now + EARLY, 'LIMIT', 0, 200)) do
    local key, goes = key_of_place(who), false
    if who == line.who then
      goes = not passes
    elseif key == q.key then
      goes = not on_time and who ~= me
    else
      goes = before(side(key), mine)
    end
    if goes then
      others = others + 1
      if who ~= line.who then amount = amount + (number(needs, who) or 1) end
    end
    if full or others >= free then break end
  end
  return others, amount
end

local place = rank()
local others, amount = 0, 0
if #meters > 0 then others, amount = ahead() end
local position = is_first and 0 or position(place) + others
for _, meter in ipairs(meters) do
  if meter == tokens then meter.kept = amount end
  free = math.min(free, meter == tokens and room(meter, light) or meter.room - others)
end
if q.held_open and not b.since then open(q.held_open.why, nil, q.held_open.by) end -- Redis has forgotten what a person did
local says, seconds, next_try = 'closed', nil, nil
if q.terms then says, seconds, next_try = verdict(position) end

-- Nobody is sent away for longer than LOOK, at times of their own: limits are raised and others give up meanwhile. Who
-- looks before its turn keeps its place, and gets in only where nobody whose turn it is wants to.
local function held_back(answer, moment)
  in_minute('h')
  answer.seconds = math.max(moment - now, SOON)
  if answer.cause == 'slots' then -- nobody knows when a call ends
    answer.seconds = guess(me, answer.seconds, 0.05, 1)
  elseif moment <= now then -- there is room, for those who are to come now and go first, and have not been here yet
    answer.seconds = guess(me, answer.seconds, 0.02, 0.2)
  end
  if answer.seconds > LOOK then answer.seconds = LOOK * (0.5 + position * 0.618034 % 1 / 2) end
  come_back(math.max(moment, now + SOON), now + answer.seconds, tokens and tokens.cost)
  return cjson.encode(answer)
end

if says ~= 'wait' and tokens and tokens.used + tokens.cost > usable(tokens, light) and passes then
  is_first, position = true, 0
  stand_in_line(me, tokens.cost, waited, line.from or now)
end
local latest, binding = now, meters[1]
for _, meter in ipairs(says == 'wait' and meters or free <= 0 and meters or {}) do
  local moment = opens(meter, position, light, is_first)
  if moment > latest then latest, binding = moment, meter end
end

if says == 'wait' then
  local moment = math.max(now + seconds, latest)
  return held_back({cause = 'open', state = b.state, why = b.why or '', next_try = next_try}, moment)
end
if free <= 0 then
  local answer = {cause = binding.name, used = binding.used, limit = binding.limit}
  if binding.name == 'slots' then answer.holders = holders(20) end
  return held_back(answer, latest)
end

redis.call('HINCRBY', state, 'calls', 1)
give_up_place(me)
local is_canary, change = says == 'canary', nil
if is_canary then
  change = begin_canary(grant)
elseif b.ramp_since then
  if ramping() then redis.call('HINCRBY', breaker, 'ramped', 1) else redis.call('HDEL', breaker, 'ramp_since', 'ramped') end
end
if #meters > 0 then
  redis.call('ZADD', turns, now, q.key)
  redis.call('ZREMRANGEBYRANK', turns, 0, -KEYS_KNOWN - 1)
  redis.call('EXPIRE', turns, DAY)
end
for _, meter in ipairs(meters) do
  if meter.name == 'slots' then take_slot(grant, q.ticket, q.lease) else spend(meter, grant) end
end
return let_in(is_canary, change)
