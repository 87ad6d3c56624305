-- Slots that are held, each by the grant of the call inside: until when (inside), since when (since), by whose ticket
-- (tickets), and which calls were given up and have not ended yet (given_up).
local slots, since, tickets, slots_used, given_up = at('inside'), at('since'), at('tickets'), at('use:inside'), at('given_up')

local function key_of(grant) return string.match(grant, SEP .. '(.*)$') end

local function take_slot(grant, ticket, lease)
  redis.call('ZADD', slots, now + lease, grant)
  redis.call('ZADD', since, now, grant)
  redis.call('HSET', tickets, grant, ticket)
  redis.call('HINCRBY', slots_used, key_of(grant), 1)
end

local function give_back(grant)
  if redis.call('ZREM', slots, grant) == 0 then return end
  redis.call('ZREM', since, grant)
  redis.call('HDEL', tickets, grant)
  redis.call('SREM', given_up, grant)
  count(slots_used, key_of(grant), -1)
end

local function holders(most)
  local found = {}
  for _, grant in ipairs(redis.call('ZRANGE', since, 0, most - 1)) do
    local moment = tonumber(redis.call('ZSCORE', slots, grant))
    if moment and moment > now then
      table.insert(found, {name = redis.call('HGET', tickets, grant), key = key_of(grant), ['until'] = moment,
        since = tonumber(redis.call('ZSCORE', since, grant)), given_up = redis.call('SISMEMBER', given_up, grant) == 1})
    end
  end
  return found
end
