/**
 * The store over a client that a test plays: what is sent, in which order, and what is made of each answer. Real servers: redis.redis.test.ts.
 * Invariant: the played client has the shape of an ioredis client and nothing else, so what the store needs of a client is seen here.
 */
import { EventEmitter } from 'node:events'
import { describe, expect, test } from 'vitest'
import type { Version } from '../kv/kv.ts'
import { redisKv, redisKvWith, type RedisClient, type RedisOptions } from './redis.ts'
import { readScript, writeScript } from './redis-script.ts'
import { faultOf } from './testdata/fault-of.ts'

const one = Uint8Array.of(1)
const begin = 1_700_000_000_000

interface Sent {
  readonly command: string
  readonly args: readonly unknown[]
  answer(reply: unknown): void
  fail(message: string): void
}

/** A client whose answers come when the test says so. Whoever closes it fails. */
class PlayedClient extends EventEmitter {
  status = 'ready'
  readonly sent: Sent[] = []

  evalshaBuffer = (...args: unknown[]) => this.#send('EVALSHA', args)
  evalsha = this.evalshaBuffer
  evalBuffer = (...args: unknown[]) => this.#send('EVAL', args)
  eval = this.evalBuffer
  wait = (...args: unknown[]) => this.#send('WAIT', args)
  asking = (...args: unknown[]) => this.#send('ASKING', args)
  #send(command: string, args: readonly unknown[]): Promise<unknown> {
    return new Promise((resolve, reject) => {
      this.sent.push({ command, args, answer: resolve, fail: (message) => reject(new Error(message)) })
    })
  }
  quit(): never {
    throw new Error('the client is the caller’s')
  }
  disconnect = this.quit
  get listening(): number {
    return this.eventNames().reduce((sum, name) => sum + this.listenerCount(name), 0)
  }
}

/** A ticker whose timers the test fires. */
function played() {
  const timers = new Set<() => void>()
  return {
    ticker: {
      now: () => 0,
      after(_ms: number, act: () => void) {
        timers.add(act)
        return () => timers.delete(act)
      },
    },
    fire: () => {
      for (const act of timers) act()
    },
    timers,
  }
}

const bounds = { callsMax: 3, bytesMax: 100, deadlineMs: 1_000 }
function world(options: RedisOptions = {}) {
  const client = new PlayedClient()
  const { ticker, fire, timers } = played()
  return { client, fire, timers, kv: redisKvWith(client, options, ticker, bounds) }
}
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

/** What the scripts answer: see `Status` in redis-script.ts. */
const missing = (now = begin): unknown => [4, now]
const found = (now = begin, expiresAt = 0): unknown => [1, now, 1, begin, Buffer.from('name'), begin, expiresAt, Buffer.from(one)]
const written = [0, begin, 1, begin, Buffer.from('name'), begin, 0]

