/** Group commit and what a disk can do to it, over an engine in memory whose disk the test holds in its hand (G16, G18). */
import { describe, expect, test } from 'vitest'
import { epochMs } from '../base/types.ts'
import type { Change, Engine } from '../engine/engine.ts'
import { recordKey } from '../engine/layout.ts'
import { volatileEngine, type VolatileEngine, type VolatileOptions } from '../engine/volatile.ts'
import type { KV } from '../kv/kv.ts'
import { limitPresets } from '../kv/limits.ts'
import { testClock } from '../testing/index.ts'
import type { QueueLimits, Ticker } from './call-queue.ts'
import { GroupCommit } from './group-commit.ts'
import { kvOver } from './verbs.ts'

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text)
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))
const turns = async (count: number): Promise<void> => {
  for (let index = 0; index < count; index++) await turn()
}

/** Time that passes when the test says so. */
function handTicker(): Ticker & { pass(ms: number): void; readonly timers: number } {
  let now = 0
  let timers: { at: number; act: () => void }[] = []
  return {
    now: () => now,
    after(ms, act) {
      const timer = { at: now + ms, act }
      timers.push(timer)
      return () => {
        timers = timers.filter((other) => other !== timer)
      }
    },
    pass(ms) {
      now += ms
      const due = timers.filter(({ at }) => at <= now)
      timers = timers.filter(({ at }) => at > now)
      for (const { act } of due) act()
    },
    get timers() {
      return timers.length
    },
  }
}

interface Bench {
  readonly kv: KV
  readonly commit: GroupCommit
  readonly engine: VolatileEngine
  readonly ticker: ReturnType<typeof handTicker>
  readonly clock: ReturnType<typeof testClock>
  /** Batches, and keys read from disk at once. */
  readonly writes: (readonly Change[])[]
  readonly reads: number[]
  /** Whether the engine cannot read. */
  breakReads(isBroken: boolean): void
}
function bench(options: VolatileOptions & { queue?: Partial<QueueLimits>; cacheBytes?: number } = {}): Bench {
  const engine = volatileEngine(options)
  const writes: (readonly Change[])[] = []
  const reads: number[] = []
  let cannotRead = false
  const watched: Engine = {
    ...engine,
    getMany(keys) {
      if (cannotRead) throw new Error('EIO: i/o error, read')
      reads.push(keys.length)
      return engine.getMany(keys)
    },
    write(changes, durability) {
      writes.push(changes)
      return engine.write(changes, durability)
    },
  }
  const ticker = handTicker()
  const clock = testClock()
  const commit = new GroupCommit({
    engine: watched,
    durability: 'fsync',
    clock,
    ticker,
    cacheBytes: options.cacheBytes ?? 1_000_000,
    queue: { callsMax: 1_000, bytesMax: 1_000_000, deadlineMs: 30_000, ...options.queue },
    capabilities: {
      store: 'test',
      exactExpiry: true,
      serverClock: true,
      scan: false,
      requestIds: true,
      ttlGrainMs: 1,
      durability: 'disk',
      sites: 'one',
      limits: limitPresets.wide,
    },
  })
  const kv = kvOver(commit)
  return { kv, commit, engine, ticker, clock, writes, reads, breakReads: (isBroken) => (cannotRead = isBroken) }
}

/** A disk whose syncs wait until they are let go. */
function heldDisk(): VolatileOptions & { release(): void; readonly waiting: number } {
  let waiting: (() => void)[] = []
  let isHeld = true
  return {
    disk: (step) => (step === 'sync' && isHeld ? new Promise<void>((resolve) => waiting.push(resolve)) : undefined),
    release() {
      isHeld = false
      const all = waiting
      waiting = []
      for (const resolve of all) resolve()
    },
    get waiting() {
      return waiting.length
    },
  }
}

