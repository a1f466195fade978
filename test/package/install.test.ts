/**
 * The packed package on each Node, with and without its optional packages (G1, G4, G5).
 * Invariant: every subpath loads by `import` and by `require`, and gives the same names both ways.
 * Why installed and not linked: a file that is missing in the tarball, or a dependency that is not declared, shows only there.
 */
import { existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { install, manifest, nodeBinary, nodeVersions, noNodes, npm, pack, runJson, scratch, specifiers, type Packed } from './packed.ts'

const folder = scratch('install')
let packed: Packed
beforeAll(() => {
  packed = pack(folder)
}, 300_000)
afterAll(() => rmSync(folder, { recursive: true, force: true }))

type Names = Record<string, string[]>
const list = JSON.stringify(specifiers)
const byImport = `
  const names = {}
  for (const specifier of ${list}) names[specifier] = Object.keys(await import(specifier)).sort()
  console.log(JSON.stringify(names))`
const byRequire = `
  const names = {}
  for (const specifier of ${list}) names[specifier] = Object.keys(require(specifier)).filter((name) => name !== '__esModule').sort()
  console.log(JSON.stringify(names))`

/** Opens the embedded store, writes, closes, opens again and reads. Prints what it read, or the code of the error. */
const roundTrip = `
  import { mkdtempSync, rmSync } from 'node:fs'
  import { tmpdir } from 'node:os'
  import { join } from 'node:path'
  import { text, scoped } from 'hapax'
  import { embedded } from 'hapax/embedded'
  const dir = mkdtempSync(join(tmpdir(), 'hapax-round-'))
  try {
    let kv = await embedded({ dir })
    await scoped(kv, 'a', { codec: text }).create('1', 'written', { ttl: '1h' })
    await kv.close()
    kv = await embedded({ dir })
    const { entry } = await scoped(kv, 'a', { codec: text }).get('1')
    await kv.close()
    console.log(JSON.stringify({ value: entry?.value }))
  } catch (error) {
    if (error.code === undefined) throw error
    console.log(JSON.stringify({ code: error.code }))
  } finally {
    rmSync(dir, { recursive: true, force: true })
  }`

describe.skipIf(noNodes !== undefined)(`the installed package${noNodes === undefined ? '' : ` (left out: ${noNodes})`}`, () => {
  const full = join(folder, 'full')
  const lean = join(folder, 'lean')
  beforeAll(() => {
    install(full, [packed.path])
    install(lean, [packed.path], ['--ignore-scripts', '--omit=optional'])
    for (const version of nodeVersions) nodeBinary(version)
  }, 300_000)

  describe.each(nodeVersions)('on Node %s', (version) => {
    const folders = [
      ['with optional packages', full],
      ['without optional packages', lean],
    ] as const
    test.each(folders)('loads every subpath by import and by require %s', (_name, where) => {
      const imported = runJson<Names>(nodeBinary(version), where, 'probe.mjs', byImport)
      const required = runJson<Names>(nodeBinary(version), where, 'probe.cjs', byRequire)
      expect(required).toEqual(imported)
      for (const specifier of specifiers) expect(imported[specifier], specifier).not.toEqual([])
    })
    test('keeps an entry in the embedded store', () => {
      expect(runJson(nodeBinary(version), full, 'round-trip.mjs', roundTrip)).toEqual({ value: 'written' })
    })
    test('says that the engine is unusable where it was not installed (G17)', () => {
      expect(runJson(nodeBinary(version), lean, 'round-trip.mjs', roundTrip)).toEqual({ code: 'ENGINE_UNUSABLE' })
    })
  })

  test('has ulid alone without optional packages (G4)', () => {
    const listed = JSON.parse(npm(['ls', '--all', '--json'], lean).stdout) as {
      dependencies: { hapax: { dependencies: Record<string, object> } }
    }
    const present = Object.entries(listed.dependencies.hapax.dependencies).filter(([, each]) => 'version' in each)
    expect(present.map(([name]) => name)).toEqual(['ulid'])
    expect(existsSync(join(lean, 'node_modules/rocksdb'))).toBe(false)
  })
})

test('installs although an optional package cannot be compiled (G4)', () => {
  const where = join(folder, 'broken')
  const broken = join(where, 'broken')
  mkdirSync(broken, { recursive: true })
  const scripts = { install: 'node -e "process.exit(1)"' }
  writeFileSync(join(broken, 'package.json'), JSON.stringify({ name: 'rocksdb', version: '12.2.12', scripts }))
  const tarball = JSON.parse(npm(['pack', '--json', '--ignore-scripts'], broken).stdout) as [{ filename: string }]
  const user = {
    name: 'user',
    version: '1.0.0',
    private: true,
    dependencies: { hapax: `file:${packed.path}` },
    overrides: { rocksdb: `file:${join(broken, tarball[0].filename)}` },
  }
  writeFileSync(join(where, 'package.json'), JSON.stringify(user))
  const run = npm(['install', '--no-audit', '--no-fund', '--prefer-offline', '--foreground-scripts'], where)
  expect(run.status, run.stderr).toBe(0)
  // The script has run and failed, and npm has taken the package away again.
  expect(existsSync(join(where, 'node_modules/rocksdb')), run.stdout).toBe(false)
  const probe = "import { memory } from 'hapax'; console.log(JSON.stringify(typeof memory))"
  expect(runJson(process.execPath, where, 'probe.mjs', probe)).toBe('function')
})

test('knows its own version by its package.json', () => {
  expect(manifest.version).toMatch(/^\d+\.\d+\.\d+$/)
  expect(packed.path).toContain(manifest.version)
})
