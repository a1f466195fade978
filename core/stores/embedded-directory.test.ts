/** Whose directory it is, with which engine, and how it is copied (G17, G18). */
import { spawn, type ChildProcess } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { seededRandom } from '../base/random.ts'
import { KvError } from '../kv/errors.ts'
import { embedded, restore } from './embedded.ts'
import { bundleEmbedded, type Bundle } from './testdata/bundled.ts'

let folder: string
let dir: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'hapax-directory-'))
  dir = join(folder, 'data')
})
afterEach(() => rmSync(folder, { recursive: true, force: true }))

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text)

describe('the directory (G17)', () => {
  test.each(['rocksdb', 'portable'] as const)('says that %s made it, and opens again with what was written', async (engine) => {
    const kv = await embedded({ dir, engine })
    await kv.create('a', bytes('1'))
    await kv.close()
    expect(JSON.parse(readFileSync(join(dir, 'hapax.json'), 'utf8'))).toMatchObject({ engine, format: expect.any(Number) })
    const again = await embedded({ dir })
    expect(again.capabilities.store).toContain(engine)
    expect((await again.get('a')).entry?.value).toEqual(bytes('1'))
    await again.close()
  })
  test('another engine on it is an error, never a fallback', async () => {
    await (await embedded({ dir, engine: 'portable' })).close()
    await expect(embedded({ dir, engine: 'rocksdb' })).rejects.toMatchObject({
      code: 'ENGINE_DIFFERS',
      hint: expect.stringContaining('portable'),
    })
  })
  test('a directory with something else in it is refused and left alone', async () => {
    mkdirSync(dir)
    writeFileSync(join(dir, 'letter.txt'), 'dear')
    await expect(embedded({ dir })).rejects.toMatchObject({ code: 'ENGINE_DIFFERS' })
    expect(readdirSync(dir)).toEqual(['letter.txt'])
  })
  test.each([
    ['a newer format', JSON.stringify({ what: 'hapax embedded store', format: 99, engine: 'rocksdb' })],
    ['an engine of another name', JSON.stringify({ what: 'hapax embedded store', format: 1, engine: 'floppy' })],
    ['half a marker', '{"what":"hap'],
  ])('%s is refused, and nothing is written', async (_name, marker) => {
    mkdirSync(dir)
    writeFileSync(join(dir, 'hapax.json'), marker)
    await expect(embedded({ dir })).rejects.toMatchObject({ code: 'ENGINE_DIFFERS' })
    expect(readdirSync(dir)).toEqual(['hapax.json'])
  })
  test('is opened once in a process; the second is told so, and the first goes on', async () => {
    const kv = await embedded({ dir })
    await expect(embedded({ dir })).rejects.toMatchObject({
      code: 'DIRECTORY_IN_USE',
      message: expect.stringContaining(String(process.pid)),
    })
    expect(await kv.create('a', bytes('1'))).toMatchObject({ ok: true })
    await kv.close()
    await (await embedded({ dir })).close()
  })
  test.each([{ dir: '' }, { dir: 'x', durability: 'maybe' }, { dir: 'x', engine: 'lmdb' }, { dir: 'x', cacheBytes: -1 }])(
    'refuses the options %j',
    async (options) => {
      await expect(embedded(options as never)).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' })
      expect(existsSync('x')).toBe(false)
    },
  )
})

