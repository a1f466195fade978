/** The disk of a storage server: on RocksDB and in memory, beside the simulated disk that the protocol was tried on. */
import { fork } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, describe, expect, test } from 'vitest'
import { seededRandom } from '../../core/base/random.ts'
import { epochMs } from '../../core/base/types.ts'
import { orderedEngine } from '../../core/engine/ordered.ts'
import { volatileEngine } from '../../core/engine/volatile.ts'
import { isKvError } from '../../core/kv/errors.ts'
import { embedded } from '../../core/stores/embedded.ts'
import { bundle } from '../../core/stores/testdata/bundled.ts'
import type { ReplicaEntry } from '../../core/wire/replica-message.ts'
import { noBallot } from '../register/ballot.ts'
import { Disk as SimulatedDisk } from '../sim/disk.ts'
import { noMarks, storageTimes, type Batch, type ShardMarks, type Written } from '../storage/marks.ts'
import { ballot, record, wall0 } from '../storage/testdata/stand.ts'
import { openStorageDisk, StorageDisk } from './storage-disk.ts'
import * as layout from './storage-layout.ts'

const seed = Number(process.env.HAPAX_SEED ?? 1)
const folders: string[] = []
const open: StorageDisk[] = []
afterEach(async () => {
  await Promise.all(open.splice(0).map((disk) => disk.close()))
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true, force: true })
})
const newFolder = (): string => {
  const folder = mkdtempSync(join(tmpdir(), 'hapax-disk-'))
  folders.push(folder)
  return join(folder, 'data')
}
async function diskIn(dir: string | undefined, options: object = {}): Promise<StorageDisk> {
  const disk = await openStorageDisk({ dir, durability: 'os', ...options })
  open.push(disk)
  return disk
}
const batchOf = (batch: Partial<Batch> & { readonly puts?: readonly (readonly [number, string, Written])[] }): Batch => ({
  cleared: batch.cleared ?? new Set(),
  entries: new Map((batch.puts ?? []).map(([shard, key, entry]) => [`${shard}/${key}`, { shard, key, entry }])),
  store: batch.store,
  shards: batch.shards ?? new Map(),
})
const entry = (ms: number, text: string | undefined, more: object = {}): ReplicaEntry => ({
  ballot: ballot(ms),
  record: record(text, more),
})
const marksOf = (shard: number, more: Partial<ShardMarks> = {}): ShardMarks => ({
  shard,
  epoch: 1,
  state: 'serving',
  purged: noBallot,
  row: { shard, epoch: 1, servers: ['s0'] },
  since: 1,
  keepsOwn: false,
  ...more,
})
const codeOf = (promise: Promise<unknown>): Promise<string> =>
  promise.then(
    () => 'none',
    (error: unknown) => (isKvError(error) ? error.code : String(error)),
  )

