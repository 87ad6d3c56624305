-- Leases of one process, on all dependencies; answers which were lost. While the memory is being regained they are held anew.
local lost = {}
for i, home in ipairs(KEYS) do
  local regained = (number(home .. ':state', 'slots:full_until') or 0) > now
  for _, holder in ipairs(q.holders[i]) do
    local held = redis.call('ZSCORE', home .. ':slots', holder)
    if held or regained then redis.call('ZADD', home .. ':slots', now + q.lease, holder) end
    if not held then
      table.insert(lost, {i, holder})
      if regained then redis.call('ZADD', home .. ':since', now, holder) end
    end
  end
end
return cjson.encode({lost = lost})