describe('another process', () => {
  let bundle: Bundle
  beforeAll(async () => {
    bundle = await bundleEmbedded('owner')
  })
  afterAll(() => bundle.remove())

  const owner = async (): Promise<ChildProcess> => {
    const code = `const { embedded } = await import(process.argv[1]); const kv = await embedded({ dir: process.argv[2] });
      await kv.create('a', new Uint8Array([1])); console.log('open'); process.stdin.resume()`
    const child = spawn(process.execPath, ['--input-type=module', '-e', code, bundle.path, dir], { stdio: ['pipe', 'pipe', 'inherit'] })
    await new Promise((resolve) => child.stdout?.once('data', resolve))
    return child
  }

  test('that has the directory is named, with the hint what to do; killed, it lets go of it at once', async () => {
    const child = await owner()
    const ended = new Promise((resolve) => child.once('close', resolve))
    try {
      await expect(embedded({ dir })).rejects.toMatchObject({
        code: 'DIRECTORY_IN_USE',
        message: expect.stringContaining(`process ${child.pid} `),
        hint: expect.stringContaining(`stop process ${child.pid}`),
      })
    } finally {
      child.kill('SIGKILL')
      await ended
    }
    const kv = await embedded({ dir })
    expect((await kv.get('a')).entry?.value).toEqual(Uint8Array.of(1))
    await kv.close()
  })
})

describe('snapshot and restore (G18)', () => {
  const file = (): string => join(folder, 'copy.hapax')
  const fill = async (engine: 'rocksdb' | 'portable'): Promise<Awaited<ReturnType<typeof embedded>>> => {
    const kv = await embedded({ dir, engine, durability: 'os' })
    await Promise.all(
      Array.from({ length: 500 }, (_, index) => kv.create(`key-${index}`, bytes(`value ${index}`), index % 3 === 0 ? { ttl: '1h' } : {})),
    )
    return kv
  }

  test.each([
    ['rocksdb', 'portable'],
    ['portable', 'rocksdb'],
  ] as const)('a copy of %s becomes a store of %s, with versions, expiries and remembered requests', async (from, to) => {
    const kv = await fill(from)
    const made = await kv.create('named', bytes('n'), { requestId: 'r-1' })
    const before = (await kv.get('key-3')).entry
    const { entries } = await kv.snapshot(file())
    expect(entries).toBe(501)
    await kv.close()

    const target = join(folder, 'restored')
    expect(await restore({ file: file(), dir: target, engine: to })).toMatchObject({ entries: 501 })
    const copy = await embedded({ dir: target })
    expect(copy.capabilities.store).toContain(to)
    expect((await copy.get('key-3')).entry).toEqual(before)
    expect((await copy.create('named', bytes('n'), { requestId: 'r-1' })).entry).toEqual(made.entry)
    await copy.close()
  })
  test('shows one moment, also while others write', async () => {
    const kv = await fill('rocksdb')
    const writing = (async () => {
      for (let index = 0; index < 300; index++) {
        // Two keys, the second always after the first: a consistent copy never has the second alone.
        await kv.create(`first-${index}`, bytes('1'))
        await kv.create(`second-${index}`, bytes('2'))
      }
    })()
    await kv.create('begun', bytes('1'))
    await kv.snapshot(file())
    await writing
    await kv.close()
    const target = join(folder, 'restored')
    await restore({ file: file(), dir: target })
    const copy = await embedded({ dir: target })
    for (let index = 0; index < 300; index++) {
      const { entries } = await copy.getMany([`first-${index}`, `second-${index}`])
      if (entries.has(`second-${index}`)) expect(entries.has(`first-${index}`)).toBe(true)
    }
    await copy.close()
  })
  test('a file that is shorter, longer or changed anywhere is refused, and nothing of it is used', async () => {
    const kv = await fill('rocksdb')
    await kv.snapshot(file())
    await kv.close()
    const whole = readFileSync(file())
    const target = join(folder, 'restored')
    const attempt = async (content: Uint8Array): Promise<void> => {
      writeFileSync(file(), content)
      await expect(restore({ file: file(), dir: target })).rejects.toMatchObject({ code: 'SNAPSHOT_INVALID' })
      expect(existsSync(join(target, 'hapax.json'))).toBe(false)
    }
    for (const at of [0, 9, 17, Math.floor(whole.length / 2), whole.length - 1]) {
      const changed = Buffer.from(whole)
      changed[at] = (changed[at] as number) ^ 0x01
      await attempt(changed)
    }
    for (const length of [0, 7, 100, whole.length - 1]) await attempt(whole.subarray(0, length))
    await attempt(Buffer.concat([whole, Buffer.of(0)]))
    writeFileSync(file(), whole)
    await restore({ file: file(), dir: target })
  })
  test('is not restored over a store', async () => {
    const kv = await fill('rocksdb')
    await kv.snapshot(file())
    await kv.close()
    await expect(restore({ file: file(), dir })).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' })
    await expect(restore({ file: join(folder, 'none'), dir: join(folder, 'x') })).rejects.toMatchObject({ code: 'SNAPSHOT_INVALID' })
  })
  test('a restore that was cut off cannot be opened', async () => {
    await (await embedded({ dir, engine: 'rocksdb' })).close()
    const marker = JSON.parse(readFileSync(join(dir, 'hapax.json'), 'utf8')) as object
    writeFileSync(join(dir, 'hapax.json'), JSON.stringify({ ...marker, restoring: true }))
    await expect(embedded({ dir })).rejects.toMatchObject({ code: 'SNAPSHOT_INVALID' })
  })
  test('one that is ended by its signal leaves no file', async () => {
    const kv = await fill('rocksdb')
    await expect(kv.snapshot(file(), { signal: AbortSignal.abort() })).rejects.toMatchObject({ code: 'ABORTED' })
    expect(readdirSync(folder)).toEqual(['data'])
    await kv.close()
  })
})

