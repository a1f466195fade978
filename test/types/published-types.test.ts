/**
 * The published types change only together with a line in CHANGELOG.md.
 * Invariant: test/types/published-types.txt is what a user's compiler sees.
 * Why: a change of types breaks builds that no test of ours runs.
 */
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'

interface Types {
  readonly snapshotPath: string
  publishedTypes(): string
  withoutComments(code: string): string
  unreleasedHash(changelog: string): string
  readSnapshot(text: string): { changelog: string; types: string } | undefined
  nextSnapshot(previous: string | undefined, types: string, changelog: string): { text: string } | { refused: string } | undefined
}
const types = (await import(new URL('../../tools/types.mjs', import.meta.url).href)) as Types
const { build } = (await import(new URL('../../tools/build.mjs', import.meta.url).href)) as { build(): Promise<boolean> }
const root = fileURLToPath(new URL('../..', import.meta.url))

describe('the published types (G7)', () => {
  test('equal their snapshot: add a line to CHANGELOG.md, then npm run types:update', async () => {
    await build()
    expect(existsSync(types.snapshotPath)).toBe(true)
    expect(types.publishedTypes()).toBe(types.readSnapshot(readFileSync(types.snapshotPath, 'utf8'))?.types)
  })

  test('need no package of the user but the frameworks of the doors, and the API of OpenTelemetry', async () => {
    await build()
    const packages = [...types.publishedTypes().matchAll(/(?:from|import\()\s*['"]([^.'"][^'"]*)['"]/g)].map((match) => match[1])
    for (const name of packages) expect(name).toMatch(/^(node:.*|express|koa|@opentelemetry\/api)$/)
  })
})

describe('types:update', () => {
  const changelog = (line: string) => `# Changelog\n\n## Unreleased\n\n- ${line}\n\n## 0.1.0\n\n- old\n`
  const first = types.nextSnapshot(undefined, 'a: 1\n', changelog('one')) as { text: string }

  test('refuses changed types when the Unreleased section is the same', () => {
    expect(types.nextSnapshot(first.text, 'a: 2\n', changelog('one'))).toEqual({ refused: expect.stringContaining('CHANGELOG') })
  })
  test('writes changed types when the Unreleased section has changed', () => {
    const next = types.nextSnapshot(first.text, 'a: 2\n', changelog('two')) as { text: string }
    expect(types.readSnapshot(next.text)).toEqual({ changelog: types.unreleasedHash(changelog('two')), types: 'a: 2\n' })
  })
  test('writes nothing when the types are the same', () => {
    expect(types.nextSnapshot(first.text, 'a: 1\n', changelog('two'))).toBeUndefined()
  })
  test('looks at the Unreleased section alone', () => {
    expect(types.unreleasedHash(changelog('one'))).toBe(types.unreleasedHash(`${changelog('one')}- more of the old\n`))
    expect(types.unreleasedHash('## Unreleased\n\n- last')).not.toBe(types.unreleasedHash('## Unreleased\n'))
  })
  test('does not see comments, and leaves strings alone', () => {
    expect(types.withoutComments('/** a */\nexport type A = "//b" // c\n\nexport type D = `/*${string}*/`\n')).toBe(
      'export type A = "//b"\nexport type D = `/*${string}*/`',
    )
  })
})

test('the snapshot names every entry point of package.json', () => {
  const { exports } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { exports: Record<string, unknown> }
  const snapshot = readFileSync(types.snapshotPath, 'utf8')
  for (const subpath of Object.keys(exports)) {
    if (subpath !== './package.json') expect(snapshot).toContain(`hapax${subpath.slice(1)} = `)
  }
})
