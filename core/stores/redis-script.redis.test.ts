/**
 * The two scripts on a real Redis: the write script decides as `apply` does, the bytes are those of the golden file, and what is not ours is refused.
 * Invariant: both deciders get the same clock, which a test's script takes from its arguments and not from TIME.
 * Why instants of the year 2100: Redis itself takes a key away by its own clock, and must not do so while the test's clock stands still.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { Redis } from 'ioredis'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { seededRandom, type Random } from '../base/random.ts'
import { epochMs, type Millis } from '../base/types.ts'
import type { ExpiryChange } from '../kv/expiry.ts'
import type { Version } from '../kv/kv.ts'
import { apply, completionRules, type KvOperation, type Outcome, type Request } from '../record/operation.ts'
import { entryOf, forgettableAt, isForgettable, type KeyRecord } from '../record/record.ts'
import { answerOf, formatVersion, Gate, magic, readScript, writeArguments, writeScript } from './redis-script.ts'
import { redisKv } from './redis.ts'
import { redisServer, type RedisServer } from './testdata/redis-server.ts'

let server: RedisServer
let client: Redis
beforeAll(async () => {
  server = await redisServer()
  client = new Redis({ port: server.port })
})
afterAll(async () => {
  client?.disconnect()
  await server?.close()
})

/** What PEXPIRETIME says of no key, and of one that stays. */
const [gone, stays] = [-2, -1]
const begin = 4_102_444_800_000 // 2100-01-01
/** The scripts with the clock as their last two arguments. */
const clocked = (text: string): string => text.replace("redis.call('TIME')", '{ARGV[#ARGV - 1], ARGV[#ARGV]}')
const clockOf = (now: number): string[] => [`${Math.floor(now / 1_000)}`, `${(now % 1_000) * 1_000}`]

async function write(
  key: string,
  operation: KvOperation,
  now: number,
  { gate = new Gate(), touch = false, decidedAt = now } = {},
): Promise<Outcome> {
  const reply = await client.callBuffer(
    'EVAL',
    clocked(writeScript.text),
    '1',
    key,
    ...writeArguments(operation, gate, touch),
    ...clockOf(now),
  )
  const answer = answerOf(reply, operation)
  expect(answer.now).toBe(decidedAt)
  return answer.outcome
}
const read = async (key: string, now: number) => {
  const { outcome } = answerOf(await client.callBuffer('EVAL', clocked(readScript.text), '1', key, ...clockOf(now)), undefined)
  return outcome.type === 'applied' ? outcome.entry : undefined
}

let made = 0
const unnamed = (): Request => ({ session: `made-up-${++made}`, sequence: 0, remember: false, done: 0, attempt: 1 })
const named = (session: string, sequence = 0, done = 0, attempt = 1): Request => ({ session, sequence, remember: true, done, attempt })

function randomRequest(random: Random): Request {
  const kind = random.int(3)
  if (kind === 0) return unnamed()
  if (kind === 1) return named(`request-${random.int(6)}`)
  const sequence = 1 + random.int(6)
  return named(`session-${random.int(2)}`, sequence, random.int(2) === 0 ? 0 : random.int(sequence + 1), 1 + random.int(2))
}

function randomExpiry(random: Random, now: number): ExpiryChange {
  const ttlMs = (1 + random.int(20_000)) as Millis
  const changes: readonly ExpiryChange[] = [
    { type: 'keep' },
    { type: 'never' },
    { type: 'set', ttlMs },
    { type: 'extend', ttlMs },
    { type: 'until', at: epochMs(now - 5_000 + random.int(20_000)) },
  ]
  return changes[random.int(changes.length)] as ExpiryChange
}

function randomOperation(random: Random, now: number, versions: readonly Version[]): KvOperation {
  const request = randomRequest(random)
  const value = Uint8Array.from({ length: random.int(4) }, () => random.int(256))
  const verb = (['create', 'update', 'set', 'destroy'] as const)[random.int(4)] as KvOperation['verb']
  const ifVersion = [undefined, versions.at(-1), versions[random.int(versions.length + 1)], 'no version at all' as Version][random.int(4)]
  if (verb === 'destroy') return { verb, request, ifVersion }
  if (verb === 'create') {
    const ttlMs = (1 + random.int(20_000)) as Millis
    return { verb, request, value, expiry: random.int(2) === 0 ? { type: 'never' } : { type: 'set', ttlMs } }
  }
  return { verb, request, value, expiry: randomExpiry(random, now), ifVersion }
}

