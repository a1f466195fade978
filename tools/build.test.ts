/** Where a folder cannot be renamed, a build moves it by copying. */
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'

const { move } = (await import(new URL('build.mjs', import.meta.url).href)) as {
  move(from: string, to: string, rename?: (from: string, to: string) => void): void
}
const failing = (code: string) => (): never => {
  throw Object.assign(new Error(code), { code })
}

let folder: string
let from: string
let to: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'hapax-build-'))
  from = join(folder, 'from')
  to = join(folder, 'to')
  mkdirSync(join(from, 'deep'), { recursive: true })
  writeFileSync(join(from, 'deep', 'file'), 'text')
})
afterEach(() => rmSync(folder, { recursive: true, force: true }))

test.each([
  ['renaming it', undefined],
  ['copying it where the file system cannot rename it (EXDEV)', failing('EXDEV')],
])('a folder is moved by %s', (_how, rename) => {
  move(from, to, rename)
  expect(readFileSync(join(to, 'deep', 'file'), 'utf8')).toBe('text')
  expect(existsSync(from)).toBe(false)
})

test('another error stays, and the folder where it is', () => {
  expect(() => move(from, to, failing('EACCES'))).toThrow('EACCES')
  expect(existsSync(join(from, 'deep', 'file'))).toBe(true)
  expect(existsSync(to)).toBe(false)
})
