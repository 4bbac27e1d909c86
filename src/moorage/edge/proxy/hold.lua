-- Hold: an upgrade to a held route waits here until the hold is released, and is then admitted at a paced rate.
-- Entered only while the route's flag is set, so an ordinary request never meets Lua. The flag is polled in the hot
-- table, because the table is what the edge agent keeps right; nothing has to be told to those who wait. What was read
-- of the route before the hold is history: the request goes on with what holds when it is admitted.
-- Arguments: how long one request may be held (s), admissions per second and route, the held flag, the unit in which an
-- entry counts its slots, the hot table.
local budget_s, rate_per_s, held_flag, count_unit, hot = ...
budget_s, rate_per_s = tonumber(budget_s), tonumber(rate_per_s)
held_flag, count_unit = math.tointeger(tonumber(held_flag)), math.tointeger(tonumber(count_unit))

local POLL_MIN_MS = 10
local POLLS_MAX_PER_MS = 20 -- with many waiting, each looks less often: about a tenth of a core at most
local WINDOW_S = 0.25

local next_at = {} -- route key > when its next admission is due
local window_at, window_polls, poll_ms = 0, 0, POLL_MIN_MS

local function now_s()
  local now = core.now()
  return now.sec + now.usec / 1000000
end

-- How long to sleep between two looks, from how many looked in the last window.
local function poll_period_ms(now)
  local passed = now - window_at
  if passed >= WINDOW_S then
    local waiting = window_polls * poll_ms / (passed * 1000)
    poll_ms = math.max(POLL_MIN_MS, math.ceil(waiting / POLLS_MAX_PER_MS))
    window_at, window_polls = now, 0
  end
  window_polls = window_polls + 1
  return poll_ms
end

-- Seconds until this request's turn: one ticket per 1/rate seconds.
local function ticket_s(key, now)
  local at = math.max(now, next_at[key] or 0)
  next_at[key] = at + 1 / rate_per_s
  return at - now
end

-- The route as it is now (nil: unknown) and whether it is held.
local function look(txn, key)
  local packed = txn.c:table_gpt0(key, hot)
  return packed, packed ~= nil and packed & held_flag ~= 0
end

local function refuse(txn)
  local reply = txn:reply({ status = 503, reason = "Service Unavailable" })
  reply:add_header("content-type", "application/problem+json")
  reply:add_header("x-moorage-code", "hold-expired")
  reply:add_header("cache-control", "no-store")
  reply:add_header("retry-after", "1")
  reply:set_body('{"type":"about:blank","title":"The hand-over of this app takes longer than a connection may wait",'
    .. '"status":503,"code":"hold-expired","hint":"Connect again."}\n')
  txn:done(reply)
end

core.register_action("hold", { "http-req" }, function(txn)
  local key = txn:get_var("txn.key")
  local deadline = now_s() + budget_s
  local has_turn = false
  while true do
    local now = now_s()
    local packed, held = look(txn, key)
    if held then
      if now >= deadline then
        return refuse(txn)
      end
      has_turn = false
      core.msleep(poll_period_ms(now))
    else
      local turn_s = has_turn and 0 or ticket_s(key, now)
      if turn_s < 0.001 then
        txn:set_var("txn.p", packed or 0)
        txn:set_var("txn.n", (packed or 0) // count_unit)
        txn:set_var("txn.env", txn.c:table_gpc0(key, hot) or 0)
        return
      end
      has_turn = true
      core.msleep(math.ceil(turn_s * 1000))
    end
  end
end)