describe.each(['rocksdb', 'memory'] as const)('on %s', (kind) => {
  const newDisk = (options: object = {}): Promise<StorageDisk> => diskIn(kind === 'memory' ? undefined : newFolder(), options)

  test('a batch is there whole: entries, marks of shards, marks of the server', async () => {
    const disk = await newDisk()
    const store = { ...noMarks, ceiling: ballot(9) }
    await disk.commit(
      batchOf({
        puts: [
          [0, 'a', entry(1, 'one')],
          [7, 'b', entry(2, undefined)],
        ],
        store,
        shards: new Map([[7, marksOf(7)]]),
      }),
    )
    expect([disk.read(0, 'a'), disk.read(7, 'b'), disk.read(7, 'a')]).toEqual([entry(1, 'one'), entry(2, undefined), undefined])
    expect(disk.store).toEqual(store)
    expect(disk.shards).toEqual([marksOf(7)])
  })

  test('says the same as the simulated disk over random batches, cached or not', async () => {
    const random = seededRandom(seed)
    const twin = new SimulatedDisk()
    const disk = await newDisk({ cacheBytes: random.pick([0, 5_000, 1_000_000]) })
    const keys = ['a', 'b', '\0', 'aa', '\xff\xff', 'k\0x', ...Array.from({ length: 20 }, (_, index) => `key${index}`)]
    const draw = (): Written =>
      random.chance(0.15)
        ? undefined
        : random.chance(0.1)
          ? 'damaged'
          : {
              ...entry(
                random.int(1_000),
                random.chance(0.7) ? `v${random.int(99)}` : undefined,
                random.chance(0.5) ? { dies: random.int(500) } : {},
              ),
              ...(random.chance(0.2) ? { stub: random.int(2 ** 52) } : {}),
            }
    for (let step = 0; step < 150; step++) {
      const batch = batchOf({
        cleared: new Set(random.chance(0.05) ? [random.int(3)] : []),
        puts: Array.from({ length: random.int(6) }, () => [random.int(3), random.pick(keys), draw()] as const),
      })
      twin.begin(batch)
      twin.finish()
      await disk.commit(batch)
      const shard = random.int(3)
      const key = random.pick(keys)
      expect(disk.read(shard, key), `step ${step}`).toEqual(twin.read(shard, key))
      const after = random.chance(0.5) ? random.pick(keys) : undefined
      const count = random.int(12)
      expect(disk.page(shard, after, count), `step ${step}`).toEqual(twin.page(shard, after, count))
      const until = epochMs(wall0 + random.int(70_000))
      const from = random.chance(0.5) ? { at: epochMs(wall0 + random.int(500)), key } : undefined
      expect(disk.due(shard, until, from, count), `step ${step}`).toEqual(twin.due(shard, until, from, count, storageTimes))
    }
  })

  test('a shard is cleared at once, and what is left of it goes bit by bit', async () => {
    const disk = await newDisk()
    const many = Array.from({ length: 1_000 }, (_, index) => [3, `k${index}`, entry(1, 'old', { dies: 5 })] as const)
    await disk.commit(batchOf({ puts: [...many, [4, 'kept', entry(1, 'other')]] }))
    await disk.commit(batchOf({ cleared: new Set([3]), puts: [[3, 'k5', entry(2, 'new')]] }))
    expect(disk.page(3, undefined, 10)).toEqual([{ key: 'k5', entry: entry(2, 'new') }])
    expect(disk.due(3, epochMs(wall0 + 100_000), undefined, 10)).toEqual([])
    expect([disk.read(3, 'k7'), disk.read(4, 'kept')]).toEqual([undefined, entry(1, 'other')])
    for (let count = 0; count < 12; count++) await disk.commit(batchOf({}))
    expect(disk.page(3, undefined, 10)).toHaveLength(1)
  })

  test('the memory of entries has a bound, and an entry of another piece of memory does not hold that', async () => {
    const disk = await newDisk({ cacheBytes: 20_000 })
    const chunk = new Uint8Array(100_000)
    for (let index = 0; index < 100; index++) {
      const value = chunk.subarray(index, index + 10)
      await disk.commit(batchOf({ puts: [[0, `k${index}`, { ballot: ballot(1), record: { ...record('x'), value } }]] }))
    }
    expect(disk.stats.cacheBytes).toBeLessThanOrEqual(20_000)
    const last = disk.read(0, 'k99')
    expect(typeof last === 'object' && last.record.value?.buffer.byteLength).toBe(10)
    expect(disk.stats.hits).toBe(1)
    expect(disk.read(0, 'k1')).toMatchObject({ ballot: ballot(1) })
  })
})

test('what was written is there after the directory is opened again, with its marks', async () => {
  const dir = newFolder()
  const first = await openStorageDisk({ dir, durability: 'fsync' })
  const identity = { directory: 'd', server: 's0', confirmed: { count: 1, value: 2 }, next: [], bootId: undefined, isBackup: false }
  const store = { ceiling: ballot(5), identity, seen: { s1: { count: 1, value: 7 } } }
  await first.commit(
    batchOf({
      puts: [[1, 'a', entry(3, 'one', { dies: 10 })]],
      store,
      shards: new Map([
        [1, marksOf(1)],
        [900, marksOf(900)],
      ]),
    }),
  )
  await first.commit(batchOf({ cleared: new Set([1]), puts: [[1, 'b', entry(4, 'two', { dies: 20 })]] }))
  await first.close()
  const disk = await diskIn(dir)
  expect([disk.read(1, 'a'), disk.read(1, 'b')]).toEqual([undefined, entry(4, 'two', { dies: 20 })])
  expect(disk.store).toEqual(store)
  expect(disk.shards).toEqual([marksOf(1), marksOf(900)])
  expect(disk.due(1, epochMs(wall0 + 20), undefined, 5)).toEqual([{ at: wall0 + 20, key: 'b' }])
})

