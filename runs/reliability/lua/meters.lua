-- What limits a dependency: requests and tokens in a sliding window, and slots. Each has a use per key.
local state = at('state')
local MINUTE = 60
local PACE = 0.85 -- a little faster than the limit, so that a window which somebody left empty fills again

local function drop(meter, id, amount)
  count(meter.use, string.match(id, SEP .. '(.*)$'), 0 - amount) -- Redis before 7.2 writes the negative zero of -amount as -0
  meter.used = meter.used - amount
  if meter.amounts then redis.call('HDEL', meter.amounts, id) end
end

local function amount_of(meter, id) return meter.amounts and number(meter.amounts, id) or 1 end

-- FLUSHALL takes the mark, a restart changes the server's id (its last seconds may be lost), and a longer period looks
-- further back than was kept: the window then counts as full for one period, and the slots for one lease, within which
-- those who hold one say so again (renew).
local function remember(meter, mark, period)
  local server = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
  period = tonumber(period)
  if mark == server and (meter.name == 'slots' or period == meter.period) then return end
  if mark == server and period > meter.period then
    meter.full_until = math.min(meter.full_until, now + meter.period + meter.lag)
  else
    local older = mark or (q.known_since and now - q.known_since > meter.period)
    meter.full_until = older and now + meter.period + meter.lag or 0
  end
  redis.call('HSET', state, meter.name .. ':mark', server, meter.name .. ':period', meter.period,
    meter.name .. ':full_until', meter.full_until)
end

