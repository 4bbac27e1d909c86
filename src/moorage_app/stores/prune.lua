-- Removes the ids from a holder's set whose record has expired.
-- KEYS: holder's set; ARGV: prefix of record keys, ids...
local gone = 0
for i = 2, #ARGV do
  if redis.call('EXISTS', ARGV[1] .. ARGV[i]) == 0 then
    gone = gone + redis.call('SREM', KEYS[1], ARGV[i])
  end
end
return gone
