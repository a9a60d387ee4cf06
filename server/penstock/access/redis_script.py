"""What Redis does for one message of a server: all or nothing, by Redis's own clock, in one round trip.

Keys begin with the prefix, KEYS[1]:
`:servers`          sorted set, server → when it counts as ended (microseconds)
`:t:<scope>:<kind>` hash of a rate: `used` tokens at `at`, which flow off at the rate
`:f:<scope>`, `:q:<scope>` hash, server → "held until": its part of what may be in flight, and of queued bytes
`:d:<day>:<scope>`  hash, server → "requests rows bytes" of that day
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from penstock.access.shared_scope import ScopeAnswer, ScopeAsk

LUA: Final = """
local prefix, server, lease, day = KEYS[1], ARGV[1], tonumber(ARGV[2]), ARGV[3]
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local function text(number) return string.format('%.17g', number) end
local function whole(number) return string.format('%.0f', number) end

local servers = prefix .. ':servers'
redis.call('ZREMRANGEBYSCORE', servers, '-inf', whole(now))
if lease > 0 then
  redis.call('ZADD', servers, whole(now + lease), server)
  redis.call('PEXPIRE', servers, whole(lease / 1000 + 1000))
else
  redis.call('ZREM', servers, server)
end
local answer = { redis.call('ZCARD', servers) }

local function tokens(key, rate, burst, want, must)
  local kept = redis.call('HMGET', key, 'used', 'at')
  local used, at = tonumber(kept[1] or '0'), tonumber(kept[2] or '0')
  if now > at then used = math.max(0, used - (now - at) * rate / 1000000) end
  local granted = must
  if must >= 0 then granted = math.max(must, math.min(want, math.floor(burst - used))) end
  used = math.max(0, used + granted)
  if used > 0 then
    redis.call('HSET', key, 'used', text(used), 'at', whole(math.max(now, at)))
    redis.call('PEXPIRE', key, whole(math.min(used / rate * 1000 + 1000, 1e14)))
  else
    redis.call('DEL', key)
  end
  answer[#answer + 1] = whole(granted)
  answer[#answer + 1] = text(burst - used)
end

local function held(key, limit, mine, want)
  local others = 0
  local all = redis.call('HGETALL', key)
  for i = 1, #all, 2 do
    local room, ends = string.match(all[i + 1], '(%d+) (%d+)')
    if all[i] ~= server then
      if tonumber(ends) <= now then redis.call('HDEL', key, all[i]) else others = others + tonumber(room) end
    end
  end
  local room = math.max(mine, math.min(want, limit - others))
  if room > 0 and lease > 0 then
    redis.call('HSET', key, server, whole(room) .. ' ' .. whole(now + lease))
    redis.call('PEXPIRE', key, whole(lease / 1000 + 1000))
  else
    redis.call('HDEL', key, server)
  end
  answer[#answer + 1] = whole(room)
  answer[#answer + 1] = whole(limit - others - room)
end

local function of_day(key, requests, rows, bytes)
  redis.call('HSET', key, server, requests .. ' ' .. rows .. ' ' .. bytes)
  redis.call('PEXPIRE', key, 172800000)
  local sums = { 0, 0, 0 }
  local all = redis.call('HGETALL', key)
  for i = 1, #all, 2 do
    if all[i] ~= server then
      local n = 0
      for word in string.gmatch(all[i + 1], '%d+') do
        n = n + 1
        sums[n] = sums[n] + tonumber(word)
      end
    end
  end
  for n = 1, 3 do answer[#answer + 1] = whole(sums[n]) end
end

local i = 4
local function next_text() i = i + 1 return ARGV[i - 1] end
local function next_number() return tonumber(next_text()) end
while i <= #ARGV do
  local scope = next_text()
  for kind = 0, 2 do
    local rate, burst, want, must = next_number(), next_number(), next_number(), next_number()
    if rate > 0 then tokens(prefix .. ':t:' .. scope .. ':' .. kind, rate, burst, want, must)
    else answer[#answer + 1] = '0' answer[#answer + 1] = '0' end
  end
  for _, name in ipairs({ ':f:', ':q:' }) do
    local limit, mine, want = next_number(), next_number(), next_number()
    if limit > 0 then held(prefix .. name .. scope, limit, mine, want)
    else answer[#answer + 1] = '0' answer[#answer + 1] = '0' end
  end
  local counted, requests, rows, bytes = next_number(), next_text(), next_text(), next_text()
  if counted > 0 then of_day(prefix .. ':d:' .. day .. ':' .. scope, requests, rows, bytes)
  else for _ = 1, 3 do answer[#answer + 1] = '0' end end
end
return answer
"""

ANSWERS: Final = 13
"""Of a scope."""


def arguments(server: str, lease_us: int, day: int, asks: Sequence[ScopeAsk]) -> list[str]:
    """The script's ARGV. `lease_us` 0: the server ends, and gives all back."""
    return [server, str(lease_us), str(day), *(word for ask in asks for word in _words(ask))]


def _words(ask: ScopeAsk) -> Iterator[str]:
    yield ask.id
    for tokens in ask.tokens:
        yield from (f"{tokens.rate:.17g}", f"{tokens.burst:.17g}", *map(str, tokens[2:]))
    for held in (ask.in_flight, ask.queued):
        yield from map(str, held)
    yield from map(str, (0, 0, 0, 0) if ask.day is None else (1, *ask.day))


def parse(reply: Sequence[Any], asked: int) -> tuple[int, list[ScopeAnswer]]:
    """How many servers there are, and the answer to each ask. Raises ValueError when it is no such reply."""
    words = [word.decode() if isinstance(word, bytes) else str(word) for word in reply]
    if len(words) != 1 + asked * ANSWERS:
        raise ValueError(f"expected {1 + asked * ANSWERS} values, got {len(words)}")
    answers = [_answer(words[at : at + ANSWERS]) for at in range(1, len(words), ANSWERS)]
    return int(words[0]), answers


def _answer(words: Sequence[str]) -> ScopeAnswer:
    held = [int(word) for word in words[6:10]]
    return ScopeAnswer(
        [int(word) for word in words[0:6:2]],
        [float(word) for word in words[1:6:2]],
        (held[0], held[1]),
        (held[2], held[3]),
        [int(word) for word in words[10:13]],
    )