describe('redisKv', () => {
  test('takes no client that it cannot work with, and says which it can', () => {
    const shapes: readonly unknown[] = [
      undefined,
      {},
      'redis://localhost',
      { status: 'ready', on() {} },
      { sendCommand() {}, on() {}, execute() {} },
      { sendCommand() {}, on() {}, duplicate() {}, increx() {}, isReady: true, acquire() {} },
      // redis 5 and 4: a client, and a cluster.
      { sendCommand() {}, on() {}, duplicate() {}, isReady: true },
      { sendCommand() {}, on() {}, duplicate() {}, nodeClient() {}, slots: [] },
    ]
    for (const shape of shapes) expect(() => redisKv(shape as RedisClient)).toThrow(/ioredis/)
    for (const options of ['options', '_options'])
      expect(() => redisKv(Object.assign(new PlayedClient(), { [options]: { keyPrefix: 'theirs:' } }) as RedisClient)).toThrow(/keyPrefix/)
  })

  test('takes no options that mean nothing', () => {
    const wrong: readonly unknown[] = [
      { prefix: '\ud800' },
      { prefix: 1 },
      { durability: 'certain' },
      { wait: { replicas: 0, timeout: '1s' } },
      { wait: { replicas: 1.5, timeout: '1s' } },
      { wait: { replicas: 1, timeout: 0 } },
      { wait: true },
      { limits: 'huge' },
    ]
    for (const options of wrong)
      expect(() => redisKv(new PlayedClient(), options as RedisOptions), JSON.stringify(options)).toThrow(
        expect.objectContaining({ code: 'INVALID_ARGUMENT' }) as Error,
      )
  })

  test('says what it is, and of its durability no more than it is told', () => {
    const { capabilities } = redisKv(new PlayedClient())
    expect(capabilities).toMatchObject({
      store: 'redis',
      durability: 'process',
      sites: 'one',
      exactExpiry: true,
      serverClock: true,
      scan: false,
    })
    expect(redisKv(new PlayedClient(), { durability: 'disk' }).capabilities.durability).toBe('disk')
  })

  test('sends one script with one key for each verb and for each key that is read', async () => {
    const { client, kv } = world({ prefix: 'shop:' })
    const calls = [kv.create('a', one), kv.getMany(['b', 'c'])]
    await turn()
    expect(client.sent.map(({ command, args }) => [command, ...args.slice(0, 3)])).toEqual([
      ['EVALSHA', writeScript.sha, '1', 'shop:a'],
      ['EVALSHA', readScript.sha, '1', 'shop:b'],
      ['EVALSHA', readScript.sha, '1', 'shop:c'],
    ])
    client.sent[0]?.answer(written)
    client.sent[1]?.answer(missing())
    client.sent[2]?.answer(missing())
    await Promise.all(calls)
  })

  test('getMany answers with the latest clock, and shows nothing that has died by then; of no keys, with the clock alone', async () => {
    const { client, kv } = world()
    const reading = kv.getMany(['a', 'b', 'c'])
    await turn()
    client.sent[0]?.answer(found(begin, begin + 5))
    client.sent[1]?.answer(found(begin + 5))
    client.sent[2]?.answer(missing(begin + 4))
    const { entries, now } = await reading
    expect([...entries.keys()]).toEqual(['b'])
    expect(now).toBe(begin + 5)
    const nothing = kv.getMany([])
    await turn()
    client.sent[3]?.answer(missing(begin + 6))
    expect(await nothing).toEqual({ entries: new Map(), now: begin + 6 })
  })

  test('asks for a version as its parts, and for what is no version as one that no state has', async () => {
    const { client, kv } = world()
    const versions = [`12.${begin.toString(36)}.who\n7`, 'no version', '', undefined]
    for (const [index, version] of versions.entries()) {
      const update = kv.update('a', one, { ifVersion: version as Version | undefined })
      if (version === '') {
        expect((await faultOf(update)).code).toBe('INVALID_ARGUMENT')
        continue
      }
      await turn()
      client.sent.at(-1)?.answer(missing())
      await update
      const parts = client.sent.at(-1)?.args.slice(-4, -1)
      expect(parts).toEqual([['12', String(begin), 'who\n7'], ['-1', '-1', ''], [], ['', '', '']][index])
    }
  })
})

describe('what waits for Redis', () => {
  test('is bounded in calls and in bytes: beyond, BUSY, and room again after an answer', async () => {
    const { client, kv } = world()
    const waiting = [kv.get('a'), kv.get('b'), kv.set('c', new Uint8Array(60))]
    await turn()
    expect(await faultOf(kv.get('d'))).toMatchObject({ code: 'BUSY', retry: 'safe' })
    client.sent[0]?.answer(missing())
    await waiting[0]
    expect((await faultOf(kv.set('d', new Uint8Array(60)))).code).toBe('BUSY')
    const last = kv.set('d', new Uint8Array(40))
    await turn()
    for (const { answer, args } of client.sent.slice(1)) answer(args[0] === readScript.sha ? missing() : written)
    await Promise.all([...waiting, last])
    expect(client.sent).toHaveLength(4)
    const later = kv.set('e', new Uint8Array(90))
    await turn()
    client.sent[4]?.answer(written)
    expect((await later).ok).toBe(true)
  })

  test('ends at its deadline: a write that was sent is UNKNOWN_OUTCOME, one that the client still has and a read are DEADLINE_EXCEEDED', async () => {
    const { client, kv, fire, timers } = world()
    const sent = [faultOf(kv.set('a', one)), faultOf(kv.get('a'))]
    await turn()
    fire()
    expect((await Promise.all(sent)).map(({ code }) => code)).toEqual(['UNKNOWN_OUTCOME', 'DEADLINE_EXCEEDED'])
    client.status = 'reconnecting'
    const kept = faultOf(kv.set('a', one))
    await turn()
    fire()
    expect((await kept).code).toBe('DEADLINE_EXCEEDED')
    expect(timers.size).toBe(0)
    // The client has all three still. What it sends from now on does nothing: the gate of a write is closed.
    for (const { args } of client.sent) if (args[0] === writeScript.sha) expect(String(args[3])).toBe('0')
  })

  test('and was kept by the client counts as sent once there is a connection', async () => {
    const { client, kv, fire } = world()
    client.status = 'connecting'
    const kept = faultOf(kv.set('a', one))
    await turn()
    client.status = 'ready'
    client.emit('ready')
    client.status = 'close'
    fire()
    expect((await kept).code).toBe('UNKNOWN_OUTCOME')
  })

  test('holds no listener on its signal afterwards', async () => {
    const { client, kv } = world()
    const { signal } = new AbortController()
    let listeners = 0
    const [add, remove] = [signal.addEventListener.bind(signal), signal.removeEventListener.bind(signal)]
    signal.addEventListener = (...args: Parameters<typeof add>) => (listeners++, add(...args))
    signal.removeEventListener = (...args: Parameters<typeof remove>) => (listeners--, remove(...args))
    const reading = kv.getMany(['a', 'b', 'c'], { signal })
    await turn()
    expect(listeners).toBe(1)
    for (const { answer } of client.sent) answer(missing())
    await reading
    expect(listeners).toBe(0)
  })

  test('is finished by close, which takes its listeners off and leaves the client open', async () => {
    const { client, kv } = world()
    const writing = kv.create('a', one)
    await turn()
    expect(client.listening).toBeGreaterThan(0)
    let closed = false
    const closing = kv.close().then(() => (closed = true))
    expect((await faultOf(kv.get('a'))).code).toBe('CLOSED')
    await turn()
    expect(closed).toBe(false)
    client.sent[0]?.answer(written)
    expect((await writing).ok).toBe(true)
    await closing
    expect(client.listening).toBe(0)
  })
})

