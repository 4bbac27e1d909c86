-- Writes an entry into a session: replaces exactly what was read, moves the lease between two holders' sets.
-- KEYS: record, trace, quarantine, new holder's set, previous holder's set
-- ARGV: sha1 of the expected text or '-', new text, id, record ttl s,
--   trace ttl s, quarantine time ms or '', quarantine ttl s
local current = redis.call('GET', KEYS[1])
if (current and redis.sha1hex(current) or '-') ~= ARGV[1] then
  return 0
end
if current and ARGV[6] ~= '' then
  local aside = KEYS[3]
  if redis.call('EXISTS', aside) == 1 then
    aside = aside .. ':' .. ARGV[6]
  end
  redis.call('SET', aside, current, 'EX', ARGV[7])
end
redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[4])
redis.call('SET', KEYS[2], '1', 'EX', ARGV[5])
redis.call('SREM', KEYS[5], ARGV[3])
redis.call('SADD', KEYS[4], ARGV[3])
redis.call('EXPIRE', KEYS[4], ARGV[5])
return 1
