-- Leases of one process, on all dependencies; answers which are lost.
local lost = {}
for i, home in ipairs(KEYS) do
  for _, holder in ipairs(q.holders[i]) do
    if redis.call('ZSCORE', home .. ':slots', holder) then
      redis.call('ZADD', home .. ':slots', now + q.lease, holder)
    else
      table.insert(lost, {i, holder})
    end
  end
end
return cjson.encode({lost = lost})
