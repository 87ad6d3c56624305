-- Every script begins with this: the question, the server's clock, the names of keys. Times are seconds.
local q = cjson.decode(ARGV[1])
local home = KEYS[1]
local clock = redis.call('TIME')
local now = tonumber(clock[1]) + tonumber(clock[2]) / 1000000
local SEP = '\31'

local function at(name) return home .. ':' .. name end

local function number(hash, field) return tonumber(redis.call('HGET', hash, field)) end

local function count(hash, field, by)
  if redis.call('HINCRBY', hash, field, by) <= 0 then redis.call('HDEL', hash, field) end
end

local function map(list)
  local found = {}
  for i = 1, #list, 2 do found[list[i]] = list[i + 1] end
  return found
end

-- One minute for the page: calls (c), failures (f), held back (h), and a histogram of latencies (b0, b1, ...).
local function in_minute(field)
  local minute = at('minute:' .. math.floor(now / 60))
  redis.call('HINCRBY', minute, field, 1)
  redis.call('EXPIRE', minute, 3700)
end
