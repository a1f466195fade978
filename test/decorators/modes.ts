/**
 * Compiles a fixture with decorators in each mode and by each compiler that users have, for tests that run all of them alike.
 * Invariant: what TypeScript refuses in a mode fails the test, an unused `@ts-expect-error` too.
 * Why compiled: Node and the test runner take no decorators, and the two systems call a decorator in two ways.
 */
import { spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { build, stop } from 'esbuild'

const root = fileURLToPath(new URL('../..', import.meta.url))

export const modes = ['TypeScript, TC39', 'TypeScript, legacy', 'esbuild, TC39', 'esbuild, legacy'] as const
/** Legacy mode knows no decorators on private methods. */
export const tc39Modes = ['TypeScript, TC39', 'esbuild, TC39'] as const
export type Mode = (typeof modes)[number]

const isLegacy = (mode: Mode): boolean => mode.endsWith('legacy')

function scratch(): string {
  mkdirSync(join(root, '.cache'), { recursive: true })
  return mkdtempSync(join(root, '.cache', 'decorators-'))
}

function tsc(folder: string, fixture: string, mode: Mode, emit: boolean): string {
  const config = {
    extends: join(root, 'tsconfig.json'),
    compilerOptions: {
      noEmit: !emit,
      allowImportingTsExtensions: !emit,
      declaration: false,
      experimentalDecorators: isLegacy(mode),
      rootDir: root,
      outDir: join(folder, 'out'),
    },
    files: [join(root, fixture)],
    include: [],
  }
  writeFileSync(join(folder, 'tsconfig.json'), JSON.stringify(config))
  const run = spawnSync(process.execPath, [join(root, 'node_modules/typescript/bin/tsc'), '-p', folder, '--pretty', 'false'], {
    encoding: 'utf8',
  })
  return `${run.stdout}${run.stderr}`
}

/** What TypeScript says of a fixture (a path from the root) in a mode; '' when all is well. */
export function complaints(fixture: string, mode: Mode): string {
  const folder = scratch()
  try {
    return tsc(folder, fixture, mode, false)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

/** The exports of a compiled fixture (a path from the root): with its own copy of everything that it imports from the project. */
export async function load<T>(fixture: string, mode: Mode): Promise<T> {
  const folder = scratch()
  try {
    let path = join(folder, 'out', fixture.replace(/\.ts$/, '.js'))
    if (mode.startsWith('TypeScript')) {
      const said = tsc(folder, fixture, mode, true)
      if (said !== '') throw new Error(`${mode}:\n${said}`)
    } else {
      path = join(folder, 'out.mjs')
      await build({
        entryPoints: [join(root, fixture)],
        outfile: path,
        bundle: true,
        format: 'esm',
        platform: 'node',
        packages: 'external',
        target: 'node20',
        logLevel: 'silent',
        tsconfigRaw: { compilerOptions: { experimentalDecorators: isLegacy(mode) } },
      })
      await stop()
    }
    return (await import(/* @vite-ignore */ pathToFileURL(path).href)) as T
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}
