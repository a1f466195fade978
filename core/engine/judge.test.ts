/** G17: a binary that cannot load is found without ending the process, and never leads an old directory to another engine. */
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { spawnSync } from 'node:child_process'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { buildSync } from 'esbuild'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'

const root = fileURLToPath(new URL('../../', import.meta.url))
let folder: string
beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'hapax-judge-'))
  mkdirSync(join(folder, 'node_modules'))
  mkdirSync(join(folder, 'tmp'))
  // All that is installed, but RocksDB: each test brings its own.
  for (const name of readdirSync(join(root, 'node_modules')))
    if (name !== 'rocksdb' && !name.startsWith('.')) symlinkSync(join(root, 'node_modules', name), join(folder, 'node_modules', name))
  buildSync({
    entryPoints: [join(root, 'core/stores/embedded.ts')],
    outfile: join(folder, 'embedded.mjs'),
    bundle: true,
    platform: 'node',
    format: 'esm',
    packages: 'external',
    logLevel: 'silent',
  })
})
afterEach(() => rmSync(folder, { recursive: true, force: true }))

/** Puts a package `rocksdb` there whose main file is `code`. */
function fakeRocksdb(code: string): void {
  const place = join(folder, 'node_modules', 'rocksdb')
  const prebuilds = join(place, 'prebuilds', `${process.platform}-${process.arch}`)
  mkdirSync(prebuilds, { recursive: true })
  writeFileSync(join(place, 'package.json'), JSON.stringify({ name: 'rocksdb', version: '0.0.0', main: 'index.js' }))
  writeFileSync(join(place, 'index.js'), code)
  writeFileSync(join(prebuilds, 'node.napi.node'), code)
}

/** Opens a store in another process, and says what became of it. */
function open(options: object): { readonly ok?: string; readonly code?: string; readonly message?: string } {
  const code = `import { embedded } from ${JSON.stringify(join(folder, 'embedded.mjs'))}
    try { const kv = await embedded(${JSON.stringify({ dir: join(folder, 'data'), ...options })}); console.log(JSON.stringify({ ok: kv.capabilities.store })); await kv.close() }
    catch (error) { console.log(JSON.stringify({ code: error.code, message: error.message })) }`
  const run = spawnSync(process.execPath, ['--input-type=module', '-e', code], {
    cwd: folder,
    encoding: 'utf8',
    env: { ...process.env, TMPDIR: join(folder, 'tmp') },
  })
  expect(run.status, run.stderr).toBe(0)
  return JSON.parse(run.stdout) as ReturnType<typeof open>
}

describe('RocksDB that cannot be loaded', () => {
  test.each([
    ['ends its process', 'process.abort()'],
    ['does not load', 'throw new Error("invalid ELF header")'],
    ['is another package', 'module.exports = {}'],
  ])('%s: ENGINE_UNUSABLE when it was asked for, the portable engine for a new directory otherwise', (_name, code) => {
    fakeRocksdb(code)
    expect(open({ engine: 'rocksdb' })).toMatchObject({ code: 'ENGINE_UNUSABLE' })
    expect(open({ dir: join(folder, 'new') })).toMatchObject({ ok: expect.stringContaining('portable') })
    // The refusal has written nothing: whoever follows its hint finds the directory free.
    expect(open({ engine: 'portable' })).toMatchObject({ ok: expect.stringContaining('portable') })
  })
  test('is not installed: the same', () => {
    expect(open({ engine: 'rocksdb' })).toMatchObject({ code: 'ENGINE_UNUSABLE', message: expect.stringContaining('not installed') })
    expect(open({ dir: join(folder, 'new') })).toMatchObject({ ok: expect.stringContaining('portable') })
  })
  test('never makes an old directory of RocksDB open with another engine', () => {
    fakeRocksdb('process.abort()')
    mkdirSync(join(folder, 'data'))
    writeFileSync(join(folder, 'data', 'hapax.json'), JSON.stringify({ what: 'hapax embedded store', format: 1, engine: 'rocksdb' }))
    expect(open({})).toMatchObject({ code: 'ENGINE_UNUSABLE' })
  })
  test('is tried once: the verdict is kept for this binary, and another binary is judged anew', () => {
    const counter = join(folder, 'tries')
    const counting = (what: string): string => `require('node:fs').appendFileSync(${JSON.stringify(counter)}, 'x'); ${what}`
    fakeRocksdb(counting('process.abort()'))
    open({ dir: join(folder, 'one') })
    open({ dir: join(folder, 'two') })
    expect(readFileSync(counter, 'utf8')).toBe('x')
    fakeRocksdb(counting('process.abort() // another release'))
    open({ dir: join(folder, 'three') })
    expect(readFileSync(counter, 'utf8')).toBe('xx')
  })
})

describe('a trial that says nothing about the binary is not kept', () => {
  test.each([
    ['was ended from outside', `process.kill(process.pid, 'SIGTERM'); setInterval(() => {}, 1_000)`],
    ['found no place for its files', `module.exports = { RocksLevel: class {} }; process.env.TMPDIR = '/nowhere'`],
  ])('it %s: the next start tries again', (_name, code) => {
    const counter = join(folder, 'tries')
    fakeRocksdb(`require('node:fs').appendFileSync(${JSON.stringify(counter)}, 'x'); ${code}`)
    for (const tries of ['x', 'xx']) {
      expect(open({ engine: 'rocksdb' })).toMatchObject({ code: 'ENGINE_UNUSABLE' })
      expect(readFileSync(counter, 'utf8')).toBe(tries)
    }
  })
})

test('RocksDB that works is judged so, and leaves nothing of its trial behind', () => {
  cpSync(join(root, 'node_modules', 'rocksdb'), join(folder, 'node_modules', 'rocksdb'), {
    recursive: true,
    filter: (path) => !/[\\/](deps|build)$/.test(path),
  })
  const { ok, message } = open({})
  if (process.platform === 'linux' && process.arch === 'x64') expect(ok, message).toContain('rocksdb')
  else expect(ok).toBeDefined()
  expect(readdirSync(join(folder, 'tmp')).filter((name) => name.startsWith('hapax-trial'))).toEqual([])
})
