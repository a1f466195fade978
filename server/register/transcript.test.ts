/**
 * Transcripts: each file of testdata plays one room's stories, message by message (testdata/README.md). `HAPAX_REWRITE=1` writes what came
 * of them into the files; read the difference before it is committed.
 */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { play } from './testdata/play.ts'

const folder = new URL('testdata/', import.meta.url)

for (const name of readdirSync(folder).filter((file) => file.endsWith('.txt')))
  test(`plays ${name} as it is written`, () => {
    const file = new URL(name, folder)
    const text = readFileSync(file, 'utf8')
    const played = play(text)
    if (process.env['HAPAX_REWRITE'] === '1') writeFileSync(file, played)
    expect(played).not.toContain('IMPOSSIBLE')
    if (process.env['HAPAX_REWRITE'] === '1') return
    expect(played).toBe(text)
  })
