-- Open by hand, for good, or close.
if q.state == 'open' then return cjson.encode({change = open(q.why, nil, q.by)}) end
if b.state == 'closed' then return '{}' end
return cjson.encode({change = close(q.why, q.by)})