describe('damage on disk (G18)', () => {
  test.each(['rocksdb', 'portable'] as const)(
    '%s: bytes that changed in the files are an error or harmless, and never another value',
    async (engine) => {
      const kv = await embedded({ dir, engine, durability: 'fsync' })
      for (let index = 0; index < 50; index++) await kv.create(`key-${index}`, bytes(`value-${index}-${'v'.repeat(100)}`))
      await kv.close()
      const records = join(dir, 'records')
      const log = readdirSync(records)
        .filter((name) => /\.(log|sst|ldb)$/.test(name))
        .map((name) => join(records, name))
        .sort((left, right) => statSync(right).size - statSync(left).size)[0] as string
      const content = readFileSync(log)
      const at = content.indexOf('value-25-')
      expect(at).toBeGreaterThan(0)
      content[at + 20] = 0x21
      writeFileSync(log, content)
      let opened: Awaited<ReturnType<typeof embedded>>
      try {
        opened = await embedded({ dir })
      } catch (error) {
        expect(error).toMatchObject({ name: 'KvError' }) // the engine itself saw it: nothing was answered wrongly
        return
      }
      for (let index = 0; index < 50; index++) {
        const value = await opened.get(`key-${index}`).then(
          ({ entry }) => entry && new TextDecoder().decode(entry.value),
          (error: { code: string }) => error.code,
        )
        expect([`value-${index}-${'v'.repeat(100)}`, 'DAMAGED', undefined]).toContain(value)
      }
      await opened.close()
    },
  )
})

