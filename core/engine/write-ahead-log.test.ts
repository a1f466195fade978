/** G18: damage in the engine's log is found before the engine passes over it; a torn tail, which a power cut leaves, is none. */
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, realpathSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { seededRandom } from '../base/random.ts'
import { embedded } from '../stores/embedded.ts'
import { checkLogs } from './write-ahead-log.ts'

const seed = Number(process.env.HAPAX_SEED ?? 1)
const count = 60
/** Some values are larger than a block of the log, so that batches are cut into parts. */
const valueOf = (index: number): Uint8Array => new Uint8Array(index % 20 === 7 ? 40_000 : 300).fill(index)

let folder: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'hapax-log-'))
})
afterEach(() => rmSync(folder, { recursive: true, force: true }))

/** A store whose log holds a batch for each of the keys 0, 1, 2, ..., in this order; as if killed, unless it `isClosed`. */
async function filled(
  engine: 'rocksdb' | 'portable',
  isClosed = false,
): Promise<{ readonly log: string; readonly content: Buffer; readonly dir: string }> {
  const dir = join(folder, 'data')
  const kv = await embedded({ dir, engine, durability: 'os' })
  for (let index = 0; index < count; index++) await kv.create(`key-${index}`, valueOf(index))
  await kv.close()
  if (!isClosed) rmSync(join(dir, 'closed.json'))
  const log = readdirSync(join(dir, 'records'))
    .filter((name) => name.endsWith('.log'))
    .map((name) => join(dir, 'records', name))
    .sort((left, right) => statSync(right).size - statSync(left).size)[0] as string
  return { log, content: readFileSync(log), dir }
}

describe.each(['rocksdb', 'portable'] as const)('the log of %s', (engine) => {
  test('changed anywhere before its last batch: the store does not open, and says where and what to do', async () => {
    const { log, content, dir } = await filled(engine)
    const lastBatch = content.lastIndexOf('key-59') - 200
    const random = seededRandom(seed)
    const places = [0, 4, 5, 6, 7, 32_768, ...Array.from({ length: 60 }, () => random.int(lastBatch))]
    for (const at of places) {
      if (at % 32_768 > 32_768 - 7) continue // what is too short for a record is not used, and may be anything
      const changed = Buffer.from(content)
      changed[at] = (changed[at] as number) ^ (1 << random.int(8))
      writeFileSync(log, changed)
      await expect(embedded({ dir }), `byte ${at}, seed ${seed}`).rejects.toMatchObject({
        code: 'DAMAGED',
        message: expect.stringContaining(log),
        hint: expect.stringContaining('truncate -s'),
      })
    }
    writeFileSync(log, content)
    const kv = await embedded({ dir })
    for (let index = 0; index < count; index++) expect((await kv.get(`key-${index}`)).entry?.value.length).toBe(valueOf(index).length)
    await kv.close()
  })
  test('cut off anywhere, as by a power cut: the store opens with all batches before, and none of half', async () => {
    const { log, content, dir } = await filled(engine)
    const random = seededRandom(seed)
    for (let round = 0; round < 8; round++) {
      const length = random.int(content.length)
      rmSync(dir, { recursive: true })
      const again = await filled(engine)
      writeFileSync(again.log, content.subarray(0, length))
      const kv = await embedded({ dir })
      let isPast = false
      for (let index = 0; index < count; index++) {
        const { entry } = await kv.get(`key-${index}`)
        if (entry) expect(Buffer.compare(entry.value, valueOf(index))).toBe(0)
        if (entry) expect(isPast, `key-${index} is there and one before it is not; ${length} bytes, seed ${seed}`).toBe(false)
        else isPast = true
      }
      expect(log).toBe(again.log)
      await kv.close()
    }
  })
})

describe.each(['rocksdb', 'portable'] as const)('the log of %s after a clean close', (engine) => {
  test('changed anywhere, in its last batch too: the store does not open', async () => {
    const { log, content, dir } = await filled(engine, true)
    const random = seededRandom(seed)
    for (const at of [content.length - 1, content.length - 200, ...Array.from({ length: 10 }, () => random.int(content.length))]) {
      if (at % 32_768 > 32_768 - 7) continue
      const changed = Buffer.from(content)
      changed[at] = (changed[at] as number) ^ (1 << random.int(8))
      writeFileSync(log, changed)
      await expect(embedded({ dir }), `byte ${at}, seed ${seed}`).rejects.toMatchObject({ code: 'DAMAGED' })
    }
  })
  test('cut off: the store does not open, and the way out that it names is one', async () => {
    const { log, content, dir } = await filled(engine, true)
    writeFileSync(log, content.subarray(0, content.length - 10))
    const error = await embedded({ dir }).catch((cause: unknown) => cause)
    const { hint } = error as { hint: string }
    const [, length, path] = /truncate -s (\d+) '([^']+)' && rm '([^']+)'$/.exec(hint) ?? []
    expect(path).toBe(realpathSync(log))
    writeFileSync(log, content.subarray(0, Number(length)))
    rmSync(/rm '([^']+)'$/.exec(hint)?.[1] ?? '')
    const kv = await embedded({ dir })
    expect((await kv.get('key-58')).entry?.value.length).toBe(valueOf(58).length)
    expect((await kv.get('key-59')).entry).toBeUndefined()
    await kv.close()
  })
})

test('after a power cut without syncs a hole in the log is no damage: what was not synced may be lost', async () => {
  const { log, content, dir } = await filled('rocksdb')
  const holed = Buffer.from(content)
  holed.fill(0, content.length - 60_000, content.length - 30_000)
  writeFileSync(log, holed)
  const owner = { pid: 1, durability: 'os', boot: 'another' }
  writeFileSync(join(dir, 'owner.json'), JSON.stringify({ ...owner, durability: 'fsync' }))
  await expect(embedded({ dir })).rejects.toMatchObject({ code: 'DAMAGED' })
  writeFileSync(join(dir, 'owner.json'), JSON.stringify(owner))
  const kv = await embedded({ dir })
  expect((await kv.get('key-0')).entry).toBeDefined()
  await kv.close()
})

test('a last batch that is torn in its middle, with later parts of it on disk, is no damage', async () => {
  const { content } = await filled('rocksdb')
  const logs = join(folder, 'logs')
  mkdirSync(logs)
  // key-47 is larger than a block: its batch has a first and a last part, and nothing follows.
  const end = content.indexOf(Buffer.from('key-48'))
  const start = content.indexOf(Buffer.from('key-47'))
  const torn = Buffer.from(content.subarray(0, end - 60))
  torn.fill(0, start + 100, start + 300)
  writeFileSync(join(logs, '000004.log'), torn)
  await expect(checkLogs(logs, join(folder, 'closed.json'), true)).resolves.toBeUndefined()
})
