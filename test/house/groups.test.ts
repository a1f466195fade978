/**
 * The groups of `npm test` and the files that decide what runs and what is installed.
 * Invariant: no test file is left out, and the lock serves every platform.
 * Why: a test that no group runs, or a lock that misses another platform's binaries, fails nowhere on the machine where it was made.
 */
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'

const root = fileURLToPath(new URL('../..', import.meta.url))
const load = async <T>(tool: string): Promise<T> => (await import(new URL(`../../tools/${tool}`, import.meta.url).href)) as T

interface Groups {
  readonly groups: readonly { readonly name: string; readonly boxMs: number; readonly needs?: readonly string[] }[]
  readonly order: readonly string[]
  testFiles(root: string): string[]
  groupOf(path: string): string | undefined
}
interface LockEntry {
  readonly version?: string
  readonly resolved?: string
  readonly dev?: boolean
  readonly optional?: boolean
  readonly devOptional?: boolean
  readonly optionalDependencies?: Readonly<Record<string, string>>
}
interface Install {
  staleness(folder: string): string | undefined
}
interface Requirements {
  readonly requirements: Readonly<Record<string, object>>
}

const lock = JSON.parse(readFileSync(join(root, 'package-lock.json'), 'utf8')) as { packages: Record<string, LockEntry> }

describe('the groups (G3)', () => {
  test('own every test file', async () => {
    const { groupOf, testFiles, order } = await load<Groups>('groups.mjs')
    const files = testFiles(root)
    expect(files).toContain('test/house/groups.test.ts')
    for (const file of files) expect(order, file).toContain(groupOf(file))
  })
  test('all run, each with a time box, and name requirements that exist', async () => {
    const { groups, order } = await load<Groups>('groups.mjs')
    const { requirements } = await load<Requirements>('requirements.mjs')
    expect(groups.map((group) => group.name).sort()).toEqual([...order].sort())
    for (const group of groups) {
      expect(group.boxMs).toBeGreaterThan(0)
      for (const need of group.needs ?? []) expect(requirements).toHaveProperty(need)
    }
  })
  test('put durability and browser tests into groups of their own, wherever they lie', async () => {
    const { groupOf } = await load<Groups>('groups.mjs')
    expect(groupOf('core/stores/embedded.durability.test.ts')).toBe('durability')
    expect(groupOf('examples/payments/page.browser.test.ts')).toBe('browser')
    expect(groupOf('core/kv/scoped.test.ts')).toBe('core')
    expect(groupOf('tools/report.test.ts')).toBe('house')
  })
})

describe('the lock file', () => {
  test('is complete for every platform', () => {
    let checked = 0
    for (const [path, { optionalDependencies = {} }] of Object.entries(lock.packages)) {
      for (const name of Object.keys(optionalDependencies)) {
        const found = `${path === '' ? '' : `${path}/`}node_modules/${name}` in lock.packages || `node_modules/${name}` in lock.packages
        expect(found, `${name} of ${path}`).toBe(true)
        checked += 1
      }
    }
    expect(checked).toBeGreaterThan(50)
  })
  test('names no host and agrees with package.json', () => {
    for (const [path, entry] of Object.entries(lock.packages)) expect(entry.resolved, path).toBeUndefined()
    const manifest = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as Record<string, unknown>
    const own = lock.packages[''] as Record<string, unknown>
    const fields = [
      'dependencies',
      'optionalDependencies',
      'devDependencies',
      'peerDependencies',
      'peerDependenciesMeta',
      'engines',
      'license',
    ]
    for (const field of fields) expect(own[field], field).toEqual(manifest[field])
  })
  test('has ulid as the only dependency that must be there (G4)', () => {
    const needed = Object.entries(lock.packages).filter(
      ([path, entry]) => path !== '' && !entry.dev && !entry.optional && !entry.devOptional,
    )
    expect(needed.map(([path]) => path)).toEqual(['node_modules/ulid'])
  })
})

describe('staleness', () => {
  const inFolder = async (installed: Record<string, LockEntry> | undefined): Promise<string | undefined> => {
    const { staleness } = await load<Install>('install.mjs')
    const folder = mkdtempSync(join(tmpdir(), 'hapax-stale-'))
    try {
      copyFileSync(join(root, 'package-lock.json'), join(folder, 'package-lock.json'))
      if (installed !== undefined) {
        mkdirSync(join(folder, 'node_modules'))
        writeFileSync(join(folder, 'node_modules/.package-lock.json'), JSON.stringify({ packages: installed }))
      }
      return staleness(folder)
    } finally {
      rmSync(folder, { recursive: true, force: true })
    }
  }
  const { '': _self, ...all } = lock.packages
  const { 'node_modules/ulid': ulid, ...withoutUlid } = all

  test('is nothing when all is installed, also without the optional packages of other platforms', async () => {
    expect(await inFolder(all)).toBeUndefined()
    expect(await inFolder(Object.fromEntries(Object.entries(all).filter(([, entry]) => !entry.optional)))).toBeUndefined()
  })
  test('is said when a package is missing, old, or all are missing', async () => {
    expect(await inFolder(undefined)).toMatch(/missing/)
    expect(await inFolder(withoutUlid)).toMatch(/ulid is missing/)
    expect(await inFolder({ ...withoutUlid, 'node_modules/ulid': { ...ulid, version: '0.0.1' } })).toMatch(/ulid is 0\.0\.1/)
  })
})
