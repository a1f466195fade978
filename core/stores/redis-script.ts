/**
 * What runs inside Redis: one script that writes and one that reads, each on one key; and the words in which they are asked and answer.
 * Pure. Invariant: the write script decides as `apply` in core/record/operation.ts does; a test holds the two equal over random histories.
 * Why Lua decides and not `apply` here: a read, a decision and a conditional write would be two journeys, and a lost race one more of each.
 * Why one string a key and no hash: a script then reads with one GET and writes with one SET, and a small record takes half the memory.
 *
 * A record: magic, format, flags (1 byte each), four big-endian doubles (version, createdAt, lastModifiedAt, expiresAt), the last request
 * (a length byte, then its name), the originator likewise where flag 2 says so, the remembered requests (4 bytes of length) where flag 8 does, the value.
 * Unlike on disk there is no checksum, for Lua cannot make one of a value in reasonable time.
 */
import { createHash } from 'node:crypto'
import { epochMs, epochMsMax, type EpochMs } from '../base/types.ts'
import { unreachable } from '../base/assert.ts'
import { KvError } from '../kv/errors.ts'
import type { Entry, Version } from '../kv/kv.ts'
import { completionRules, type KvOperation, type Outcome } from '../record/operation.ts'
import { requestToken, versionOf } from '../record/record.ts'
import { asBuffer } from './as-buffer.ts'
import type { Answer } from './verbs.ts'

/** The first byte of each record, so that what another program left under a key is known at sight. */
export const magic = 0xb7
export const formatVersion = 1

export interface Script {
  readonly text: string
  /** SHA-1 of the text, as EVALSHA takes it. */
  readonly sha: string
}
const script = (text: string): Script => ({ text, sha: createHash('sha1').update(text).digest('hex') })

/** The store's clock and the record's head; answers at once where the bytes are not ours or of a newer release. Status numbers: see `Status`. */
const head = `
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local raw = redis.call('GET', KEYS[1])
local flags, count, created, modified, expires, last, at = 0, 0, 0, 0, 0, '', 1
if raw then
  if #raw < 36 or raw:byte(1) ~= ${magic} then return {8, now} end
  flags = raw:byte(3)
  if raw:byte(2) ~= ${formatVersion} or flags > 15 then return {9, now} end
  count, created, modified, expires, last, at = struct.unpack('>ddddBc0', raw, 4)
end
local live = raw and bit.band(flags, 1) == 1 and (expires == 0 or expires > now)
`

/** Where the value stands in `raw`. */
const skip = `
local origin, memory
if bit.band(flags, 2) == 2 then origin, at = struct.unpack('>Bc0', raw, at) end
if bit.band(flags, 4) == 4 then origin = last end
if bit.band(flags, 8) == 8 then memory, at = struct.unpack('>I4c0', raw, at) end
`

export const readScript: Script = script(`${head}
if not live then return {4, now} end
${skip}
return {1, now, count, modified, last, created, expires, raw:sub(at)}
`)

/**
 * ARGV: 1 gate, 2 verb, 3 value, 4 session, 5 sequence, 6 remember, 7 done, 8 attempt, 9 change of the expiry, 10 its number,
 * 11 to 13 the version asked for: count, instant, request; 14 touch.
 *
 * The gate is '1', or the caller no longer waits: a client that sends what it had in flight once more after it lost its connection sends another
 * gate then, and nothing happens. Touch: write something in any case, so that WAIT speaks of all that this answer rests on.
 */