describe('group commit (G16)', () => {
  test('all writes of a turn are one batch, and all reads of a turn one read', async () => {
    const { kv, writes, reads } = bench({ cacheBytes: 0 })
    await Promise.all(Array.from({ length: 100 }, (_, index) => kv.create(`key-${index}`, bytes('1'))))
    expect(writes).toHaveLength(1)
    expect(reads).toEqual([100])
    reads.length = 0
    await Promise.all(Array.from({ length: 100 }, (_, index) => kv.get(`key-${index}`)))
    expect(reads).toEqual([100])
    await kv.close()
  })
  test('what comes while the disk works is the next batch: one is in flight', async () => {
    const disk = heldDisk()
    const { kv, writes } = bench(disk)
    const first = kv.create('a', bytes('1'))
    await turns(3)
    const more = Array.from({ length: 50 }, (_, index) => kv.create(`key-${index}`, bytes('1')))
    await turns(5)
    expect(writes).toHaveLength(1)
    disk.release()
    await Promise.all([first, ...more])
    expect(writes).toHaveLength(2)
    await kv.close()
  })
  test('calls of one key in one turn take effect in order, in one batch', async () => {
    const { kv, writes } = bench()
    const answers = await Promise.all([
      kv.create('a', bytes('1')),
      kv.create('a', bytes('2')),
      kv.update('a', bytes('3')),
      kv.get('a'),
      kv.destroy('a'),
      kv.create('a', bytes('4')),
    ])
    expect(answers.map((answer) => ('ok' in answer ? answer.ok : (answer as { entry?: { value: Uint8Array } }).entry?.value))).toEqual([
      true,
      false,
      true,
      bytes('3'),
      true,
      true,
    ])
    expect(writes).toHaveLength(1)
    expect((await kv.get('a')).entry?.value).toEqual(bytes('4'))
    await kv.close()
  })
  test('nothing is answered before it is durable: not the write, not a read of it, not a refusal that it causes (R3)', async () => {
    const disk = heldDisk()
    const { kv } = bench(disk)
    const settled: string[] = []
    const note = <T>(name: string, promise: Promise<T>): Promise<T> =>
      promise.then((answer) => {
        settled.push(name)
        return answer
      })
    const all = [note('create', kv.create('a', bytes('1')))]
    await turns(3)
    const others = [note('get', kv.get('a')), note('getMany', kv.getMany(['b', 'a'])), note('refused', kv.create('a', bytes('2')))]
    const free = note('free', kv.get('c'))
    await turns(5)
    expect(settled).toEqual(['free'])
    disk.release()
    await Promise.all([...all, ...others, free])
    expect(settled.sort()).toEqual(['create', 'free', 'get', 'getMany', 'refused'])
    await kv.close()
  })
  test('a walk over all records, as for a snapshot, shows no write that is not durable (R3)', async () => {
    const disk = heldDisk()
    const { kv, commit } = bench(disk)
    const walk = commit.records()
    const write = kv.create('a', bytes('1'))
    const cursor = await walk
    expect(await cursor.next(10)).toEqual([])
    await turns(3)
    disk.release()
    await write
    expect(await (await commit.records()).next(10)).toHaveLength(1)
    await kv.close()
    await expect(commit.records()).rejects.toMatchObject({ code: 'CLOSED' })
  })
  test('a turn reads a bounded number of keys, however many callers ask for many', async () => {
    const { kv, reads } = bench({ cacheBytes: 0 })
    const keys = Array.from({ length: 500 }, (_, index) => `key-${index}`)
    const asked = Array.from({ length: 6 }, (_, caller) => kv.getMany(keys.map((key) => `${caller}-${key}`)))
    await Promise.all(asked)
    expect(reads).toEqual([1_000, 1_000, 1_000])
    await kv.close()
  })
  test('a read that had to wait for its turn does not meet the write that came after it before that is durable (R3)', async () => {
    const disk = heldDisk()
    const { kv } = bench({ ...disk, disk: disk.disk, cacheBytes: 0 })
    const many = Array.from({ length: 1_024 }, (_, index) => `key-${index}`) // as many as a turn reads
    const settled: string[] = []
    const first = kv.getMany(many).then(() => settled.push('many'))
    const read = kv.get('a').then(({ entry }) => settled.push(entry ? 'new' : 'old'))
    const write = kv.create('a', bytes('1')).then(() => settled.push('write'))
    await turns(6)
    expect(settled.filter((name) => name === 'new' || name === 'write')).toEqual([])
    disk.release()
    await Promise.all([first, read, write])
    expect(settled).toContain('many')
    await kv.close()
  })
  test('a full queue says BUSY at once, and what it holds is served', async () => {
    const disk = heldDisk()
    const { kv } = bench({ ...disk, disk: disk.disk, queue: { callsMax: 10 } })
    const calls = Array.from({ length: 15 }, (_, index) =>
      kv.create(`key-${index}`, bytes('1')).catch((error: { code: string }) => error.code),
    )
    expect(await Promise.all(calls.slice(10))).toEqual(Array.from({ length: 5 }, () => 'BUSY'))
    disk.release()
    for (const answer of await Promise.all(calls.slice(0, 10))) expect(answer).toMatchObject({ ok: true })
    await kv.close()
  })
  test('waiting bytes are bounded too, though one call always fits', async () => {
    const disk = heldDisk()
    const { kv } = bench({ ...disk, disk: disk.disk, queue: { bytesMax: 100 } })
    const large = kv.create('a', new Uint8Array(1_000))
    await expect(kv.create('b', bytes('1'))).rejects.toMatchObject({ code: 'BUSY' })
    disk.release()
    await large
    await kv.close()
  })
  test('cached values are buffers of their own size, and the caller’s buffer is its own', async () => {
    const { kv } = bench()
    const pool = Buffer.alloc(65_536, 7)
    await kv.create('a', pool.subarray(100, 110))
    pool.fill(0)
    const { entry } = await kv.get('a')
    expect(entry?.value).toEqual(new Uint8Array(10).fill(7))
    expect(entry?.value.buffer.byteLength).toBeLessThan(1_000)
    await kv.close()
  })
  test('close waits for what is under way', async () => {
    const disk = heldDisk()
    const { kv } = bench(disk)
    const write = kv.create('a', bytes('1'))
    await turns(2)
    let isClosed = false
    const closing = kv.close().then(() => (isClosed = true))
    await turns(5)
    expect(isClosed).toBe(false)
    disk.release()
    expect(await write).toMatchObject({ ok: true })
    await closing
    await expect(kv.get('a')).rejects.toMatchObject({ code: 'CLOSED' })
  })
})

