"""What happens inside Redis, in one step each: the Lua scripts of the Redis store.

Only commands that Redis 6.2 and Valkey have. The keys of a session share a hash tag, so that they are always in
one place; scripts that look at several sessions, at nodes or at a user's list name keys that they are not given,
which Redis Cluster does not allow.

    {prefix}{id}:s   hash   the session: about, active, turn, usage, handle (JSON each), user (its list), bytes (of
                            its memory), holder, holds (how often it changed hands), connected, had:NODE (had it
                            and has not let go; "dead" once that was told), by:WRITER (that writer's last batch)
    {prefix}{id}:m   list   its memory, oldest first
    {prefix}{id}:e   list   its events, oldest first
    {prefix}{id}:d   string it was deleted
    {prefix}u:USER   zset   a user's sessions by when they were created
    {prefix}c:DIGEST hash   a credential: body, uses, kind, at (when it was kept), forever (it is for good); it
                            lives KEPT_MS longer than it is good
    {prefix}k:KIND   zset   the credentials of a kind by when they end
    {prefix}n:NODE   string a node lives; "left" when it ended in order
    {prefix}t:NAME   hash   a counter's window: taken, by:WRITER
    {prefix}o:NAME   zset   the places of a counter that are occupied, by when they are free again
    {prefix}w:NAME   hash   the writer that occupied each of them last
    {prefix}revoked  zset   "END SUBJECT" by number
    {prefix}store    hash   born (a random word: another one tells that Redis was emptied), revocations
    {prefix}news     channel: "WRITER WORD NAME"

Each key but the last hash, and those of credentials that are for good, has a TTL. A script that is run again with
the number of its batch does nothing.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

_NOW = """
local function now()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
"""

# A kind lasts as long as the last of its credentials.
_KIND_LASTS = """
local function kind_lasts(k, time)
  local last = redis.call('ZREVRANGEBYSCORE', k, '+inf', '-inf', 'WITHSCORES', 'LIMIT', 0, 1)
  local ends = tonumber(last[2])
  if ends == math.huge then
    redis.call('PERSIST', k)
  elseif ends then
    redis.call('PEXPIRE', k, math.max(1, math.ceil(ends - time)))
  end
end
"""

_LAST = """
local function at_least(key, ttl)
  if redis.call('PTTL', key) < ttl then redis.call('PEXPIRE', key, ttl) end
end
"""

# The values of redis_records.FIELDS, then whether somebody is connected, then how many messages there are; nothing
# where somebody else wrote something of another type.
_FIELDS = """
local function fields_of(s, m, prefix)
  local found = redis.pcall('HMGET', s, 'about', 'active', 'turn', 'usage', 'handle', 'connected', 'holder')
  local messages = redis.pcall('LLEN', m)
  if found.err or type(messages) == 'table' then return false end
  local holder = table.remove(found)
  local alive = found[6] == '1' and holder and redis.pcall('GET', prefix .. 'n:' .. holder) == '1'
  found[6], found[7] = alive and 1 or 0, messages
  return found
end
"""

_LIVES = """
local function lives(prefix, node, life)
  local key = prefix .. 'n:' .. node
  -- A full Redis takes no new keys, but lets old ones live on.
  if redis.pcall('GET', key) ~= '1' or redis.call('PEXPIRE', key, life) == 0 then
    redis.pcall('SET', key, '1', 'PX', life)
  end