export const writeScript: Script = script(`
if ARGV[1] ~= '1' then return {-1, 0} end
${head}${skip}
local key, verb, session, sequence, remember, done = KEYS[1], ARGV[2], ARGV[4], tonumber(ARGV[5]), ARGV[6] == '1', tonumber(ARGV[7])
local token = sequence == 0 and session or session .. '\\n' .. ARGV[5]
local function touch()
  if ARGV[14] ~= '1' then return end
  if redis.call('EXISTS', key) == 1 then redis.call('SETRANGE', key, 0, string.char(${magic}))
  else redis.call('SET', key, '') redis.call('DEL', key) end
end
local function entry(status)
  touch()
  return {status, now, count, modified, last, created, expires, raw:sub(at)}
end
local function answer(status)
  touch()
  return {status, now}
end

-- What is remembered and young enough: {bytes, request} each, and {bytes, session, below} each.
local names, marks, youngest, size, earlier, mark = {}, {}, 0, 0, nil, nil
if memory then
  local total, pos = struct.unpack('>I2', memory)
  for _ = 1, total do
    local length, when, name = struct.unpack('>I2dBc0', memory, pos)
    if now - when < ${completionRules.lifeMs} then
      local bytes = memory:sub(pos, pos + length - 1)
      names[#names + 1] = {bytes, name}
      size = size + length
      if when > youngest then youngest = when end
      if remember and name == token then earlier = bytes end
    end
    pos = pos + length
  end
  total, pos = struct.unpack('>I2', memory, pos)
  for _ = 1, total do
    local length, when, below, name = struct.unpack('>I2ddBc0', memory, pos)
    if now - when < ${completionRules.lifeMs} then
      local one = {memory:sub(pos, pos + length - 1), name, below}
      marks[#marks + 1] = one
      size = size + length
      if when > youngest then youngest = when end
      if remember and sequence > 0 and name == session then mark = one end
    end
    pos = pos + length
  end
end

if earlier then
  local _, when, _, wasVerb, outcome, itsCount, itsModified, itsCreated, itsExpires, met = struct.unpack('>I2dBc0c1c1ddddBc0', earlier)
  now = when -- it was decided then, and need not have been decided so now
  if wasVerb ~= verb then return answer(6) end
  if outcome == 'm' then return answer(4) end
  if outcome == 'a' and verb == 'd' then return answer(0) end
  if outcome == 'a' then
    touch()
    return {0, now, itsCount, itsModified, token, itsCreated, itsExpires}
  end
  if live and count == itsCount and modified == itsModified and last == met then return entry(outcome == 'e' and 2 or 3) end
  return answer(7)
end
if mark and sequence < mark[3] then return answer(6) end
if remember and verb == 'c' and origin == token then
  touch()
  return {0, now, 1, created, token, created, expires}
end

local status, changes = 0, false
if verb ~= 'c' and ARGV[11] ~= '' then
  if not live then status = 4
  elseif count ~= tonumber(ARGV[11]) or modified ~= tonumber(ARGV[12]) or last ~= ARGV[13] then status = 3 end
end
if status == 0 then
  if verb == 'c' and live then status = 2
  elseif verb == 'u' and not live then status = 4
  elseif verb == 'd' then status, changes = live and 1 or 0, live
  else changes = true end
end
if not changes and (not remember or tonumber(ARGV[8]) < 2) then
  if status == 2 or status == 3 then return entry(status) end
  return answer(status)
end

-- The record as it will be. What the answer shows of a destroyed or met entry is kept aside.
local shown = (status == 1 or status == 2 or status == 3) and {status, now, count, modified, last, created, expires, raw:sub(at)}
local value
if changes then
  local risen = raw and math.max(now, modified + 1) or now
  if verb == 'd' then
    count, modified, last, flags = count + 1, risen, token, 0
  else
    local before, change, number = live and expires, ARGV[9], tonumber(ARGV[10])
    if change == 'k' then expires = before or 0
    elseif change == 'n' then expires = 0
    elseif change == 's' then expires = math.min(now + number, ${epochMsMax})
    elseif change == 'e' then expires = before == 0 and 0 or math.min(math.max(before or 0, now + number), ${epochMsMax})
    else expires = number end
    count, created = live and count + 1 or 1, live and created or risen
    if not live then origin = remember and token or nil end
    modified, last, flags, value = risen, token, 1, ARGV[3]
  end
elseif raw then
  flags = bit.band(flags, 1)
  value = raw:sub(at)
else
  count, created, modified, expires, last, flags = 0, now, now, 0, '\\n' .. token, 0
end

if remember then
  if sequence > 0 and done > 0 then
    local below = math.max(done, mark and mark[3] or 0)
    local kept, prefix = {}, session .. '\\n'
    for _, one in ipairs(names) do
      if one[2]:sub(1, #prefix) == prefix and tonumber(one[2]:sub(#prefix + 1)) < below then size = size - #one[1]
      else kept[#kept + 1] = one end
    end
    names = kept
    kept = {}
    for _, one in ipairs(marks) do
      if one == mark then size = size - #one[1] else kept[#kept + 1] = one end
    end
    marks = kept
    local bytes = struct.pack('>I2ddBc0', 19 + #session, now, below, #session, session)
    marks[#marks + 1] = {bytes}
    size = size + #bytes
  end
  local outcome = status == 2 and 'e' or status == 3 and 'v' or status == 4 and 'm' or 'a'
  local met = shown and status ~= 1 and shown[5] or ''
  local its = verb == 'd' and outcome == 'a' and {0, 0, 0, 0} or shown and {shown[3], shown[4], shown[6], shown[7]}
    or changes and {count, modified, created, expires} or {0, 0, 0, 0}
  local bytes = struct.pack('>I2dBc0c1c1ddddBc0', 46 + #token + #met, now, #token, token, verb, outcome, its[1], its[2], its[3], its[4], #met, met)
  local share = changes and 1 or 0.75
  if size + #bytes > ${completionRules.bytesMax} * share or #names + 1 > ${completionRules.countMax} * share then return answer(5) end
  names[#names + 1] = {bytes}
  youngest = math.max(youngest, now)
end

local dies = flags == 0 and 0 or expires
local stays = flags == 1 and expires == 0
local leaves = math.max(dies, #names + #marks > 0 and youngest + ${completionRules.lifeMs} or 0)
if not stays and leaves <= now then
  redis.call('DEL', key)
else
  if origin == last then flags = flags + 4
  elseif origin then flags = flags + 2 end
  local bytes = struct.pack('>ddddBc0', count, created, modified, expires, #last, last)
  if flags % 4 >= 2 then bytes = bytes .. struct.pack('>Bc0', #origin, origin) end
  if #names + #marks > 0 then
    flags = flags + 8
    local list = {struct.pack('>I2', #names)}
    for _, one in ipairs(names) do list[#list + 1] = one[1] end
    list[#list + 1] = struct.pack('>I2', #marks)
    for _, one in ipairs(marks) do list[#list + 1] = one[1] end
    memory = table.concat(list)
    bytes = bytes .. struct.pack('>I4c0', #memory, memory)
  end
  bytes = string.char(${magic}, ${formatVersion}, flags) .. bytes .. (value or '')
  if stays then redis.call('SET', key, bytes) else redis.call('SET', key, bytes, 'PXAT', string.format('%.0f', leaves)) end
end
if shown then return shown end
if changes and verb ~= 'd' then return {0, now, count, modified, token, created, expires} end
return {status, now}
`)

