/**
 * Each pattern works from the packed package in an empty folder, by the first example of its page (issue: "an own three-line script").
 * Invariant: each example has a process of its own, which ends by itself, with nothing to say.
 */
import { spawnSync } from 'node:child_process'
import { mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { asCommonJs, asModule, embeddedStore, exampleOf, patterns, runProgram } from './first-examples.ts'
import { install, pack, root, scratch } from './packed.ts'

const folder = scratch('examples')
const user = join(folder, 'user')
beforeAll(() => {
  install(user, [pack(folder).path])
}, 300_000)
afterAll(() => rmSync(folder, { recursive: true, force: true }))

/** A folder inside the user's, so that a store of one example is not that of another. */
function inside(name: string): string {
  const own = join(user, name)
  mkdirSync(own)
  return own
}

describe.each(patterns)('the first example of %s', (pattern) => {
  test('runs by import on the memory store', () => {
    expect(runProgram(user, `${pattern}.mjs`, asModule(exampleOf(pattern)))).toEqual({ end: 0, said: '' })
  })
  test('runs by require on the memory store', () => {
    expect(runProgram(user, `${pattern}.cjs`, asCommonJs(exampleOf(pattern)))).toEqual({ end: 0, said: '' })
  })
  test('runs on the embedded store', () => {
    const own = inside(pattern)
    expect(runProgram(own, 'main.mjs', asModule(exampleOf(pattern, embeddedStore)))).toEqual({ end: 0, said: '' })
    expect(readdirSync(join(own, 'data')).length).toBeGreaterThan(0)
  })
  test('tells by its end when something is not as it says', () => {
    const broken = exampleOf(pattern).replaceAll(/\bif \(/g, 'if (true || ')
    expect(runProgram(user, `${pattern}-broken.mjs`, asModule(broken))).toMatchObject({
      end: 1,
      said: expect.stringContaining('Error') as string,
    })
  })
})

test.each([
  ['nodenext', 'nodenext'],
  ['esnext', 'bundler'],
])(
  'the first examples compile with module %s and moduleResolution %s, in strict mode, without any other types',
  (module, moduleResolution) => {
    const own = inside(`types-${moduleResolution}`)
    for (const pattern of patterns) {
      writeFileSync(join(own, `${pattern}.ts`), exampleOf(pattern))
      writeFileSync(join(own, `${pattern}-embedded.ts`), exampleOf(pattern, embeddedStore))
    }
    writeFileSync(join(own, 'wrong.ts'), `${exampleOf('counters')}const wrong: string = value\n`)
    const compilerOptions = {
      target: 'es2022',
      module,
      moduleResolution,
      types: [],
      strict: true,
      exactOptionalPropertyTypes: true,
      noEmit: true,
    }
    writeFileSync(join(own, 'tsconfig.json'), JSON.stringify({ compilerOptions, include: ['*.ts'] }))
    const tsc = spawnSync(process.execPath, [join(root, 'node_modules/typescript/bin/tsc'), '-p', own, '--pretty', 'false'], {
      cwd: own,
      encoding: 'utf8',
    })
    // The one line that is wrong on purpose, or nobody would know that anything was looked at.
    expect(tsc.stdout.trim().split('\n')).toEqual([expect.stringMatching(/^wrong\.ts\(\d+,\d+\): error TS2322: Type 'number'/) as string])
  },
)