end
"""

# Who had the session and may still write to it, and whether somebody died with it.
_FORMER = """
local function former(s, prefix, anew)
  local leaving, abandoned = {}, 0
  local all = redis.call('HGETALL', s)
  for at = 1, #all, 2 do
    local node = string.match(all[at], '^had:(.*)$')
    if node then
      local state = redis.pcall('GET', prefix .. 'n:' .. node)
      if state == '1' then
        leaving[#leaving + 1] = node
      elseif state == 'left' or (anew and all[at + 1] == 'dead') then
        redis.call('HDEL', s, all[at])
      else
        redis.call('HSET', s, all[at], 'dead')
        abandoned = 1
      end
    end
  end
  return leaving, abandoned
end
"""


@dataclass(frozen=True, slots=True)
class Script:
    """`digest` is its name in Redis. `writes`: that it ran tells that Redis can be written."""

    name: str
    text: str
    digest: str
    writes: bool


def _script(name: str, *parts: str, writes: bool = False) -> Script:
    text = "\n".join(part.strip("\n") for part in parts)
    return Script(name, text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest(), writes)


CREATE: Final = _script(
    "create",
    _LAST,
    _LIVES,
    """
local s, list = KEYS[1], KEYS[2]
local prefix, id, ttl, created, user, about, active, node, life = unpack(ARGV)
ttl = tonumber(ttl)
redis.call('HSET', s, 'about', about, 'active', active, 'user', user, 'holds', 0)
if node ~= '' then
  redis.call('HSET', s, 'holder', node, 'holds', 1)
  lives(prefix, node, life)
end
redis.call('PEXPIRE', s, ttl)
redis.call('ZADD', list, created, id)
at_least(list, ttl)
-- Those that have ended leave the list little by little, faster than new ones come.
for _, other in ipairs(redis.call('ZRANDMEMBER', list, 8)) do
  if redis.call('EXISTS', prefix .. '{' .. other .. '}:s') == 0 then redis.call('ZREM', list, other) end
end
return 1
""",
    writes=True,
)
"""KEYS session, list of the user."""

READ: Final = _script(
    "read",
    _FIELDS,
    """
local s, m = KEYS[1], KEYS[2]
local prefix, with_memory = unpack(ARGV)
if redis.call('EXISTS', s) == 0 then return false end
return {fields_of(s, m, prefix), with_memory == '1' and redis.call('LRANGE', m, 0, -1) or {}}
""",
)
"""KEYS session, memory. Nil, or the fields and the memory."""

ITEMS: Final = _script(
    "items",
    """
if redis.call('EXISTS', KEYS[1]) == 0 then return false end
return redis.call('LRANGE', KEYS[2], 0, -1)
""",
)
"""KEYS session, memory or events. Nil, or what is in it."""

LIST: Final = _script(
    "list",
    _FIELDS,
    """
local list = KEYS[1]
local prefix, wanted, before, before_id = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4]
local found, from = {}, 0
-- Lua's own order of strings is that of a language.
local function less(one, other)
  for at = 1, math.min(#one, #other) do
    if one:byte(at) ~= other:byte(at) then return one:byte(at) < other:byte(at) end
  end
  return #one < #other
end
while #found < wanted do
  local ids = redis.call('ZREVRANGEBYSCORE', list, before, '-inf', 'WITHSCORES', 'LIMIT', from, 100)
  if #ids == 0 then break end
  for at = 1, #ids, 2 do
    local id, tag = ids[at], prefix .. '{' .. ids[at] .. '}'
    if redis.call('EXISTS', tag .. ':s') == 0 then
      redis.call('ZREM', list, id)
    else
      from = from + 1
      local further = before_id == '' or tonumber(ids[at + 1]) < tonumber(before) or less(id, before_id)
      if further and #found < wanted then
        found[#found + 1] = {id, fields_of(tag .. ':s', tag .. ':m', prefix), ids[at + 1]}
      end
    end
  end
end
return found
""",
)
"""KEYS list of the user. Ids, fields and places in the list; what has ended leaves it."""

WRITE: Final = _script(
    "write",
    _LAST,
    """
local s, m, e, d = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local prefix, writer, number = ARGV[1], ARGV[2], tonumber(ARGV[3])
local ttl, active, turn, usage, handle = tonumber(ARGV[4]), ARGV[5], tonumber(ARGV[6]), ARGV[7], ARGV[8]
local messages, bytes, events = tonumber(ARGV[9]), tonumber(ARGV[10]), tonumber(ARGV[11])
local at = 12
local function following()
  local count, first = tonumber(ARGV[at]), at + 1
  at = first + count
  return first, at - 1
end

if redis.call('EXISTS', s) == 0 then return redis.call('EXISTS', d) == 1 and 'deleted' or 'gone' end
if (tonumber(redis.call('HGET', s, 'by:' .. writer)) or 0) >= number then return 'written' end
local taken = redis.pcall('HSET', s, 'by:' .. writer, number)
if type(taken) == 'table' then
  -- A full Redis takes nothing new, but a conversation that goes on does not end by that.
  if ttl > 0 then for _, key in ipairs({s, m, e}) do at_least(key, ttl) end end
  return taken
end
if ttl > 0 then
  redis.call('HSET', s, 'active', active)
  at_least(s, ttl)
  local user = redis.call('HGET', s, 'user')
  if user then at_least(prefix .. 'u:' .. user, ttl) end
end
if turn > (tonumber(redis.call('HGET', s, 'turn')) or 0) then redis.call('HSET', s, 'turn', turn) end
if usage ~= '' then redis.call('HSET', s, 'usage', usage) end
if handle == '-' then
  redis.call('HDEL', s, 'handle')
elseif handle ~= '' then
  redis.call('HSET', s, 'handle', handle)
end

local first, last = following()
if last >= first then
  local kept = tonumber(redis.call('HGET', s, 'bytes')) or 0
  local function size(item) return tonumber(string.match(item, '^%[(%d+)')) or #item end
  for item = first, last do
    redis.call('RPUSH', m, ARGV[item])
    kept = kept + size(ARGV[item])
  end
  local count = redis.call('LLEN', m)
  while count > 0 and (count > messages or kept > bytes) do
    kept = kept - size(redis.call('LPOP', m))
    count = count - 1
  end
  redis.call('HSET', s, 'bytes', count > 0 and kept or 0)
end

first, last = following()
if last >= first then
  for event = first, last do redis.call('RPUSH', e, ARGV[event]) end
  redis.call('LTRIM', e, -events, -1)
end

first, last = following()
for about = first, last, 2 do
  if redis.call('HGET', s, 'holder') == ARGV[about] then redis.call('HSET', s, 'connected', ARGV[about + 1]) end
end

first, last = following()
for node = first, last do
  redis.call('HDEL', s, 'had:' .. ARGV[node])
  if redis.call('HGET', s, 'holder') == ARGV[node] then redis.call('HDEL', s, 'holder', 'connected') end
end

local left = redis.call('PTTL', s)
if left > 0 then
  redis.call('PEXPIRE', m, left)
  redis.call('PEXPIRE', e, left)
end
return 'written'
""",
    writes=True,
)
"""KEYS session, memory, events, deleted. `written`, `gone` or `deleted`."""

REWRITE: Final = _script(
    "rewrite",
    _LAST,
    """
local s, m, d = KEYS[1], KEYS[2], KEYS[3]
local prefix, id, writer, number, holds = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local ttl, created, user, about, active = tonumber(ARGV[6]), ARGV[7], ARGV[8], ARGV[9], ARGV[10]
local turn, usage, handle, node, connected, bytes = unpack(ARGV, 11, 16)
if redis.call('EXISTS', d) == 1 then return 'deleted' end
if redis.call('EXISTS', s) == 1 then
  local found = redis.pcall('HMGET', s, 'holds', 'by:' .. writer)
  local seen, written = tonumber(found[1]) or -1, tonumber(found[2]) or 0
  if seen > holds or (seen == holds and written >= number) then return 'there' end
  redis.call('DEL', s, m)
end
redis.call('HSET', s, 'about', about, 'active', active, 'user', user, 'turn', turn, 'usage', usage,
  'holds', holds, 'by:' .. writer, number, 'bytes', bytes)
if handle ~= '' then redis.call('HSET', s, 'handle', handle) end
if node ~= '' then redis.call('HSET', s, 'holder', node, 'connected', connected) end
for item = 17, #ARGV do redis.call('RPUSH', m, ARGV[item]) end
redis.call('PEXPIRE', s, ttl)
redis.call('PEXPIRE', m, ttl)
redis.call('ZADD', prefix .. 'u:' .. user, created, id)
at_least(prefix .. 'u:' .. user, ttl)
return 'rewritten'
""",
    writes=True,
)
"""KEYS session, memory, deleted. `rewritten`, `there` (what is there is no older) or `deleted`."""

DELETE: Final = _script(
    "delete",
    """
local s, m, e, d = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local prefix, id, ttl, writer = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local user = redis.pcall('HGET', s, 'user')
if redis.call('DEL', s, m, e) == 0 then return 0 end
if type(user) == 'string' then redis.pcall('ZREM', prefix .. 'u:' .. user, id) end
redis.call('SET', d, 1, 'PX', ttl)
redis.call('PUBLISH', prefix .. 'news', writer .. ' ended ' .. id)
return 1
""",
)
"""KEYS session, memory, events, deleted. How much was there."""

HOLD: Final = _script(
    "hold",
    _FIELDS,
    _LIVES,
    _FORMER,
    """
local s, m = KEYS[1], KEYS[2]
local prefix, id, node, life, writer, number = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], tonumber(ARGV[6])
if redis.call('EXISTS', s) == 0 then return false end
-- Said before this writer let go, and heard after it: the caller has long given up.
if (tonumber(redis.call('HGET', s, 'by:' .. writer)) or 0) > number then return 'late' end
local holder = redis.call('HGET', s, 'holder')
local anew = holder ~= node
if anew then
  redis.call('HDEL', s, 'had:' .. node, 'connected')
  if holder then
    redis.call('HSET', s, 'had:' .. holder, '1')
    redis.call('PUBLISH', prefix .. 'news', writer .. ' taken ' .. id)
  end
  redis.call('HSET', s, 'holder', node)
  redis.call('HINCRBY', s, 'holds', 1)
end
lives(prefix, node, life)
local fields = fields_of(s, m, prefix)
local holds = tonumber(redis.call('HGET', s, 'holds')) or 0
local leaving, abandoned = former(s, prefix, anew)
return {fields, redis.call('LRANGE', m, 0, -1), leaving, abandoned, holds, redis.call('PTTL', s)}
""",
)
"""KEYS session, memory. Nil, or fields, memory, who is leaving, whether somebody died, how often it changed hands
so far, and how long it lives untouched; `late` for one that its node has let go of meanwhile."""

LEAVING: Final = _script(
    "leaving",
    _FORMER,
    """
local leaving, abandoned = former(KEYS[1], ARGV[1], false)
return {leaving, abandoned}
""",
)
"""KEYS session."""

BEAT: Final = _script(
    "beat",
    _NOW,
    _LIVES,
    """
local prefix, node, life, born, heard, writer = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5]), ARGV[6]
local store = prefix .. 'store'
lives(prefix, node, life)
redis.pcall('HSETNX', store, 'born', born)
local known = redis.pcall('HMGET', store, 'born', 'revocations')
if known[1] ~= ARGV[7] then heard = 0 end
local revoked, time = {}, now()
for _, one in ipairs(redis.pcall('ZRANGEBYSCORE', prefix .. 'revoked', '(' .. heard, '+inf')) do
  local ends, subject = string.match(one, '^(%d+) (.*)$')
  if ends and tonumber(ends) > time then revoked[#revoked + 1] = {subject, tonumber(ends) - time} end
end
local news = {}
for at = 8, #ARGV, 3 do
  local id, holds, number = ARGV[at], tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
  local tag = prefix .. '{' .. id .. '}'
  local found = redis.pcall('HMGET', tag .. ':s', 'holder', 'holds', 'by:' .. writer)
  local word
  local seen, written = tonumber(found[2]), tonumber(found[3]) or 0
  if not seen then
    word = redis.call('EXISTS', tag .. ':d') == 1 and 'deleted' or 'gone'
  elseif seen < holds or (seen == holds and written < number) then
    word = 'older'
  elseif found[1] ~= node then
    word = 'taken'
  end
  if word then news[#news + 1] = {id, word} end
end
return {known[1] or '', tonumber(known[2]) or 0, revoked, news}
""",
)
"""The node lives. What store this is, how many revocations it had, the revoked and for how many milliseconds they
are, and what became of each session that is not as it was: `deleted`, `gone`, `older` (than what this writer knows
was written) or `taken`."""

REVOKE: Final = _script(
    "revoke",
    _NOW,
    _LAST,
    """
local prefix, subject, lasts, writer, born = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], ARGV[5]
local store, revoked, time = prefix .. 'store', prefix .. 'revoked', now()
redis.call('HSETNX', store, 'born', born)
for _, one in ipairs(redis.call('ZRANGE', revoked, 0, -1)) do
  local ends, other = string.match(one, '^(%d+) (.*)$')
  if ends and other == subject then lasts = math.max(lasts, tonumber(ends) - time) end
  if not ends or other == subject or tonumber(ends) <= time then redis.call('ZREM', revoked, one) end
end
local number = redis.call('HINCRBY', store, 'revocations', 1)
redis.call('ZADD', revoked, number, string.format('%.0f %s', time + lasts, subject))
at_least(revoked, lasts)
redis.call('PUBLISH', prefix .. 'news', writer .. ' revoked -')
return number
""",
    writes=True,
)

KEEP: Final = _script(
    "keep",
    _NOW,
    _KIND_LASTS,
    """
local c, k = KEYS[1], KEYS[2]
local digest, body, uses, lasts, after, kind, at_most = unpack(ARGV)
lasts, after = tonumber(lasts) or math.huge, tonumber(after)
local time, moment = now(), redis.call('TIME')
if at_most ~= '' then
  local from = '(' .. string.format('%.0f', time)
  local live = redis.call('ZCOUNT', k, from, '+inf')
  local own = tonumber(redis.call('ZSCORE', k, digest))
  if own and own > time then live = live - 1 end
  if live >= tonumber(at_most) then
    local soonest = redis.call('ZRANGEBYSCORE', k, from, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
    local ends = tonumber(soonest[2]) or time
    return {live, ends == math.huge and -1 or ends - time}
  end
end
if lasts + after <= 0 then
  redis.call('DEL', c)
  return {}
end
redis.call('HSET', c, 'body', body, 'kind', kind, 'at', string.format('%.0f', moment[1] * 1000000 + moment[2]))
if uses ~= '' then redis.call('HSET', c, 'uses', uses) else redis.call('HDEL', c, 'uses') end
if lasts == math.huge then
  redis.call('HSET', c, 'forever', '1')
  redis.call('PERSIST', c)
else
  redis.call('HDEL', c, 'forever')
  redis.call('PEXPIRE', c, lasts + after)
end
if kind ~= '' then
  redis.call('ZADD', k, lasts == math.huge and '+inf' or time + lasts, digest)
  redis.call('ZREMRANGEBYSCORE', k, '-inf', time)
  kind_lasts(k, time)
end
return {}
""",
    writes=True,
)
"""KEYS credential, its kind. Nothing, or how many there are and after how many milliseconds the first one ends, -1
for never."""

USE: Final = _script(
    "use",
    """
local found = redis.call('HMGET', KEYS[1], 'body', 'uses', 'forever')
if not found[1] then return false end
local state, uses = 'good', found[2] and tonumber(found[2])
if found[2] and not uses then return {'unreadable'} end
local ttl = redis.call('PTTL', KEYS[1])
local forever, left = found[3] == '1' and ttl == -1, ttl - tonumber(ARGV[2])
if left <= 0 and not forever then
  state = 'expired'
elseif uses and uses < 1 then
  state = 'used_up'
elseif uses and ARGV[1] == '1' then
  redis.call('HINCRBY', KEYS[1], 'uses', -1)
end
return {state, found[1], forever and -1 or math.max(0, left)}
""",
)
"""KEYS credential. Nil, or its state, its body and how many milliseconds are left, -1 for good."""

CREDENTIALS: Final = _script(
    "credentials",
    _NOW,
    """
local k, prefix, kind, most = KEYS[1], unpack(ARGV)
local time, found = now(), {}
local from = '(' .. string.format('%.0f', time)
local all = redis.call('ZRANGEBYSCORE', k, from, '+inf', 'WITHSCORES', 'LIMIT', 0, most)
for at = 1, #all, 2 do
  local ends = tonumber(all[at + 1])
  local kept = redis.pcall('HMGET', prefix .. 'c:' .. all[at], 'body', 'kind', 'at')
  if kept[1] and kept[2] == kind then
    local left = ends == math.huge and -1 or ends - time
    found[#found + 1] = {tonumber(kept[3]) or 0, all[at], kept[1], left}
  end
end
return found
""",
)
"""KEYS the kind. When each was kept, its digest, its body and how many milliseconds are left, -1 for good."""

DROP: Final = _script(
    "drop",
    _NOW,
    _KIND_LASTS,
    """
local c, prefix, digest = KEYS[1], ARGV[1], ARGV[2]
local kind, ttl = redis.pcall('HGET', c, 'kind'), redis.call('PTTL', c)
if redis.call('DEL', c) == 0 then return 0 end
if type(kind) == 'string' then
  local k = prefix .. 'k:' .. kind
  redis.pcall('ZREM', k, digest)
  kind_lasts(k, now())
end
return (ttl == -1 or ttl > tonumber(ARGV[3])) and 1 or 0
""",
)
"""KEYS credential. 1 where there was one that had not expired."""

TAKE: Final = _script(
    "take",
    """
local amount, limit, window = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local taken = math.max(0, tonumber(redis.call('HGET', KEYS[1], 'taken')) or 0)
local got = math.max(0, math.min(amount, limit - taken))
if got > 0 then
  redis.call('HSET', KEYS[1], 'taken', taken + got)
  if redis.call('PTTL', KEYS[1]) < 0 then redis.call('PEXPIRE', KEYS[1], window) end
end
local ends = redis.call('PTTL', KEYS[1])
return {got, math.max(0, limit - taken - got), ends < 0 and window or ends}
""",
)
"""KEYS counter. What was got, what is left, and after how many milliseconds the window ends."""

OCCUPY: Final = _script(
    "occupy",
    _NOW,
    _LAST,
    """
local o, w, place, limit, lasts, writer = KEYS[1], KEYS[2], ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local time = now()
local own = tonumber(redis.call('ZSCORE', o, place) or 0)
local taken = redis.call('ZCOUNT', o, '(' .. string.format('%.0f', time), '+inf')
if own <= time and taken >= limit then return 0 end
redis.call('ZADD', o, time + lasts, place)
redis.call('HSET', w, place, writer)
for _, ended in ipairs(redis.call('ZRANGEBYSCORE', o, '-inf', time)) do redis.call('HDEL', w, ended) end
redis.call('ZREMRANGEBYSCORE', o, '-inf', time)
at_least(o, lasts)
at_least(w, lasts)
return 1
""",
)
"""KEYS places, who has them. Whether the place is taken."""

VACATE: Final = _script(
    "vacate",
    """
local o, w, place, writer = KEYS[1], KEYS[2], ARGV[1], ARGV[2]
if redis.call('HGET', w, place) ~= writer then return 0 end
redis.call('HDEL', w, place)
return redis.call('ZREM', o, place)
""",
)
"""KEYS places, who has them. Nothing where another writer has occupied it since."""

GIVE_BACK: Final = _script(
    "give_back",
    """
local writer, number, amount = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local taken = tonumber(redis.call('HGET', KEYS[1], 'taken')) or 0
if taken == 0 or (tonumber(redis.call('HGET', KEYS[1], 'by:' .. writer)) or 0) >= number then return 0 end
redis.call('HSET', KEYS[1], 'taken', math.max(0, taken - amount), 'by:' .. writer, number)
return 1
""",
)
"""KEYS counter."""

LEAVE: Final = _script(
    "leave",
    """
redis.call('SET', KEYS[1], 'left', 'PX', ARGV[1])
return 1
""",
)
"""KEYS node."""

PROBE: Final = _script(
    "probe",
    """
redis.call('SET', KEYS[1], '1', 'PX', 1000)
return 1
""",
    writes=True,
)
"""KEYS something of no meaning: whether it can be written."""