local function window(name, limit, period, cost)
  local meter = {name = name, limit = limit, period = period, cost = cost, kept = 0, log = at(name), use = at('use:' .. name)}
  -- so long a request may take from here to the other side's clock; leave() says when it was there at the latest
  meter.lag = math.min(2, 0.1 + 0.03 * period)
  if name == 'tokens' then meter.amounts = at('amounts') end
  local kept = redis.call('HMGET', state, name .. ':used', name .. ':paced', name .. ':full_until', name .. ':mark', name .. ':period')
  meter.used, meter.full_until = tonumber(kept[1]) or 0, tonumber(kept[3]) or 0
  meter.paced = math.max(tonumber(kept[2]) or 0, now)
  if not q.looks then remember(meter, kept[4], kept[5]) end
  local kept_for = q.looks and math.max(period, tonumber(kept[5]) or 0) or period -- who looks drops nothing that counts
  local old = redis.call('ZRANGEBYSCORE', meter.log, '-inf', now - kept_for, 'LIMIT', 0, 1000)
  for _, id in ipairs(old) do drop(meter, id, amount_of(meter, id)) end
  if #old > 0 then
    redis.call('ZREMRANGEBYRANK', meter.log, 0, #old - 1)
    redis.call('HSET', state, name .. ':used', meter.used)
  end
  return meter
end

-- While there is no limit nothing is counted; when there is one again, the window is unknown.
local function forget_window(name)
  if redis.call('HEXISTS', state, name .. ':mark') == 1 then
    redis.call('DEL', at(name), at('use:' .. name))
    redis.call('HDEL', state, name .. ':mark', name .. ':used', name .. ':paced', name .. ':full_until')
    if name == 'tokens' then redis.call('DEL', at('amounts')) end
  end
end

local function slots_of(limit)
  local meter = {name = 'slots', limit = limit, use = slots_used}
  for _, grant in ipairs(redis.call('ZRANGEBYSCORE', slots, '-inf', now, 'LIMIT', 0, 1000)) do give_back(grant) end
  meter.used = redis.call('ZCARD', slots)
  meter.period, meter.lag = q.lease, 0
  local kept = redis.call('HMGET', state, 'slots:mark', 'slots:full_until', 'slots:free')
  meter.full_until = tonumber(kept[2]) or 0
  if not q.looks then
    remember(meter, kept[1])
    if kept[3] then -- the last call without a slot may last so long
      meter.full_until = math.max(meter.full_until, tonumber(kept[3]) + (q.attempt or 0))
      redis.call('HDEL', state, 'slots:free')
      redis.call('HSET', state, 'slots:full_until', meter.full_until)
    end
  end
  return meter
end

-- A part of a large window stays free for keys that use little, so that they need not wait at all.
local function usable(meter, light) return light and meter.limit or meter.limit - math.floor(meter.limit / 40) end

-- How many calls fit now. A heavy key is paced, the fuller the window the more evenly: after its first burst the
-- window opens one by one and not all at once, and nobody has to wait for a whole period.
local function room(meter, light)
  if now < meter.full_until then return 0 end
  if meter.name == 'slots' then return meter.limit - meter.used end
  local fit = math.floor((usable(meter, light) - meter.used - meter.kept) / meter.cost)
  if light then return fit end
  local credit = meter.period * (1 - meter.used / meter.limit) - (meter.paced - now)
  if credit < 0 then return 0 end
  return math.min(fit, 1 + math.floor(credit * meter.limit / (2 * meter.period * meter.cost)))
end

-- When enough of the window will have left it for `need` more.
local function leaves(meter, need)
  local rounds = math.floor((need - 1) / meter.limit)
  need = need - rounds * meter.limit
  local moment = now + meter.period + meter.lag
  if meter.amounts then
    moment = now + meter.period * need / meter.limit
    for _, id in ipairs(redis.call('ZRANGE', meter.log, 0, 63)) do
      need = need - amount_of(meter, id)
      if need <= 0 then
        moment = tonumber(redis.call('ZSCORE', meter.log, id)) + meter.period
        break
      end
    end
  else
    local entry = redis.call('ZRANGE', meter.log, need - 1, need - 1, 'WITHSCORES')
    if entry[2] then moment = tonumber(entry[2]) + meter.period end
  end
  return moment + rounds * meter.period
end

-- What keys use that do not wait: they will come again, and go first. Counted for one period ahead, since they may not.
local function squeezed(meter, before)
  local others = 0
  for key, used in pairs(map(redis.call('HGETALL', meter.use))) do
    if key ~= q.key and redis.call('HEXISTS', waiting, key) == 0 then others = others + tonumber(used) end
  end
  others = math.min(others / meter.limit, 0.9)
  return before + math.floor(math.min(before, meter.limit / meter.cost) * others / (1 - others))
end

-- When a call that has `before` others before it can be made, as far as can be said now. Nobody passes who is first in line.
local function opens(meter, before, light, first)
  if meter.name == 'slots' then
    if now >= meter.full_until and meter.used + before < meter.limit then return now end
    local youngest = redis.call('ZREVRANGE', since, 0, 0, 'WITHSCORES')[2]
    local hold = math.max(number(state, 'hold') or 0.2, youngest and now - tonumber(youngest) or 0)
    return math.max(now, meter.full_until) + hold * math.max(meter.used + before + 1 - meter.limit, 1) / meter.limit
  end
  local spacing = meter.cost * meter.period / meter.limit
  if now < meter.full_until then return meter.full_until + before * spacing end
  if not first then before = squeezed(meter, before) end
  local need = meter.used + meter.kept + (before + 1) * meter.cost - usable(meter, light)
  local moment = need > 0 and leaves(meter, need) or now
  if light then return moment end
  return math.max(moment, meter.paced + PACE * before * spacing - meter.period * (1 - meter.used / meter.limit))
end

local function spend(meter, id)
  redis.call('ZADD', meter.log, now + meter.lag, id)
  redis.call('HINCRBY', meter.use, q.key, meter.cost)
  if meter.amounts then redis.call('HSET', meter.amounts, id, meter.cost) end
  redis.call('HSET', state, meter.name .. ':used', meter.used + meter.cost, meter.name .. ':limit', meter.limit,
    meter.name .. ':paced', meter.paced + PACE * meter.cost * meter.period / meter.limit)
end
