-- closed, open or half-open; by its grant who the canary is, which has a lease; what the window counted; whether those who
-- waited are let in by cohorts.
local breaker, counted = at('breaker'), at('window')
local PARTS, RAMP, SETTLED, HOUR = 10, 14, 8, 3600
local b = map(redis.call('HGETALL', breaker))
b.state = b.state or 'closed'
for _, name in ipairs({'since', 'until', 'canary_until', 'broken_since', 'ramp_since', 'ramped'}) do b[name] = tonumber(b[name]) end

local function log2(x) return math.log(x) / math.log(2) end

local function become(state, why, fields, by)
  local change = {old = b.state, new = state, why = why}
  redis.call('DEL', breaker)
  fields.state, fields.since, fields.why, fields.by = state, now, why, by or ''
  if state ~= 'closed' then fields.broken_since = b.broken_since or now end
  for name, value in pairs(fields) do redis.call('HSET', breaker, name, value) end
  b = fields
  return change
end

-- Calls and failures of the window; its oldest part is dropped when a new one begins.
local function in_window(seconds, ok)
  local part = math.floor(now * PARTS / seconds)
  if ok ~= nil then
    redis.call('HINCRBY', counted, part .. ':calls', 1)
    if not ok then redis.call('HINCRBY', counted, part .. ':failures', 1) end
    redis.call('HSET', counted, 'seconds', seconds)
    redis.call('EXPIRE', counted, math.ceil(seconds) + 1)
  end
  local total = {calls = 0, failures = 0}
  for field, value in pairs(map(redis.call('HGETALL', counted))) do
    local number, what = string.match(field, '^(%d+):(%a+)$')
    if number and (tonumber(number) > part or part - tonumber(number) >= PARTS) then
      redis.call('HDEL', counted, field)
    elseif number then
      total[what] = total[what] + tonumber(value)
    end
  end
  return total
end

-- Opened by hand for good: until somebody closes it.
local function for_good() return b.state == 'open' and not b['until'] end

local function ramping()
  return b.ramp_since and now - b.ramp_since < RAMP and redis.call('EXISTS', waiting) == 1
end

-- What the breaker says to a caller that has so many before it; nothing is changed yet.
local function verdict(before)
  local wave = log2(before + 1)
  if b.state == 'closed' then
    if not ramping() or (b.ramped or 0) < 2 ^ (now - b.ramp_since + 1) then return 'closed' end
    return 'wait', math.max(0.05, b.ramp_since + log2((b.ramped or 0) + before + 1) - 1 - now)
  end
  if for_good() then return 'wait', MINUTE + math.min(before * 0.05, 3600) end
  -- the longer it has lasted, the less often most of those who wait ask again
  if before >= SETTLED then wave = wave + math.min((now - b.broken_since) / 10, 30) end
  if b.state == 'open' and now < b['until'] then return 'wait', b['until'] - now + wave, b['until'] - now end
  if b.state == 'half-open' and now < b.canary_until then
    local answer = math.min(number(state, 'hold') or 1, b.canary_until - now)
    return 'wait', math.max(answer, 0.05) + wave, 0
  end
  return 'canary'
end

local function begin_canary(grant)
  local canary = {canary = grant, canary_until = now + q.lease, first = grant}
  if b.state ~= 'half-open' then return become('half-open', 'One call tries whether it works again.', canary) end
  redis.call('HSET', breaker, 'canary', grant, 'canary_until', canary.canary_until)
end

local function close(why, by)
  redis.call('DEL', counted)
  return become('closed', why, {ramp_since = now, ramped = 0}, by)
end

local function open(why, seconds, by)
  return become('open', why, {['until'] = seconds and now + seconds}, by)
end

local function judge(terms, ok)
  -- what the other side asked for, but a call an hour tries
  local seconds = math.max(terms.open_seconds, math.min(q.retry_after or 0, HOUR))
  local total = in_window(terms.window_seconds, ok)
  if b.state == 'half-open' and b.canary == q.grant then
    if ok then return close('The call that tried it succeeded.') end
    return open('The call that tried it failed.', seconds)
  end
  if ok or b.state ~= 'closed' or total.calls < terms.minimum then return nil end
  if total.failures / total.calls < terms.failure_ratio then return nil end
  local why = string.format('%d of %d calls failed within %g s.', total.failures, total.calls, terms.window_seconds)
  return open(why, seconds)
end