/** The first number of an answer. The last two: bytes that are not ours, or of a newer release. A closed gate is -1, which nobody waits for. */
const Status = {
  applied: 0,
  appliedToEntry: 1,
  exists: 2,
  version: 3,
  missing: 4,
  locked: 5,
  reused: 6,
  gone: 7,
  foreign: 8,
  newer: 9,
} as const

const verbLetters = { create: 'c', update: 'u', set: 's', destroy: 'd' } as const
const none = Buffer.alloc(0)
const gateOpen = 0x31 // 1
const gateClosed = 0x30 // 0

/** A gate of its own for each call: `close` it, and whoever sends these bytes again sends a call without effect. */
export class Gate {
  readonly bytes: Buffer = Buffer.of(gateOpen)
  close(): void {
    this.bytes[0] = gateClosed
  }
}

export type Argument = string | Buffer

/** What `writeScript` takes after the key. The value is not copied. */
export function writeArguments(operation: KvOperation, gate: Gate, touch: boolean): Argument[] {
  const { verb, request } = operation
  const value = operation.verb === 'destroy' ? none : asBuffer(operation.value)
  const { session, sequence, remember, done, attempt } = request
  return [
    gate.bytes,
    verbLetters[verb],
    value,
    session,
    String(sequence),
    remember ? '1' : '0',
    String(done),
    String(attempt),
    ...changeArguments(operation),
    ...versionArguments(operation.verb === 'create' ? undefined : operation.ifVersion),
    touch ? '1' : '0',
  ]
}