test('changed bytes are told as damage, and damaged marks do not open', async () => {
  const engine = orderedEngine()
  const disk = new StorageDisk({ engine, durability: 'os', cacheBytes: 0 })
  await disk.commit(
    batchOf({
      puts: [
        [0, 'a', entry(1, 'one')],
        [0, 'b', entry(1, 'two')],
      ],
      store: { ...noMarks, ceiling: ballot(1) },
    }),
  )
  const turn = (key: Buffer): void => {
    const [value] = engine.getMany([key])
    for (let at = 0; at < (value as Uint8Array).length; at++) {
      const changed = Uint8Array.from(value as Uint8Array)
      changed[at] = (changed[at] as number) ^ 0x10
      void engine.write([{ key, value: changed }], 'os')
      if (key !== layout.storeKey) expect(disk.read(0, 'a'), `byte ${at}`).toBe('damaged')
    }
  }
  turn(layout.entryKey(0, 0, 'a'))
  expect(disk.page(0, undefined, 5)).toEqual([
    { key: 'a', entry: 'damaged' },
    { key: 'b', entry: entry(1, 'two') },
  ])
  // The bytes of one key put in the place of another are nobody's.
  const [other] = engine.getMany([layout.entryKey(0, 0, 'b')])
  void engine.write([{ key: layout.entryKey(0, 0, 'a'), value: other as Uint8Array }], 'os')
  expect(disk.read(0, 'a')).toBe('damaged')
  turn(layout.storeKey)
  expect(await codeOf((async () => new StorageDisk({ engine, durability: 'os' }))())).toBe('DAMAGED')
})

test('a directory of an embedded store is no directory of a storage server, nor the other way round', async () => {
  const one = newFolder()
  await (await embedded({ dir: one, engine: 'rocksdb' })).close()
  expect(await codeOf(openStorageDisk({ dir: one, durability: 'os' }))).toBe('ENGINE_DIFFERS')
  const other = newFolder()
  await (await openStorageDisk({ dir: other, durability: 'os' })).close()
  expect(await codeOf(embedded({ dir: other }))).toBe('ENGINE_DIFFERS')
})

test('two processes, or two openings, never have one directory', async () => {
  const dir = newFolder()
  await diskIn(dir)
  expect(await codeOf(openStorageDisk({ dir, durability: 'os' }))).toBe('DIRECTORY_IN_USE')
})

test('an engine that cannot read ranges at once is refused', () => {
  expect(() => new StorageDisk({ engine: volatileEngine(), durability: 'os' })).toThrow(/cannot stand on the engine/)
})

test('after a write that failed nothing is asked of the engine any more', async () => {
  const engine = orderedEngine()
  let writes = 0
  const failing = { ...engine, write: () => (writes++, Promise.reject(new Error('EIO'))) }
  const disk = new StorageDisk({ engine: failing, durability: 'fsync' })
  expect(await codeOf(disk.commit(batchOf({ puts: [[0, 'a', entry(1, 'x')]] })))).toBe('STORE_FAILED')
  expect(await codeOf(disk.commit(batchOf({ puts: [[0, 'b', entry(1, 'x')]] })))).toBe('STORE_FAILED')
  expect(writes).toBe(1)
})

/** A process that writes batches of two keys until it is killed, and tells each one once it is durable. */
async function bundledWriter(): Promise<Disposable & { readonly path: string }> {
  const source = `
    import { openStorageDisk } from '../../server/edge/storage-disk.ts'
    import { ballot, record } from '../../server/storage/testdata/stand.ts'
    const [, , dir, round] = process.argv
    const disk = await openStorageDisk({ dir, durability: 'fsync' })
    for (let number = 0; ; number++) {
      const entry = { ballot: ballot(number), record: record('x'.repeat(number * 37)) }
      const keys = ['k' + number, 'twin' + number].map((key) => [key, { shard: Number(round), key, entry }])
      await disk.commit({ cleared: new Set(), entries: new Map(keys), store: undefined, shards: new Map() })
      process.send(number)
    }`
  const { path, remove } = await bundle('disk-writer', source)
  return { path, [Symbol.dispose]: remove }
}

test('a process that is killed in the middle of its work loses nothing that it told as durable', { timeout: 60_000 }, async () => {
  const dir = newFolder()
  using writer = await bundledWriter()
  for (let round = 0; round < 8; round++) {
    const child = fork(writer.path, [dir, String(round)], { stdio: ['ignore', 'ignore', 'inherit', 'ipc'] })
    let told = -1
    child.on('message', (number: number) => {
      told = number
      if (number >= 3 + round * 2) child.kill('SIGKILL')
    })
    await once(child, 'exit')
    const disk = await openStorageDisk({ dir, durability: 'fsync' })
    for (let number = 0; number <= told; number++) {
      const found = disk.read(round, `k${number}`)
      expect(typeof found === 'object' && found.ballot, `round ${round}, batch ${number}`).toEqual(ballot(number))
      // Both keys of a batch, or neither.
      expect(disk.read(round, `twin${number}`)).toMatchObject({ ballot: ballot(number) })
    }
    for (let number = told + 1; number < told + 50; number++)
      expect(disk.read(round, `k${number}`) === undefined).toBe(disk.read(round, `twin${number}`) === undefined)
    await disk.close()
  }
})
