-- Open by hand, for good, or close.
if q.state == (for_good() and 'open' or b.state == 'closed' and 'closed') then return '{}' end
if q.state == 'open' then return cjson.encode({change = open(q.why, nil, q.by)}) end
return cjson.encode({change = close(q.why, q.by)})