/** Mostly a little forward; at times beyond what is remembered, at times back. */
const step = (random: Random): number =>
  [0, 1, random.int(100), random.int(5_000), completionRules.lifeMs + 1, -random.int(50)][random.int(6)] as number

const plain = (outcome: Outcome): unknown =>
  'entry' in outcome && outcome.entry !== undefined
    ? { type: outcome.type, entry: { ...outcome.entry, value: Buffer.from(outcome.entry.value).toString('hex') } }
    : { type: outcome.type, ...('code' in outcome ? { code: outcome.code } : {}) }

/** Each has to be met. */
const outcomes = ['REQUEST_ID_REUSED', 'ANSWER_GONE', 'create exists', 'update version', 'update missing', 'set applied', 'destroy version']

describe('the write script', () => {
  test.each([false, true])('decides every random history as `apply` does (touch: %s)', { timeout: 120_000 }, async (touch) => {
    const seed = Number(process.env.HAPAX_SEED ?? 1)
    const random = seededRandom(seed)
    const met = new Map<string, number>()
    // Some are rare: a run goes on until it has met all of them.
    const isMet = (): boolean => outcomes.every((name) => met.has(name))
    for (let history = 0; history < 60 || (history < 600 && !isMet()); history++) {
      const key = `history-${touch}-${history}`
      let record: KeyRecord | undefined
      let now: number = begin
      const versions: Version[] = []
      const told: unknown[] = []
      for (let turn = 0; turn < 60; turn++) {
        now += step(random)
        const operation = randomOperation(random, now, versions)
        const decision = apply(operation, record, epochMs(now))
        const outcome = await write(key, operation, now, { touch, decidedAt: decision.decidedAt ?? now })
        told.push({ now, ...operation, outcome: plain(outcome) })
        expect(plain(outcome), `seed ${seed}\n${JSON.stringify(told, undefined, 1)}`).toEqual(plain(decision.outcome))
        if (decision.record !== record && decision.record !== undefined) {
          const isForgotten = isForgettable(decision.record, epochMs(now), completionRules.lifeMs)
          const leavesAt = isForgotten ? gone : (forgettableAt(decision.record, completionRules.lifeMs) ?? stays)
          const kept = await client.pexpiretime(key)
          // Never sooner; later only where the clock went back since the last request was remembered.
          if (leavesAt === gone || leavesAt === stays) expect(kept).toBe(leavesAt)
          else expect(kept - leavesAt).toSatisfy((lateMs: number) => lateMs >= 0 && lateMs < 1_000)
          record = isForgotten ? undefined : decision.record
        }
        const there = await read(key, now)
        const expected = entryOf(record, epochMs(now))
        expect(there && plain({ type: 'applied', entry: there })).toEqual(expected && plain({ type: 'applied', entry: expected }))
        if (there) versions.push(there.version)
        const name = outcome.type === 'fault' ? outcome.code : `${operation.verb} ${outcome.type}`
        met.set(name, (met.get(name) ?? 0) + 1)
      }
    }
    expect(outcomes.filter((name) => !met.has(name))).toEqual([])
  })

  test('says RECORD_LOCKED when a record remembers as much as it may, keeps a quarter for changes, and frees itself by time', async () => {
    const set = (index: number, now: number) =>
      write(
        'locked',
        { verb: 'set', request: named(`request-${index}`), value: Buffer.of(1), expiry: { type: 'keep' }, ifVersion: undefined },
        now,
      )
    const refusedUpdate = (index: number) =>
      write('locked', { verb: 'create', request: named('session', index, 0, 2), value: Buffer.of(1), expiry: { type: 'never' } }, begin)
    let refusals = 0
    while ((await set(refusals, begin)).type === 'applied' && refusals < 3_000) refusals++
    expect(refusals).toBeGreaterThan(300)
    expect(refusals).toBeLessThanOrEqual(completionRules.countMax)
    expect(await set(refusals, begin)).toEqual({ type: 'fault', code: 'RECORD_LOCKED' })
    expect(await refusedUpdate(1)).toEqual({ type: 'fault', code: 'RECORD_LOCKED' })
    expect((await set(0, begin)).type).toBe('applied') // remembered: answered from memory
    expect((await set(refusals, begin + completionRules.lifeMs)).type).toBe('applied')
    expect(await client.strlen('locked')).toBeLessThan(300)
  })

  test('never holds more remembered requests than its bytes allow', async () => {
    const set = (index: number) =>
      write(
        'bytes',
        { verb: 'set', request: named(`${'x'.repeat(60)}${index}`), value: Buffer.of(1), expiry: { type: 'keep' }, ifVersion: undefined },
        begin,
      )
    for (let index = 0; (await set(index)).type === 'applied'; index++) expect(index).toBeLessThan(400)
    expect(await client.strlen('bytes')).toBeLessThan(completionRules.bytesMax + 400)
  })

  test('does nothing once its gate is closed', async () => {
    const gate = new Gate()
    gate.close()
    const operation: KvOperation = { verb: 'set', request: unnamed(), value: Buffer.of(1), expiry: { type: 'keep' }, ifVersion: undefined }
    await expect(client.callBuffer('EVAL', writeScript.text, '1', 'closed', ...writeArguments(operation, gate, false))).resolves.toEqual([
      -1, 0,
    ])
    expect(await client.exists('closed')).toBe(0)
  })

  test('leaves a key to Redis to remove at the very instant from which nothing of it matters', async () => {
    const create = (key: string, request: Request): Promise<Outcome> =>
      write(key, { verb: 'create', request, value: Buffer.of(1), expiry: { type: 'set', ttlMs: 5_000 as Millis } }, begin)
    await create('expires', unnamed())
    expect(await client.pexpiretime('expires')).toBe(begin + 5_000)
    await create('remembers', named('request'))
    expect(await client.pexpiretime('remembers')).toBe(begin + completionRules.lifeMs)
    await write('stays', { verb: 'create', request: named('request'), value: Buffer.of(1), expiry: { type: 'never' } }, begin)
    expect(await client.pexpiretime('stays')).toBe(-1)
    await write('stays', { verb: 'destroy', request: unnamed(), ifVersion: undefined }, begin)
    expect(await client.pexpiretime('stays')).toBe(begin + completionRules.lifeMs)
  })
})