describe('an error', () => {
  const rows: readonly [message: string, write: string, read: string][] = [
    ["OOM command not allowed when used memory > 'maxmemory'. script: f00, on @user_script:12.", 'MEMORY_FULL', 'MEMORY_FULL'],
    ['ERR Error running script (call to f_00): @user_script:9: @user_script: 9: -OOM command not allowed', 'MEMORY_FULL', 'MEMORY_FULL'],
    ['WRONGTYPE Operation against a key holding the wrong kind of value', 'RECORD_FOREIGN', 'RECORD_FOREIGN'],
    [
      'ERR Error running script (call to f_00): @user_script:1: WRONGTYPE Operation against a key holding the wrong kind of value',
      'RECORD_FOREIGN',
      'RECORD_FOREIGN',
    ],
    ["READONLY You can't write against a read only replica.", 'UNAVAILABLE', 'UNAVAILABLE'],
    ['LOADING Redis is loading the dataset in memory', 'UNAVAILABLE', 'UNAVAILABLE'],
    ['CLUSTERDOWN The cluster is down', 'UNAVAILABLE', 'UNAVAILABLE'],
    ['MASTERDOWN Link with MASTER is down', 'UNAVAILABLE', 'UNAVAILABLE'],
    ['TRYAGAIN Multiple keys request during rehashing of slot', 'UNAVAILABLE', 'UNAVAILABLE'],
    ['NOREPLICAS Not enough good replicas to write.', 'UNAVAILABLE', 'UNAVAILABLE'],
    ['MISCONF Redis is configured to save RDB snapshots', 'UNAVAILABLE', 'UNAVAILABLE'],
    ['BUSY Redis is busy running a script.', 'UNAVAILABLE', 'UNAVAILABLE'],
    ['NOAUTH Authentication required.', 'UNAVAILABLE', 'UNAVAILABLE'],
    ["ERR unknown command 'EVALSHA'", 'UNAVAILABLE', 'UNAVAILABLE'],
    ['Command timed out', 'UNKNOWN_OUTCOME', 'UNAVAILABLE'],
    ['Connection is closed.', 'UNKNOWN_OUTCOME', 'UNAVAILABLE'],
    ['Socket closed unexpectedly', 'UNKNOWN_OUTCOME', 'UNAVAILABLE'],
    ['EPIPE', 'UNKNOWN_OUTCOME', 'UNAVAILABLE'],
  ]
  test.each(rows)('%s', async (message, write, read) => {
    const { client, kv } = world()
    const faults = [faultOf(kv.set('a', one)), faultOf(kv.get('a'))]
    await turn()
    for (const { fail } of client.sent) fail(message)
    const [writing, reading] = await Promise.all(faults)
    expect([writing?.code, reading?.code]).toEqual([write, read])
    expect((writing?.cause as Error | undefined)?.message).toBe(message)
    expect(writing?.retry).toBe(write === 'UNKNOWN_OUTCOME' ? 'same-request-id' : write === 'RECORD_FOREIGN' ? 'never' : 'safe')
  })

  test('that another server has the key ends the call of a client that knows one server, and says what to give', async () => {
    const { client, kv } = world()
    const fault = faultOf(kv.set('a', one))
    await turn()
    client.sent[0]?.fail('MOVED 15495 127.0.0.1:6381')
    expect(await fault).toMatchObject({ code: 'UNAVAILABLE', retry: 'safe', hint: expect.stringContaining('Cluster') as string })
    expect(client.sent).toHaveLength(1)
  })

  test('that another server has the key leaves nothing with the first one: a deadline meanwhile is DEADLINE_EXCEEDED', async () => {
    const node = Object.assign(new PlayedClient(), { options: { host: '127.0.0.1', port: 6_381 } })
    const cluster = Object.assign(new EventEmitter(), {
      status: 'ready',
      slots: Array.from({ length: 16_384 }, () => ['127.0.0.1:6381']),
      nodes: () => [node],
      exists: async () => 0,
      refreshSlotsCache: () => undefined, // never done
    })
    const { ticker, fire } = played()
    const kv = redisKvWith(cluster, {}, ticker, bounds)
    const fault = faultOf(kv.set('a', one))
    await turn()
    node.sent[0]?.fail('MOVED 15495 127.0.0.1:6382')
    await turn()
    fire()
    expect(await fault).toMatchObject({ code: 'DEADLINE_EXCEEDED', retry: 'safe' })
    expect(String(node.sent[0]?.args[3])).toBe('0')
  })

  test('of a client that had not sent the write yet is UNAVAILABLE', async () => {
    const { client, kv } = world()
    client.status = 'reconnecting'
    const fault = faultOf(kv.set('a', one))
    await turn()
    client.sent[0]?.fail('Reached the max retries per request limit')
    expect(await fault).toMatchObject({ code: 'UNAVAILABLE', retry: 'safe' })
  })

  test('that a script is not known sends its text, once', async () => {
    const { client, kv } = world()
    const writing = kv.set('a', one)
    await turn()
    client.sent[0]?.fail('NOSCRIPT No matching script.')
    await turn()
    expect(client.sent[1]).toMatchObject({ command: 'EVAL' })
    expect(client.sent[1]?.args.slice(0, 3)).toEqual([writeScript.text, '1', 'a'])
    client.sent[1]?.fail('NOSCRIPT No matching script.')
    expect((await faultOf(writing)).code).toBe('UNAVAILABLE')
    expect(client.sent).toHaveLength(2)
  })
})

