/**
 * G19: what was acknowledged is there. Shown twice, because killing a process cannot show a missing sync: the operating system still has the bytes.
 * 1. Processes with 128 writers are killed again and again over one directory.
 * 2. The same law on an engine that loses what was not synced when the power is cut, at every point: it holds with `fsync`, and breaks when the sync is taken out.
 */
import { spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { seededRandom } from '../base/random.ts'
import type { Engine } from '../engine/engine.ts'
import { volatileEngine, type VolatileEngine } from '../engine/volatile.ts'
import type { Entry, KV } from '../kv/kv.ts'
import { limitPresets } from '../kv/limits.ts'
import { testClock } from '../testing/index.ts'
import { systemTicker } from './call-queue.ts'
import { embedded } from './embedded.ts'
import { GroupCommit } from './group-commit.ts'
import { bundleEmbedded, type Bundle } from './testdata/bundled.ts'
import { kvOver } from './verbs.ts'

const rounds = 50
/** Acknowledged writes after which a round's process is killed: drawn for each round, so that it dies in the middle of another batch each time. */
const acknowledgedMost = 3_000

interface Acknowledged {
  readonly key: string
  readonly version: string
  readonly value: string
}
/** The count in front: how often this life of the key has changed. */
const countOf = (version: string): number => Number(version.split('.')[0])

let folder: string
let bundle: Bundle
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'hapax-kill-'))
  bundle = await bundleEmbedded('embedded')
})
afterAll(() => {
  rmSync(folder, { recursive: true, force: true })
  bundle.remove()
})

