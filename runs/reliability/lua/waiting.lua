-- Those who were held back: a queue for each key, when each caller's turn will be (due), and when it was told to look (told).
local LAPSE, PROTECT, KEEP, EARLY, SOON, LOOK, DAY = 60, 3, 10, 0.02, 0.005, 900, 86400
local due, told, waiting, needs, line_of_tokens = at('due'), at('told'), at('waiting'), at('needs'), at('line')
local guesses = at('guesses') -- how often each was told to look though nobody knows when there is room

local function queue(key) return at('queue:' .. key) end

local function key_of_place(who) return string.match(who, '^(.-)' .. SEP) end

local function give_up_place(who)
  local key, ticket = string.match(who, '^(.-)' .. SEP .. '(.*)$')
  redis.call('ZREM', told, who)
  redis.call('ZREM', queue(key), ticket)
  redis.call('HDEL', needs, who)
  redis.call('HDEL', guesses, who)
  if redis.call('HGET', line_of_tokens, 'who') == who then redis.call('DEL', line_of_tokens) end
  if redis.call('ZREM', due, who) == 1 then count(waiting, key, -1) end
end

-- Who did not look when it was told to has been cancelled, or comes as a new one.
local function lapse()
  for _, who in ipairs(redis.call('ZRANGEBYSCORE', told, '-inf', now - LAPSE, 'LIMIT', 0, 100)) do give_up_place(who) end
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

local function come_back(moment, look, tokens)
  local who, mine = q.key .. SEP .. q.ticket, queue(q.key)
  if redis.call('ZADD', due, moment, who) == 1 then redis.call('HINCRBY', waiting, q.key, 1) end
  redis.call('ZADD', mine, 'NX', now, q.ticket)
  redis.call('ZADD', told, look, who)
  if tokens then redis.call('HSET', needs, who, tokens) end
  for _, key in ipairs({mine, due, told, waiting, needs}) do redis.call('EXPIRE', key, DAY) end
end

-- Each look is written in a log: those of one wait come more and more seldom.
local function guess(who, seconds, first, last)
  if seconds >= last then return seconds end
  local times = redis.call('HINCRBY', guesses, who, 1)
  redis.call('EXPIRE', guesses, DAY)
  return math.max(seconds, math.min(first * 1.5 ^ (times - 1), last))
end

-- The first in line for tokens, if it comes back: since when it has waited, and from when on room has been kept.
local function in_line()
  local line = map(redis.call('HGETALL', line_of_tokens))
  local turn = line.who and redis.call('ZSCORE', due, line.who)
  if not turn or tonumber(turn) < now - KEEP then return {} end
  for _, name in ipairs({'tokens', 'waited', 'from'}) do line[name] = tonumber(line[name]) end
  line.key = key_of_place(line.who)
  return line
end

local function stand_in_line(who, tokens, waited, from)
  redis.call('HSET', line_of_tokens, 'who', who, 'tokens', tokens, 'waited', waited, 'from', from)
  redis.call('EXPIRE', line_of_tokens, DAY)
end