describe('wait', () => {
  const options: RedisOptions = { wait: { replicas: 2, timeout: '50ms' } }

  test('covers writes that were sent before it, and takes one more for those that were not', async () => {
    const { client, kv } = world(options)
    const [first, second] = [kv.set('a', one), kv.set('b', one)]
    await turn()
    const answers: string[] = []
    void first.then(() => answers.push('first'))
    void second.then(() => answers.push('second'))
    client.sent[0]?.answer(written)
    await turn()
    expect(client.sent[2]).toMatchObject({ command: 'WAIT', args: ['2', '50'] })
    const third = kv.set('c', one).then(() => answers.push('third'))
    await turn()
    client.sent[1]?.answer(written) // sent before the WAIT, answered while it is under way
    client.sent[3]?.answer(written) // sent after it: the WAIT says nothing about this one
    await turn()
    expect(client.sent).toHaveLength(5)
    expect(client.sent[4]?.command).toBe('WAIT')
    client.sent[2]?.answer(2)
    await turn()
    expect(answers).toEqual(['first', 'second'])
    client.sent[4]?.answer(3)
    await third
  })

  test.each([
    ['too few replicas', (wait: Sent) => wait.answer(1), /1 of 2 replicas/],
    ['a server that has become a replica', (wait: Sent) => wait.fail('UNBLOCKED force unblock from blocking operation'), /could not say/],
  ] as const)('answered by %s is UNKNOWN_OUTCOME', async (_what, act, says) => {
    const { client, kv } = world(options)
    const fault = faultOf(kv.set('a', one))
    await turn()
    client.sent[0]?.answer(written)
    await turn()
    act(client.sent[1] as Sent)
    expect(await fault).toMatchObject({ code: 'UNKNOWN_OUTCOME', message: expect.stringMatching(says) as string })
  })

  test('answered on another connection than the write is UNKNOWN_OUTCOME: it speaks of other writes', async () => {
    const { client, kv } = world(options)
    const fault = faultOf(kv.set('a', one))
    await turn()
    client.sent[0]?.answer(written)
    await turn()
    client.emit('ready') // connected again, and the client has sent the WAIT once more
    client.sent[1]?.answer(2)
    expect((await fault).code).toBe('UNKNOWN_OUTCOME')
  })

  test('is not asked for reads', async () => {
    const { client, kv } = world(options)
    const reading = kv.get('a')
    await turn()
    client.sent[0]?.answer(found())
    expect((await reading).entry?.value).toEqual(one)
    expect(client.sent).toHaveLength(1)
  })
})