describe('deadlines and signals', () => {
  /** A signal that counts who listens. */
  function countedSignal() {
    const controller = new AbortController()
    let listeners = 0
    const { signal } = controller
    const [add, remove] = [signal.addEventListener.bind(signal), signal.removeEventListener.bind(signal)]
    signal.addEventListener = ((...given: Parameters<typeof add>) => (listeners++, add(...given))) as typeof add
    signal.removeEventListener = ((...given: Parameters<typeof remove>) => (listeners--, remove(...given))) as typeof remove
    return { controller, signal, listeners: () => listeners }
  }

  test('a call that ends in time leaves no listener, and no timer when nothing waits', async () => {
    const { kv, ticker } = bench()
    const idle = ticker.timers
    const { signal, listeners } = countedSignal()
    await kv.create('a', bytes('1'), { signal, deadline: '1h' })
    await kv.get('missing', { signal, deadline: '1h' })
    await kv.getMany(['b', 'c'], { signal, deadline: '1h' })
    expect(listeners()).toBe(0)
    expect(ticker.timers).toBe(idle)
    await kv.close()
  })
  test('before it is sent a write can be ended without effect', async () => {
    const disk = heldDisk()
    const { kv, ticker } = bench(disk)
    const first = kv.create('first', bytes('1'))
    await turns(3)
    const controller = new AbortController()
    const aborted = kv.create('aborted', bytes('1'), { signal: controller.signal })
    const late = kv.create('late', bytes('1'), { deadline: 50 })
    controller.abort(new Error('enough'))
    await expect(aborted).rejects.toMatchObject({ code: 'ABORTED', cause: new Error('enough') })
    ticker.pass(60)
    await expect(late).rejects.toMatchObject({ code: 'DEADLINE_EXCEEDED' })
    disk.release()
    await first
    expect((await kv.getMany(['aborted', 'late'])).entries.size).toBe(0)
    await kv.close()
  })
  test('after it is sent its outcome is unknown, and a read tells', async () => {
    const disk = heldDisk()
    const { kv, ticker } = bench(disk)
    const controller = new AbortController()
    const aborted = kv.create('aborted', bytes('1'), { signal: controller.signal })
    const late = kv.create('late', bytes('1'), { deadline: 50 })
    await turns(3)
    controller.abort()
    await expect(aborted).rejects.toMatchObject({ code: 'UNKNOWN_OUTCOME', retry: 'same-request-id' })
    ticker.pass(60)
    await expect(late).rejects.toMatchObject({ code: 'UNKNOWN_OUTCOME' })
    disk.release()
    expect((await kv.getMany(['aborted', 'late'])).entries.size).toBe(2)
    await kv.close()
  })
})

