-- Replaces a session record if the caller still holds its lease and writes the next revision (or repeats the last one).
-- KEYS: record; ARGV: new text, holder, lease, new revision, record ttl s
local current = redis.call('GET', KEYS[1])
if not current then
  return 'gone'
end
local readable, record = pcall(cjson.decode, current)
if not readable or type(record) ~= 'table' then
  return 'unreadable'
end
local revision = tonumber(ARGV[4])
if record.holder ~= ARGV[2] or record.lease ~= tonumber(ARGV[3]) then
  return 'taken_over'
end
if record.revision ~= revision - 1 and record.revision ~= revision then
  return 'taken_over'
end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[5])
return 'written'