describe('the bytes of a record', () => {
  const goldenFile = fileURLToPath(new URL('./testdata/redis-records-1.txt', import.meta.url))
  const value = Buffer.from('{"paid":true}')
  const twoHours = { type: 'set', ttlMs: 7_200_000 as Millis } as const
  /** A record of each shape: what makes it, in order. */
  const shapes: Readonly<Record<string, readonly KvOperation[]>> = {
    'fresh, without expiry': [{ verb: 'create', request: { ...unnamed(), session: 'first' }, value, expiry: { type: 'never' } }],
    'changed, with expiry': [
      { verb: 'create', request: { ...unnamed(), session: 'first' }, value, expiry: twoHours },
      { verb: 'update', request: { ...unnamed(), session: 'second' }, value, expiry: { type: 'keep' }, ifVersion: undefined },
    ],
    'made and changed by remembered requests': [
      { verb: 'create', request: named('order-1'), value, expiry: twoHours },
      { verb: 'set', request: named('process', 7, 3), value, expiry: { type: 'keep' }, ifVersion: undefined },
      { verb: 'create', request: named('order-2', 1, 0, 2), value, expiry: { type: 'never' } },
    ],
    'destroyed, with its requests': [
      { verb: 'create', request: named('order-1'), value, expiry: { type: 'never' } },
      { verb: 'destroy', request: named('process', 8, 8), ifVersion: undefined },
    ],
    'nothing but a refused request': [
      { verb: 'update', request: named('process', 9, 1, 2), value, expiry: { type: 'keep' }, ifVersion: undefined },
    ],
  }
  const bytesOf = async (name: string): Promise<string> => {
    const key = `golden ${name}`
    await client.del(key)
    for (const operation of shapes[name] as readonly KvOperation[]) await write(key, operation, begin)
    return (await client.getBuffer(key))?.toString('hex') ?? ''
  }

  test('are those of the golden file', async () => {
    const lines = []
    for (const name of Object.keys(shapes)) lines.push(`${name}: ${await bytesOf(name)}`)
    if (process.env.HAPAX_WRITE_GOLDEN === '1') writeFileSync(goldenFile, `${lines.join('\n')}\n`)
    expect(`${lines.join('\n')}\n`).toBe(readFileSync(goldenFile, 'utf8'))
  })

  test('of the golden file are read and go on: values, expiries, remembered requests', async () => {
    const golden = new Map(
      readFileSync(goldenFile, 'utf8')
        .trim()
        .split('\n')
        .map((line) => line.split(': ') as [string, string]),
    )
    const put = (name: string) => client.set('old', Buffer.from(golden.get(name) ?? '', 'hex'))
    await put('fresh, without expiry')
    expect(await read('old', begin)).toEqual({ value: new Uint8Array(value), version: `1.${begin.toString(36)}.first`, createdAt: begin })
    await put('made and changed by remembered requests')
    expect((await read('old', begin))?.expiresAt).toBe(begin + 7_200_000)
    const again = await write(
      'old',
      (shapes['made and changed by remembered requests'] as readonly KvOperation[])[0] as KvOperation,
      begin + 1,
      { decidedAt: begin },
    )
    expect(again).toMatchObject({ type: 'applied', entry: { version: `1.${begin.toString(36)}.order-1` } })
    await put('destroyed, with its requests')
    expect(await read('old', begin)).toBeUndefined()
    expect(await write('old', { verb: 'create', request: named('process', 7), value, expiry: { type: 'never' } }, begin)).toEqual({
      type: 'fault',
      code: 'REQUEST_ID_REUSED',
    })
  })

  test('P12: an old and a new process on one record: the old one refuses what the new one wrote, and overwrites nothing', async () => {
    const kv = redisKv(client)
    const { entry } = await kv.create('mixed', value)
    const old = (await client.getBuffer('mixed')) as Buffer
    const newer = { format: Buffer.from(old), flags: Buffer.from(old) }
    newer.format[1] = formatVersion + 1
    newer.flags[2] = 16
    for (const bytes of Object.values(newer)) {
      await client.set('mixed', bytes)
      const calls = {
        get: () => kv.get('mixed'),
        create: () => kv.create('mixed', value),
        set: () => kv.set('mixed', value),
        update: () => kv.update('mixed', value, { ifVersion: entry.version }),
        destroy: () => kv.destroy('mixed'),
      }
      for (const [verb, call] of Object.entries(calls))
        await expect(call(), verb).rejects.toMatchObject({
          code: 'RECORD_FOREIGN',
          message: expect.stringContaining('newer release') as string,
        })
      expect(await client.getBuffer('mixed')).toEqual(bytes)
    }
    await kv.close()
  })

  test('of another program are RECORD_FOREIGN and stay as they are: a text, a short one, and another type of value', async () => {
    const kv = redisKv(client, { prefix: 'theirs:' })
    await client.set('theirs:text', 'a session of somebody else, long enough')
    await client.set('theirs:short', Buffer.of(magic, formatVersion))
    await client.set('theirs:empty', '')
    await client.rpush('theirs:list', 'a')
    for (const key of ['text', 'short', 'empty', 'list']) {
      await expect(kv.get(key), key).rejects.toMatchObject({ code: 'RECORD_FOREIGN', retry: 'never' })
      await expect(kv.set(key, value), key).rejects.toMatchObject({ code: 'RECORD_FOREIGN' })
      await expect(kv.destroy(key), key).rejects.toMatchObject({ code: 'RECORD_FOREIGN' })
    }
    expect(await client.lrange('theirs:list', 0, -1)).toEqual(['a'])
    await kv.close()
  })
})