describe('a disk that fails (G18)', () => {
  test('a damaged record is an error for its key and never "no key"; the others live on', async () => {
    const { kv, engine } = bench({ cacheBytes: 0 })
    await kv.create('good', bytes('1'))
    await kv.create('bad', bytes('2'))
    engine.damage(recordKey('bad'))
    const damaged = expect.objectContaining({ code: 'DAMAGED', message: expect.stringContaining('bad') })
    for (const call of [
      () => kv.get('bad'),
      () => kv.getMany(['good', 'bad']),
      () => kv.create('bad', bytes('3')),
      () => kv.update('bad', bytes('3')),
      () => kv.set('bad', bytes('3')),
    ])
      await expect(call()).rejects.toEqual(damaged)
    expect((await kv.get('good')).entry?.value).toEqual(bytes('1'))
    expect(await kv.destroy('bad')).toMatchObject({ ok: true })
    expect(await kv.create('bad', bytes('4'))).toMatchObject({ ok: true })
    await kv.close()
  })
  test('a failed sync ends the store: all who wait are told, and all who come later', async () => {
    let isBroken = false
    const { kv } = bench({
      disk: (step) => {
        if (step === 'sync' && isBroken) throw Object.assign(new Error('EIO: i/o error, fdatasync'), { code: 'EIO' })
      },
    })
    await kv.create('a', bytes('1'))
    isBroken = true
    const waiting = await Promise.allSettled([kv.create('b', bytes('1')), kv.create('a', bytes('2')), kv.get('b')])
    for (const result of waiting)
      expect(result).toMatchObject({ status: 'rejected', reason: { code: 'STORE_FAILED', retry: 'same-request-id' } })
    isBroken = false
    await expect(kv.create('c', bytes('1'))).rejects.toMatchObject({ code: 'STORE_FAILED' })
    await expect(kv.get('a')).rejects.toMatchObject({ code: 'STORE_FAILED' })
    await kv.close()
  })
  test('a full disk refuses writes, loses nothing acknowledged, still reads, and takes writes again when there is space', async () => {
    let isFull = false
    const { kv, ticker, engine } = bench({
      cacheBytes: 0,
      disk: (step) => {
        if (step === 'write' && isFull) throw Object.assign(new Error('ENOSPC: no space left on device, write'), { code: 'ENOSPC' })
      },
    })
    await kv.create('a', bytes('1'))
    isFull = true
    await expect(kv.update('a', bytes('2'))).rejects.toMatchObject({ code: 'DISK_FULL', retry: 'safe' })
    await expect(kv.create('b', bytes('2'))).rejects.toMatchObject({ code: 'DISK_FULL' })
    expect((await kv.get('a')).entry?.value).toEqual(bytes('1'))
    isFull = false
    ticker.pass(1_000)
    expect(await kv.update('a', bytes('3'))).toMatchObject({ ok: true })
    expect(engine.opened).toBe(2)
    expect((await kv.getMany(['a', 'b'])).entries.get('a')?.value).toEqual(bytes('3'))
    expect((await kv.get('b')).entry).toBeUndefined()
    await kv.close()
  })
})

