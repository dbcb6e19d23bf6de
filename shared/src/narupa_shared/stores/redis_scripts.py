"""What runs inside Redis, so that a commit and the leases that go with it are one step, judged by Redis's own clock.

Keys, in this order: the hash `store` (epoch, number, version), the hash `records`, the stream `log` (entry `<number>-0` with the
fields epoch, id and body), the hash `ids` (id to number of the kept commits), the sorted set `leases` (score: the deadline
in us since 1970 by Redis TIME). Every script but OPEN gets the epoch first and answers {'replaced'} when the store has another.
"""

from __future__ import annotations

from typing import Final

KEYS: Final = ("store", "records", "log", "ids", "leases")

_NOW: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
"""

_SAME_STORE: Final = """
if redis.call('HGET', KEYS[1], 'epoch') ~= ARGV[1] then return {'replaced'} end
"""

# ARGV: an epoch for a new store, the version of this layout. Answers 'open', the epoch, the number, the records (field, value,
# ...), the log's entries and the leases; or 'version' and which, or 'foreign' and a key that is there without a store.
OPEN: Final = """
local version = redis.call('HGET', KEYS[1], 'version')
if not version then
  for i = 2, #KEYS do
    if redis.call('EXISTS', KEYS[i]) == 1 then return {'foreign', KEYS[i]} end
  end
  redis.call('HSET', KEYS[1], 'epoch', ARGV[1], 'number', 0, 'version', ARGV[2])
  version = ARGV[2]
end
if tonumber(version) ~= tonumber(ARGV[2]) then return {'version', version} end
return {'open', redis.call('HGET', KEYS[1], 'epoch'), redis.call('HGET', KEYS[1], 'number'),
  redis.call('HGETALL', KEYS[2]), redis.call('XRANGE', KEYS[3], '-', '+'), redis.call('ZRANGE', KEYS[5], 0, -1)}
"""

# ARGV: epoch, number, id, body, how many commits are kept; then five counts and as many items of each: records that change
# (field, value), records that go (field), leases to hold (name, us), to release (name), that must have lapsed (name).
COMMIT: Final = (
    _SAME_STORE
    + _NOW
    + """
if redis.call('HEXISTS', KEYS[4], ARGV[3]) == 1 then return {'made'} end
local last = tonumber(redis.call('HGET', KEYS[1], 'number'))
if tonumber(ARGV[2]) ~= last + 1 then return {'behind', tostring(last)} end

local at = 11
local function items(count, width)
  local from = at
  at = at + tonumber(count) * width
  return from, at - 1
end
local put, put_end = items(ARGV[6], 2)
local gone, gone_end = items(ARGV[7], 1)
local hold, hold_end = items(ARGV[8], 2)
local release, release_end = items(ARGV[9], 1)
local lapsed, lapsed_end = items(ARGV[10], 1)

for i = lapsed, lapsed_end do
  local deadline = redis.call('ZSCORE', KEYS[5], ARGV[i])
  if deadline and tonumber(deadline) > now then return {'held', ARGV[i]} end
end
for i = release, lapsed_end do redis.call('ZREM', KEYS[5], ARGV[i]) end
for i = hold, hold_end, 2 do redis.call('ZADD', KEYS[5], now + tonumber(ARGV[i + 1]), ARGV[i]) end
for i = put, put_end, 2 do redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1]) end
for i = gone, gone_end do redis.call('HDEL', KEYS[2], ARGV[i]) end

redis.call('HSET', KEYS[1], 'number', ARGV[2])
redis.call('HSET', KEYS[4], ARGV[3], ARGV[2])
redis.call('XADD', KEYS[3], ARGV[2] .. '-0', 'epoch', ARGV[1], 'id', ARGV[3], 'body', ARGV[4])
local surplus = redis.call('XLEN', KEYS[3]) - tonumber(ARGV[5])
if surplus > 0 then
  for _, entry in ipairs(redis.call('XRANGE', KEYS[3], '-', '+', 'COUNT', surplus)) do
    redis.call('HDEL', KEYS[4], entry[2][4])
  end
  redis.call('XTRIM', KEYS[3], 'MAXLEN', ARGV[5])
end
return {'made'}
"""
)

# ARGV: epoch, then name, us, name, us, ... Answers 'ok' and the names of those that are not there.
RENEW: Final = (
    _SAME_STORE
    + _NOW
    + """
local missing = {'ok'}
for i = 2, #ARGV, 2 do
  if redis.call('ZSCORE', KEYS[5], ARGV[i]) then
    redis.call('ZADD', KEYS[5], now + tonumber(ARGV[i + 1]), ARGV[i])
  else
    missing[#missing + 1] = ARGV[i]
  end
end
return missing
"""
)

# ARGV: epoch, at most how many. Answers 'ok' and the names, the longest overdue first.
LAPSED: Final = (
    _SAME_STORE
    + _NOW
    + """
local names = redis.call('ZRANGEBYSCORE', KEYS[5], '-inf', now, 'LIMIT', 0, ARGV[2])
table.insert(names, 1, 'ok')
return names
"""
)

# ARGV: epoch. Answers 'ok', the number of the first commit that is kept (one more than the last when none is) and of the last.
STATE: Final = (
    _SAME_STORE
    + """
local last = redis.call('HGET', KEYS[1], 'number')
local entries = redis.call('XRANGE', KEYS[3], '-', '+', 'COUNT', 1)
local first = tostring(tonumber(last) + 1)
if #entries > 0 then first = string.match(entries[1][1], '^%d+') end
return {'ok', first, last}
"""
)
