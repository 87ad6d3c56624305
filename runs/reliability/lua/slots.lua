-- Slots that are held: until when (slots), since when (since), and for which key (holders).
local slots, since, held_by, slots_used = at('slots'), at('since'), at('holders'), at('use:slots')

local function take_slot(meter)
  redis.call('ZADD', slots, now + q.lease, q.ticket)
  if not meter.held then
    redis.call('ZADD', since, now, q.ticket)
    redis.call('HSET', held_by, q.ticket, q.key)
    redis.call('HINCRBY', slots_used, q.key, 1)
  end
end

local function give_back(holder)
  local key = redis.call('HGET', held_by, holder)
  if key then count(slots_used, key, -1) end
  redis.call('HDEL', held_by, holder)
  redis.call('ZREM', since, holder)
  return redis.call('ZREM', slots, holder)
end

local function holders(most)
  local found = {}
  for _, holder in ipairs(redis.call('ZRANGE', since, 0, most - 1)) do
    local moment = tonumber(redis.call('ZSCORE', slots, holder))
    if moment and moment > now then
      table.insert(found, {name = holder, key = redis.call('HGET', held_by, holder) or '',
        since = tonumber(redis.call('ZSCORE', since, holder)), ['until'] = moment})
    end
  end
  return found
end
