/** docs/settings.md is the table of settings, and its examples are taken by what reads them. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { parsePolicy } from '../../server/run/policy-file.ts'
import { checkSettings, flagOf, readSettings, settings, variableOf } from '../../server/run/settings.ts'

const document = readFileSync(new URL('../../docs/settings.md', import.meta.url), 'utf8')
const [file, policy] = [...document.matchAll(/```toml\n([\s\S]*?)```/g)].map((match) => match[1] as string)
const tool = (await import(new URL('../../tools/settings.mjs', import.meta.url).href)) as {
  settingsMarkdown(table: typeof settings, names: { flagOf: typeof flagOf; variableOf: typeof variableOf }): string
}

test('the document is the table: npm run settings:update', () => {
  expect(document).toBe(tool.settingsMarkdown(settings, { flagOf, variableOf }))
})

test('the example of a file has all that a storage server needs', async () => {
  const dir = mkdtempSync(join(tmpdir(), 'hapax-settings-'))
  try {
    writeFileSync(join(dir, 'hapax.toml'), file as string)
    const { values } = await readSettings({ flags: {}, env: {}, file: join(dir, 'hapax.toml') })
    expect(() => checkSettings('storage', values)).not.toThrow()
  } finally {
    rmSync(dir, { recursive: true, force: true })
  }
})

test('the example of a policy is one', async () => {
  expect((await parsePolicy(policy as string, false)).rules).toHaveLength(2)
})