describe('a disk that is full at the sync (G18)', () => {
  test('leaves the outcome unknown and says so; opened again, the store shows what became of it', async () => {
    let isFull = false
    const { kv, ticker } = bench({
      disk: (step) => {
        if (step === 'sync' && isFull) throw Object.assign(new Error('ENOSPC: no space left on device, fdatasync'), { code: 'ENOSPC' })
      },
    })
    const { entry } = await kv.set('a', bytes('1'))
    isFull = true
    await expect(kv.update('a', bytes('2'), { requestId: 'r' })).rejects.toMatchObject({ code: 'DISK_FULL', retry: 'same-request-id' })
    isFull = false
    ticker.pass(1_000)
    // The write was in the log: after the store has opened it again, the state of before must not come from memory.
    await kv.create('b', bytes('1'))
    const { entry: present } = await kv.get('a')
    expect(present?.value).toEqual(bytes('2'))
    expect(await kv.update('a', bytes('3'), { ifVersion: entry?.version })).toMatchObject({ ok: false, refusal: 'version' })
    expect((await kv.update('a', bytes('2'), { requestId: 'r' })).entry?.version).toBe(present?.version)
    await kv.close()
  })
})

describe('expiry on disk', () => {
  const present = (engine: VolatileEngine, count: number): number =>
    engine.getMany(Array.from({ length: count }, (_, index) => recordKey(`key-${index}`))).filter((value) => value !== undefined).length

  test('the dead leave the disk in bounded sweeps', async () => {
    const { kv, engine, clock, ticker, writes } = bench()
    await Promise.all(Array.from({ length: 600 }, (_, index) => kv.create(`key-${index}`, bytes('1'), { ttl: '1s' })))
    await kv.create('stays', bytes('1'))
    expect(present(engine, 600)).toBe(600)
    writes.length = 0
    await clock.advance('2s')
    for (let round = 0; round < 10; round++) {
      ticker.pass(2_000)
      await turns(10)
    }
    expect(present(engine, 600)).toBe(0)
    expect(writes.length).toBeGreaterThanOrEqual(3)
    expect(Math.max(...writes.map((changes) => changes.length))).toBeLessThanOrEqual(512)
    expect((await kv.get('stays')).entry).toBeDefined()
    await kv.close()
  })
  test('a damaged record is not swept away: it stays an error until somebody destroys it', async () => {
    const { kv, engine, clock, ticker } = bench({ cacheBytes: 0 })
    await kv.create('key-0', bytes('1'), { ttl: '1s' })
    await kv.create('key-1', bytes('1'), { ttl: '1s' })
    engine.damage(recordKey('key-0'))
    await clock.advance('2s')
    for (let round = 0; round < 5; round++) {
      ticker.pass(2_000)
      await turns(10)
    }
    expect(present(engine, 2)).toBe(1)
    await expect(kv.get('key-0')).rejects.toMatchObject({ code: 'DAMAGED' })
    await kv.close()
  })
  test('a record that cannot be read for a while is swept later', async () => {
    const { kv, engine, clock, ticker, breakReads } = bench({ cacheBytes: 0 })
    await kv.create('key-0', bytes('1'), { ttl: '1s' })
    await clock.advance('2s')
    breakReads(true)
    ticker.pass(2_000)
    await turns(10)
    breakReads(false)
    expect(present(engine, 1)).toBe(1)
    ticker.pass(2_000)
    await turns(10)
    expect(present(engine, 1)).toBe(0)
    await kv.close()
  })
  test('a clock that jumps a year ahead erases nothing', async () => {
    const { kv, engine, clock, ticker } = bench()
    const now = clock.now()
    await Promise.all(Array.from({ length: 20 }, (_, index) => kv.create(`key-${index}`, bytes('1'), { ttl: '1h' })))
    clock.set(epochMs(now + 365 * 86_400_000))
    for (let round = 0; round < 5; round++) {
      ticker.pass(1_000)
      await turns(10)
    }
    expect((await kv.get('key-3')).entry).toBeUndefined()
    expect(present(engine, 20)).toBe(20)
    clock.set(epochMs(now + 10_000))
    expect((await kv.get('key-3')).entry?.value).toEqual(bytes('1'))
    await kv.close()
  })
})
