-- Open or close by hand.
local length = q['until'] and q['until'] - now
if q.state == 'closed' then
  if b.state == 'closed' and not q['until'] then return '{}' end
  return cjson.encode({change = close(q.why, q.by, q['until'])})
end
return cjson.encode({change = open(q.why, length, q.by)})
