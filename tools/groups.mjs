/**
 * The groups of tests, in the order in which they run.
 * Invariant: every *.test.ts of the project belongs to exactly one group (test/house/groups.test.ts).
 * Why groups: each is a run and a process of its own with a time box, so a hang or a crash costs one group and not the run.
 */
import { existsSync, readdirSync } from 'node:fs'
import { join, relative, sep } from 'node:path'

const minutes = 60_000

/**
 * `owns`: which test files, asked from the top, the first that says yes has it. `boxMs`: killed and failed when it takes longer.
 * `needs`: rows of requirements.mjs. `command`: a group that is no vitest run.
 */
export const groups = [
  { name: 'check', command: ['tools/check.mjs'], boxMs: 2 * minutes },
  { name: 'durability', owns: (path) => path.endsWith('.durability.test.ts'), boxMs: 4 * minutes },
  { name: 'browser', owns: (path) => path.endsWith('.browser.test.ts'), needs: ['chromium'], boxMs: 3 * minutes },
  { name: 'redis', owns: (path) => path.endsWith('.redis.test.ts'), needs: ['redis'], boxMs: 4 * minutes },
  { name: 'etcd', owns: (path) => path.endsWith('.etcd.test.ts'), needs: ['etcd'], boxMs: 3 * minutes },
  { name: 'chaos', owns: (path) => path.endsWith('.chaos.test.ts'), needs: ['etcd'], boxMs: 6 * minutes },
  { name: 'core', owns: (path) => path.startsWith('core/'), boxMs: 4 * minutes },
  { name: 'patterns', owns: (path) => path.startsWith('patterns/'), boxMs: 4 * minutes },
  { name: 'simulation', owns: (path) => path.startsWith('server/sim/'), boxMs: 6 * minutes },
  { name: 'server', owns: (path) => path.startsWith('server/'), boxMs: 5 * minutes },
  { name: 'examples', owns: (path) => path.startsWith('examples/'), boxMs: 4 * minutes },
  { name: 'bench', owns: (path) => path.startsWith('bench/'), needs: ['redis'], boxMs: 3 * minutes },
  { name: 'docs', owns: (path) => path.startsWith('test/docs/'), boxMs: 3 * minutes },
  { name: 'types', owns: (path) => path.startsWith('test/types/'), boxMs: 2 * minutes },
  { name: 'package', owns: (path) => path.startsWith('test/package/'), boxMs: 4 * minutes },
  { name: 'compat', owns: (path) => path.startsWith('test/compat/'), boxMs: 5 * minutes },
  { name: 'house', owns: (path) => path.startsWith('test/') || path.startsWith('tools/'), boxMs: 3 * minutes },
]

/** In which order they run: what is quick and basic first. */
export const order = [
  'check',
  'house',
  'core',
  'durability',
  'patterns',
  'server',
  'simulation',
  'examples',
  'redis',
  'etcd',
  'compat',
  'browser',
  'docs',
  'types',
  'bench',
  'package',
  'chaos',
]

const testFolders = ['core', 'patterns', 'server', 'examples', 'test', 'tools', 'bench']

/** All test files, as paths from the root with forward slashes. */
export function testFiles(root) {
  return testFolders
    .filter((folder) => existsSync(join(root, folder)))
    .flatMap((folder) => readdirSync(join(root, folder), { recursive: true, withFileTypes: true }))
    .filter((item) => item.isFile() && item.name.endsWith('.test.ts') && !item.parentPath.includes('node_modules'))
    .map((item) => relative(root, join(item.parentPath, item.name)).split(sep).join('/'))
    .sort()
}

/** The group that a test file belongs to. */
export const groupOf = (path) => groups.find((group) => group.owns?.(path))?.name
