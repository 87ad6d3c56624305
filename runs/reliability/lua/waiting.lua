-- Those who were held back: a queue for each key, and when each caller was told to come back.
local LAPSE, PROTECT, EARLY, SOON, LOOK, DAY = 60, 3, 0.02, 0.005, 900, 86400
local due, waiting = at('due'), at('waiting')

local function queue(key) return at('queue:' .. key) end

local function give_up_place(who)
  local key, ticket = string.match(who, '^(.-)' .. SEP .. '(.*)$')
  redis.call('ZREM', due, who)
  if redis.call('ZREM', queue(key), ticket) == 1 then count(waiting, key, -1) end
end

-- Who did not come back has been cancelled, or comes as a new one.
local function lapse()
  for _, who in ipairs(redis.call('ZRANGEBYSCORE', due, '-inf', now - LAPSE, 'LIMIT', 0, 100)) do give_up_place(who) end
end

-- Place of the caller in its own key's queue, from 0; who is new stands behind all.
local function rank()
  return redis.call('ZRANK', queue(q.key), q.ticket) or number(waiting, q.key) or 0
end

-- How many go before it when keys take turns.
local function position(place)
  local before = 0
  for _, length in ipairs(redis.call('HVALS', waiting)) do before = before + math.min(tonumber(length), place) end
  return before
end

local function come_back(moment)
  local who, mine = q.key .. SEP .. q.ticket, queue(q.key)
  if redis.call('ZADD', mine, 'NX', now, q.ticket) == 1 then redis.call('HINCRBY', waiting, q.key, 1) end
  redis.call('ZADD', due, moment, who)
  for _, key in ipairs({mine, due, waiting}) do redis.call('EXPIRE', key, DAY) end
end
