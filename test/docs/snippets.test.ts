/**
 * Every ```ts block of README.md and docs/ is compiled against the published types and run.
 * Invariant: a block that does not compile, throws or hangs fails under its file and line.
 * Why processes of their own in a folder inside the project: there 'hapax' is the built package, and frameworks are found as a user finds them.
 * How to give a block what it needs: CONTRIBUTING.md, "Snippets".
 */
import { spawn, spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { snippetsOf } from './snippet.ts'

const root = fileURLToPath(new URL('../..', import.meta.url))

const markdownFiles = ['README.md', 'CONTRIBUTING.md', 'docs']
  .map((path) => join(root, path))
  .filter(existsSync)
  .flatMap((path) =>
    path.endsWith('.md')
      ? [path]
      : readdirSync(path, { recursive: true, encoding: 'utf8' })
          .filter((item) => item.endsWith('.md'))
          .map((item) => join(path, item)),
  )
const snippets = markdownFiles.flatMap((path) => snippetsOf(relative(root, path), readFileSync(path, 'utf8')))

const compilerOptions = {
  target: 'es2023',
  lib: ['es2023', 'esnext.disposable'],
  module: 'nodenext',
  types: ['node'],
  strict: true,
  exactOptionalPropertyTypes: true,
  skipLibCheck: false,
  outDir: 'out',
  rootDir: '.',
}

/** A snippet that takes longer hangs: each does a few calls. */
const runMsMax = 45_000

/** Runs a program; it ends by itself, or is killed and its end is not 0. */
function run(path: string, cwd: string): Promise<{ code: number | null; output: string }> {
  return new Promise((resolve) => {
    const child = spawn(process.execPath, [path], { cwd, stdio: ['ignore', 'pipe', 'pipe'] })
    const box = setTimeout(() => child.kill('SIGKILL'), runMsMax)
    let output = ''
    const collect = (chunk: Buffer) => {
      output = (output + chunk.toString()).slice(-20_000)
    }
    child.stdout.on('data', collect)
    child.stderr.on('data', collect)
    child.on('close', (code) => {
      clearTimeout(box)
      resolve({ code, output })
    })
  })
}

let folder = ''
let complaints = ''
beforeAll(async () => {
  const { build } = (await import(new URL('../../tools/build.mjs', import.meta.url).href)) as { build(): Promise<boolean> }
  await build()
  mkdirSync(join(root, '.cache'), { recursive: true })
  folder = mkdtempSync(join(root, '.cache', 'snippets-'))
  for (const [index, { code }] of snippets.entries()) writeFileSync(join(folder, `s${index}.mts`), code)
  writeFileSync(join(folder, 'tsconfig.json'), JSON.stringify({ compilerOptions, include: ['*.mts'] }))
  if (snippets.length > 0) {
    const tsc = spawnSync(process.execPath, [join(root, 'node_modules/typescript/bin/tsc'), '-p', folder, '--pretty', 'false'], {
      encoding: 'utf8',
      cwd: folder,
    })
    complaints = `${tsc.stdout}${tsc.stderr}`
  }
}, 120_000)
afterAll(() => rmSync(folder, { recursive: true, force: true }))

describe('snippets of the documents (G6)', () => {
  test('exist', () => {
    expect(markdownFiles.length).toBeGreaterThan(0)
    expect(snippets.length).toBeGreaterThan(0)
  })
  test.each(snippets.map((snippet, index) => ({ ...snippet, index })))('$name compiles', ({ index }) => {
    const own = complaints.split('\n').filter((line) => line.includes(`s${index}.mts(`))
    expect(own.join('\n')).toBe('')
  })
  test('compile without a complaint that belongs to none of them', () => {
    expect(complaints.split('\n').filter((line) => !/^(s\d+\.mts\(|\s|$)/.test(line))).toEqual([])
  })
  test.each(snippets.map((snippet, index) => ({ ...snippet, index })).filter((each) => each.runs))('$name runs', async ({ index }) => {
    const cwd = mkdtempSync(join(tmpdir(), 'hapax-snippet-'))
    try {
      const { code, output } = await run(join(folder, 'out', `s${index}.mjs`), cwd)
      expect(code, output).toBe(0)
    } finally {
      rmSync(cwd, { recursive: true, force: true })
    }
  })
})

describe('snippetsOf', () => {
  const fence = '```'
  test('finds blocks with what stands before and after them, and their lines', () => {
    const markdown = `# A\n\n<!-- ts before\nconst a = 1\n-->\n${fence}ts\nconst b = a\n${fence}\n\n<!-- ts after\nconst c = b\n-->\n\n${fence}ts\nconst d = 1\n${fence}\n`
    expect(snippetsOf('x.md', markdown)).toEqual([
      { name: 'x.md:6', code: 'const a = 1\nconst b = a\nconst c = b\n\nexport {}\n', runs: true },
      { name: 'x.md:14', code: 'const d = 1\n\nexport {}\n', runs: true },
    ])
  })
  test('does not run a block that is marked, and leaves other languages alone', () => {
    const markdown = `<!-- ts compile-only: needs a server -->\n${fence}ts\nconst a = 1\n${fence}\n\n${fence}sh\nnpm test\n${fence}\n`
    expect(snippetsOf('x.md', markdown)).toEqual([{ name: 'x.md:2', code: 'const a = 1\n\nexport {}\n', runs: false }])
  })
})