function changeArguments(operation: KvOperation): readonly [letter: string, number: string] {
  if (operation.verb === 'destroy') return ['k', '0']
  const { expiry } = operation
  switch (expiry.type) {
    case 'keep':
      return ['k', '0']
    case 'never':
      return ['n', '0']
    case 'set':
      return ['s', String(expiry.ttlMs)]
    case 'extend':
      return ['e', String(expiry.ttlMs)]
    case 'until':
      return ['u', String(expiry.at)]
    default:
      return unreachable(expiry)
  }
}

/** A version's parts, as `versionOf` put them together. What is no version of ours is one that no state has. */
function versionArguments(version: Version | undefined): readonly [count: string, instant: string, request: string] {
  if (version === undefined) return ['', '', '']
  const parts = /^(\d{1,15})\.([0-9a-z]{1,11})\.([^]*)$/.exec(version)
  return parts ? [parts[1] as string, String(Number.parseInt(parts[2] as string, 36)), parts[3] as string] : ['-1', '-1', '']
}

/** A reply of either script. @throws KvError RECORD_FOREIGN; UNAVAILABLE for what no script of ours answers. */
export function answerOf(reply: unknown, operation: KvOperation | undefined): Answer {
  if (!Array.isArray(reply)) return strange()
  const parts: readonly unknown[] = reply
  const status = Number(parts[0])
  return { outcome: outcomeOf(status, parts, operation), now: instant(parts[1]) }
}

function outcomeOf(status: number, parts: readonly unknown[], operation: KvOperation | undefined): Outcome {
  switch (status) {
    case Status.applied: {
      if (parts.length === 2) return { type: 'applied', entry: undefined }
      if (operation === undefined || operation.verb === 'destroy') return strange()
      return { type: 'applied', entry: entryOf(parts, operation.value, requestToken(operation.request)) }
    }
    case Status.appliedToEntry:
      return { type: 'applied', entry: metEntry(parts) }
    case Status.exists:
      return { type: 'exists', entry: metEntry(parts) }
    case Status.version:
      return { type: 'version', entry: metEntry(parts) }
    case Status.missing:
      return { type: 'missing' }
    case Status.locked:
      return { type: 'fault', code: 'RECORD_LOCKED' }
    case Status.reused:
      return { type: 'fault', code: 'REQUEST_ID_REUSED' }
    case Status.gone:
      return { type: 'fault', code: 'ANSWER_GONE' }
    case Status.foreign:
      throw new KvError('RECORD_FOREIGN')
    case Status.newer:
      throw new KvError('RECORD_FOREIGN', { message: 'the record under this key was written by a newer release' })
    default:
      return strange()
  }
}

function metEntry(parts: readonly unknown[]): Entry {
  const value = parts[7]
  if (!(value instanceof Uint8Array)) return strange()
  // A plain view: a Buffer of the client's would show its own methods to whoever compares or serialises it.
  return entryOf(parts, new Uint8Array(value.buffer, value.byteOffset, value.byteLength), String(parts[4]))
}

function entryOf(parts: readonly unknown[], value: Uint8Array, lastRequest: string): Entry {
  const version = versionOf(Number(parts[2]), instant(parts[3]), lastRequest)
  const createdAt = instant(parts[5])
  const expiresAt = instant(parts[6])
  return expiresAt === 0 ? { value, version, createdAt } : { value, version, createdAt, expiresAt }
}

const instant = (part: unknown): EpochMs => epochMs(Number(part))

const strange = (): never => {
  throw new KvError('UNAVAILABLE', { message: 'Redis answered what no script of this store answers', retry: 'same-request-id' })
}