describe('a snapshot and its surroundings', () => {
  const file = (): string => join(folder, 'copy.hapax')
  test('is made although a process of the same number left half of one', async () => {
    const kv = await embedded({ dir, durability: 'os' })
    await kv.create('a', bytes('1'))
    for (let number = 1; number < 30; number++) writeFileSync(`${file()}.${process.pid}-${number}.part`, 'half')
    expect(await kv.snapshot(file())).toMatchObject({ entries: 1 })
    await kv.close()
  })
  test('is whole when two are made at once under one name', async () => {
    const kv = await embedded({ dir, durability: 'os' })
    await Promise.all(Array.from({ length: 300 }, (_, index) => kv.create(`key-${index}`, bytes('1'))))
    await Promise.all([kv.snapshot(file()), kv.snapshot(file())])
    await kv.close()
    expect(await restore({ file: file(), dir: join(folder, 'restored') })).toMatchObject({ entries: 300 })
    expect(readdirSync(folder).sort()).toEqual(['copy.hapax', 'data', 'restored'])
  })
  test.each(['rocksdb', 'portable'] as const)(
    '%s: one that a close overtakes ends with an error or whole, and leaves no half',
    async (engine) => {
      const kv = await embedded({ dir, engine, durability: 'os' })
      await Promise.all(Array.from({ length: 2_000 }, (_, index) => kv.create(`key-${index}`, new Uint8Array(2_000))))
      const outcome = kv.snapshot(file()).catch((error: { code: string }) => error.code)
      await new Promise((resolve) => setImmediate(resolve))
      await kv.close()
      const told = await outcome
      if (typeof told === 'string') {
        expect(['UNAVAILABLE', 'CLOSED']).toContain(told)
        expect(readdirSync(folder)).toEqual(['data'])
      } else expect(told.entries).toBe(2_000)
      await expect(kv.snapshot(file())).rejects.toMatchObject({ code: 'CLOSED' })
    },
  )
  test.each(['', undefined])('neither is written to nor read from the path %j', async (path) => {
    const kv = await embedded({ dir, durability: 'os' })
    await expect(kv.snapshot(path as string)).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' })
    await kv.close()
    await expect(restore({ file: path as string, dir: join(folder, 'x') })).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' })
    await expect(restore({ file: file(), dir: path as string })).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' })
  })
  test('a store in a directory several levels down, by a relative path, is closed where it was opened', async () => {
    const before = process.cwd()
    process.chdir(folder)
    try {
      const kv = await embedded({ dir: 'one/two/data' })
      await kv.create('a', bytes('1'))
      process.chdir(before)
      await kv.close()
    } finally {
      process.chdir(before)
    }
    expect(readdirSync(join(folder, 'one', 'two', 'data'))).not.toContain('owner.json')
    const again = await embedded({ dir: join(folder, 'one', 'two', 'data') })
    expect((await again.get('a')).entry?.value).toEqual(bytes('1'))
    await again.close()
  })
})

describe('damage in the table files (G18)', () => {
  const count = 300
  // Not LevelDB: it does not check its blocks when it reads, and a bit that turned there can end the process (core/engine/portable.ts).
  test.each(['rocksdb'] as const)(
    '%s: a bit that turned is an error for the keys that it touches, and never another value',
    { timeout: 120_000 },
    async (engine) => {
      const kv = await embedded({ dir, engine, durability: 'os' })
      await Promise.all(Array.from({ length: count }, (_, index) => kv.create(`key-${index}`, new Uint8Array(300).fill(index))))
      await kv.close()
      await (await embedded({ dir })).close() // an opening moves what the log holds into a table
      const path = readdirSync(join(dir, 'records'))
        .filter((name) => /\.(sst|ldb)$/.test(name))
        .map((name) => join(dir, 'records', name))[0] as string
      const whole = readFileSync(path)
      const random = seededRandom(1)
      let damaged = 0
      for (let round = 0; round < 25; round++) {
        const at = random.int(whole.length)
        const changed = Buffer.from(whole)
        changed[at] = (changed[at] as number) ^ (1 << random.int(8))
        writeFileSync(path, changed)
        const opened = await embedded({ dir }).catch((error: unknown) => error)
        if (opened instanceof KvError) continue
        const store = opened as Awaited<ReturnType<typeof embedded>>
        for (let index = 0; index < count; index++) {
          const entry = await store.get(`key-${index}`).then(
            (result) => result.entry,
            (error: unknown) => error as KvError,
          )
          const where = `key-${index}, byte ${at}`
          if (entry instanceof KvError) damaged++
          else if (entry === undefined) expect(entry, where).toBeDefined()
          else expect(Buffer.compare(entry.value, new Uint8Array(300).fill(index)), where).toBe(0)
        }
        await store.close()
      }
      expect(damaged).toBeGreaterThan(0)
    },
  )
})