/** Runs the writers until so many writes are acknowledged, kills them, and gives what they said. */
async function killAfter(dir: string, round: number, acknowledged: number): Promise<Acknowledged[]> {
  const script = fileURLToPath(new URL('testdata/writers.mjs', import.meta.url))
  const child = spawn(process.execPath, [script, bundle.path, dir, round % 2 === 0 ? 'os' : 'fsync', String(round)], {
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const said: Acknowledged[] = []
  let errors = ''
  child.stderr.on('data', (chunk: Buffer) => (errors += chunk.toString()))
  const ended = new Promise<NodeJS.Signals | null>((resolve) => child.once('close', (_code, signal) => resolve(signal)))
  for await (const line of createInterface({ input: child.stdout })) {
    let message: Acknowledged | { readonly ready: true }
    try {
      message = JSON.parse(line) as typeof message
    } catch {
      continue // the last line of a killed process may be half
    }
    if (!('key' in message)) continue
    said.push(message)
    if (said.length === acknowledged) child.kill('SIGKILL')
  }
  expect(await ended, errors).toBe('SIGKILL')
  return said
}

test(
  `${rounds} times SIGKILL under 128 writers: every acknowledged write is there, versions are in order, no record is half (G19)`,
  { timeout: 220_000 },
  async () => {
    const dir = join(folder, 'killed')
    const random = seededRandom(Number(process.env.HAPAX_SEED ?? 1))
    const latest = new Map<string, Acknowledged>()
    let acknowledged = 0
    for (let round = 0; round < rounds; round++) {
      const said = await killAfter(dir, round, 1 + random.int(acknowledgedMost))
      acknowledged += said.length
      for (const write of said) {
        const before = latest.get(write.key)
        if (before) expect(countOf(write.version), `${write.key}: versions only rise`).toBeGreaterThan(countOf(before.version))
        latest.set(write.key, write)
      }
      const kv = await embedded({ dir, durability: 'os' })
      try {
        // All keys of this round, and those of earlier rounds that are changed in each.
        const keys = [...new Set([...said.map(({ key }) => key), ...Array.from({ length: 128 }, (_, writer) => `writer-${writer}`)])]
        for (let from = 0; from < keys.length; from += 1_000) {
          const { entries } = await kv.getMany(keys.slice(from, from + 1_000))
          for (const key of keys.slice(from, from + 1_000)) {
            const entry = entries.get(key)
            const last = latest.get(key)
            if (last === undefined) continue
            expect(entry, `${key} was acknowledged at ${last.version} and is gone`).toBeDefined()
            if (entry === undefined) continue
            const text = Buffer.from(entry.value).toString()
            expect(JSON.parse(text), key).toMatchObject({ end: true })
            if (entry.version === last.version) expect(Buffer.from(entry.value).toString('base64')).toBe(last.value)
            else expect(countOf(entry.version), `${key} fell behind what was acknowledged`).toBeGreaterThan(countOf(last.version))
          }
        }
      } finally {
        await kv.close()
      }
    }
    // At the end everything that any round acknowledged.
    const kv = await embedded({ dir, durability: 'os' })
    const all = [...latest.keys()]
    for (let from = 0; from < all.length; from += 1_000) {
      const slice = all.slice(from, from + 1_000)
      expect((await kv.getMany(slice)).entries.size).toBe(slice.length)
    }
    await kv.close()
    expect(acknowledged).toBeGreaterThan(rounds)
  },
)

describe('a power cut at every point', () => {
  const capabilities = {
    store: 'volatile',
    exactExpiry: true,
    serverClock: true,
    scan: false,
    requestIds: true,
    ttlGrainMs: 1,
    durability: 'disk',
    sites: 'one',
    limits: limitPresets.wide,
  } as const
  const open = (engine: Engine, cacheBytes = 1_000_000): KV =>
    kvOver(
      new GroupCommit({
        engine,
        durability: 'fsync',
        capabilities,
        clock: testClock(),
        ticker: systemTicker,
        cacheBytes,
        queue: { callsMax: 10_000, bytesMax: 10_000_000, deadlineMs: 60_000 },
      }),
    )

  /** Writes on some keys, with the power cut after so many syncs or writes; gives the acknowledged writes that are lost. */
  async function lostAt(point: number, seed: number, wrap: (engine: VolatileEngine) => Engine): Promise<string[]> {
    let disk = 0
    let cut: ReadonlyMap<string, Uint8Array> | undefined
    const acknowledged = new Map<string, string>()
    let atCut: ReadonlyMap<string, string> = new Map()
    /** The latest state of each key that any answer showed, by the count in its version. */
    const shown = new Map<string, number>()
    let shownAtCut: ReadonlyMap<string, number> = new Map()
    const note = (key: string, entry: Entry | undefined): void => {
      if (entry) shown.set(key, Math.max(shown.get(key) ?? 0, countOf(entry.version)))
    }
    const random = seededRandom(seed * 1_000 + point)
    const engine: VolatileEngine = volatileEngine({
      disk: async () => {
        // Some turns, so that readers come in between.
        for (let turn = 0; turn < 4; turn++) await new Promise((resolve) => setImmediate(resolve))
        if (++disk !== point) return
        atCut = new Map(acknowledged)
        shownAtCut = new Map(shown)
        cut = engine.powerCut(random.int(3))
      },
    })
    const kv = open(wrap(engine), seed % 2 === 0 ? 1_000_000 : 0) // without a cache reads meet what the engine has
    const readers = Array.from({ length: 4 }, async (_, reader) => {
      const key = `key-${reader}`
      for (let count = 0; count < 40 && cut === undefined; count++) {
        note(key, (await kv.get(key)).entry)
        await new Promise((resolve) => setImmediate(resolve))
      }
    })
    await Promise.all([
      ...readers,
      ...Array.from({ length: 8 }, async (_, writer) => {
        for (let count = 0; count < 6 && cut === undefined; count++) {
          const value = Buffer.from(`${writer}:${count}`)
          const { entry } = await kv.set(`key-${writer % 4}`, value)
          note(`key-${writer % 4}`, entry)
          await kv.create(`once-${writer}-${count}`, value)
          if (cut === undefined) acknowledged.set(`once-${writer}-${count}`, value.toString())
        }
      }),
    ])
    await kv.close()
    if (cut === undefined) return []
    const after = open(volatileEngine({ content: cut }))
    const lost: string[] = []
    for (const [key, value] of atCut) {
      const { entry } = await after.get(key)
      if (entry === undefined || Buffer.from(entry.value).toString() !== value) lost.push(key)
    }
    for (const [key, count] of shownAtCut) {
      const { entry } = await after.get(key)
      if (entry === undefined || countOf(entry.version) < count) lost.push(`${key} was shown at ${count}`)
    }
    await after.close()
    return lost
  }

  const points = Array.from({ length: 30 }, (_, index) => index + 1)
  test('loses nothing that was acknowledged with fsync, and nothing that a read has shown (R3)', async () => {
    for (const seed of [1, 2, 3])
      for (const point of points) expect(await lostAt(point, seed, (engine) => engine), `point ${point}, seed ${seed}`).toEqual([])
  })
  test('and the test can see it: without the sync acknowledged writes are lost', async () => {
    const withoutSync = (engine: VolatileEngine): Engine => ({ ...engine, write: (changes) => engine.write(changes, 'os') })
    const lost = await Promise.all(points.map((point) => lostAt(point, 1, withoutSync)))
    expect(lost.flat()).not.toEqual([])
  })
})
