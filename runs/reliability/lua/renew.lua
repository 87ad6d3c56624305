-- Leases of one process's calls: slots, and the canary; answers which slots were lost. While the memory is being regained
-- they are held anew.
local lost = {}
local regained = (number(state, 'slots:full_until') or 0) > now
for _, call in ipairs(q.calls) do
  if b.canary == call.grant then redis.call('HSET', breaker, 'canary_until', now + q.lease) end
  if call.slot and redis.call('ZSCORE', slots, call.grant) then
    redis.call('ZADD', slots, now + q.lease, call.grant)
  elseif call.slot then
    table.insert(lost, call.grant)
    if regained then take_slot(call.grant, call.ticket, q.lease) end
  end
end
return cjson.encode({lost = lost})
