-- Replaces a shared state's text if it still is exactly what was read.
-- KEYS: shared state, quarantine; ARGV: sha1 of the expected text or '-', new text, quarantine time ms or '', ttl s
local current = redis.call('GET', KEYS[1])
if (current and redis.sha1hex(current) or '-') ~= ARGV[1] then
  return 0
end
if current and ARGV[3] ~= '' then
  local aside = KEYS[2]
  if redis.call('EXISTS', aside) == 1 then
    aside = aside .. ':' .. ARGV[3]
  end
  redis.call('SET', aside, current, 'EX', ARGV[4])
end
redis.call('SET', KEYS[1], ARGV[2])
return 1
