/**
 * What is in the tarball, and what it costs to load (G5).
 * Invariant: only listed files; only types that a user's compiler can read; a pattern pulls in no addon, no socket and no disk.
 * Why no assertion on milliseconds: a busy machine would fail it. The time is printed; what makes it slow (modules, builtins, addons) is counted.
 */
import { spawnSync } from 'node:child_process'
import { readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { build } from 'esbuild'
import { publint } from 'publint'
import { formatMessage } from 'publint/utils'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { install, pack, root, runJson, scratch, specifiers, type Packed } from './packed.ts'

const folder = scratch('contents')
const user = join(folder, 'user')
let packed: Packed
beforeAll(() => {
  packed = pack(folder)
  install(user, [packed.path], ['--ignore-scripts', '--omit=optional'])
}, 300_000)
afterAll(() => rmSync(folder, { recursive: true, force: true }))

describe('the tarball', () => {
  const required = ['package.json', 'README.md', 'LICENSE', 'NOTICE', 'CHANGELOG.md']
  test('has only the listed files', () => {
    const code = /^dist\/(core|patterns|server)\/[\w/-]+\.(js|d\.ts)$/
    expect(packed.files.filter((path) => !required.includes(path) && !code.test(path))).toEqual([])
    for (const path of required) expect(packed.files).toContain(path)
  })
  test('has declarations for each script', () => {
    for (const path of packed.files.filter((each) => each.endsWith('.js') && each.startsWith('dist/'))) {
      expect(packed.files).toContain(path.replace(/\.js$/, '.d.ts'))
    }
  })
  test('pleases publint', async () => {
    const tarball = readFileSync(packed.path)
    const { messages, pkg } = await publint({
      strict: true,
      pack: { tarball: tarball.buffer.slice(tarball.byteOffset, tarball.byteOffset + tarball.byteLength) },
    })
    expect(messages.filter((message) => message.type !== 'suggestion').map((message) => formatMessage(message, pkg))).toEqual([])
  })
  test('pleases attw as a package of ES modules', () => {
    const attw = join(root, 'node_modules/@arethetypeswrong/cli/dist/index.js')
    const run = spawnSync(process.execPath, [attw, packed.path, '--profile', 'esm-only', '--no-color', '--no-emoji'], { encoding: 'utf8' })
    expect(run.status, `${run.stdout}${run.stderr}`).toBe(0)
  })
})

/** Patterns and their doors. A conformance kit is for tests and may be larger. */
const patterns = specifiers.filter(
  (specifier) => /^hapax\/(idempotency|counters|ratelimit|cache-aside)\b/.test(specifier) && !specifier.endsWith('/conformance'),
)

/** Builtins that mean a socket, a disk engine or another process. */
const heavyBuiltins = ['net', 'tls', 'http', 'https', 'http2', 'dgram', 'dns', 'child_process', 'worker_threads', 'cluster']

interface Loaded {
  readonly builtins: string[]
  readonly addons: number
  readonly ms: number
}

describe.each(patterns)('%s', (specifier) => {
  test('loads no addon and no socket module of ours', () => {
    const loaded = runJson<Loaded>(
      process.execPath,
      user,
      'loaded.mjs',
      `
      let addons = 0
      const dlopen = process.dlopen
      process.dlopen = (...args) => { addons += 1; return dlopen.apply(process, args) }
      const before = new Set(process.moduleLoadList)
      const start = performance.now()
      await import('${specifier}')
      const ms = performance.now() - start
      const builtins = process.moduleLoadList.filter((name) => !before.has(name)).map((name) => name.replace(/^NativeModule /, ''))
      console.log(JSON.stringify({ builtins, addons, ms }))`,
    )
    console.log(`${specifier}: import in ${loaded.ms.toFixed(1)} ms (aim: 15)`)
    expect(loaded.addons).toBe(0)
    expect(loaded.builtins.filter((name) => heavyBuiltins.includes(name))).toEqual([])
  })

  /** Bytes of the minified bundle after gzip, and files of ours in it. The largest, a cache, has some 20 KB; a fifth more is allowed. */
  const gzipBytesMax = 24_576
  const filesMax = 40
  test(`bundles for a neutral platform within ${gzipBytesMax} bytes of gzip and ${filesMax} files`, async () => {
    const result = await build({
      stdin: { contents: `export * from '${specifier}'`, resolveDir: user },
      bundle: true,
      write: false,
      minify: true,
      metafile: true,
      format: 'esm',
      platform: 'neutral',
      mainFields: ['module', 'main'],
      external: ['node:*'],
      logLevel: 'silent',
    })
    const bytes = gzipSync(result.outputFiles[0]?.contents ?? new Uint8Array()).byteLength
    const files = Object.keys(result.metafile.inputs).filter((path) => path.includes('hapax/dist/')).length
    const outside = Object.values(result.metafile.outputs).flatMap((output) => output.imports.map((each) => each.path))
    console.log(`${specifier}: ${bytes} bytes of gzip, ${files} files, asks for ${[...new Set(outside)].join(', ') || 'nothing'}`)
    expect(outside.filter((path) => heavyBuiltins.includes(path.replace('node:', '')) || path === 'node:fs')).toEqual([])
    expect(bytes).toBeGreaterThan(500)
    expect(bytes).toBeLessThanOrEqual(gzipBytesMax)
    expect(files).toBeLessThanOrEqual(filesMax)
  })
})
