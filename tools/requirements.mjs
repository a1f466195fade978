/**
 * The programs that some groups of tests need beside Node, and how each is found.
 * Invariant: a program is looked for on the PATH, then in an npm package that carries the binary, then at the system's package manager, in this order;
 * the first that answers to `--version` wins, and where none does, each way says why. Why a table: what a fresh machine needs is to be read in one place.
 */
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { npm } from './install.mjs'

/** An answer to `--version` takes milliseconds; an installation may take minutes on a slow mirror. */
const probeMsMax = 20_000
const installMsMax = 240_000

/** stdout belongs to the count: what an installer says goes to stderr. */
const loud = { stdio: ['ignore', 2, 2], timeout: installMsMax }

/**
 * `env`: where tests find the path. `names`: on the PATH. `apt`: Debian's package.
 * `npm`: package, version, the platform of its binary, and what unpacks it: a module that runs beside the package with an empty TMPDIR and an `env`
 * of its own. Of what then lies there: `program`, its `libraries` and its `fonts`:
 * without any font all text has no size, and a page cannot be clicked.
 * No maintained npm package carries redis-server: those of that name compile it or look for one.
 */
export const requirements = {
  chromium: {
    env: 'HAPAX_CHROMIUM',
    names: ['chromium', 'chromium-browser', 'google-chrome-stable', 'google-chrome'],
    npm: {
      name: '@sparticuz/chromium',
      version: '153.0.0',
      platform: 'linux-x64',
      unpack: "import chromium from '@sparticuz/chromium'\nawait chromium.executablePath()",
      // It unpacks its shared libraries only where it takes itself to be in a lambda; a bare image lacks them.
      env: { AWS_LAMBDA_JS_RUNTIME: 'nodejs22.x' },
      program: 'chromium',
      libraries: 'al2023/lib',
      fonts: 'fonts',
    },
    apt: 'chromium',
  },
  redis: { env: 'HAPAX_REDIS_SERVER', names: ['redis-server'], apt: 'redis-server' },
  etcd: { env: 'HAPAX_ETCD', names: ['etcd'], apt: 'etcd-server' },
}

/** What the ways need of the machine; tests pass another one. */
const machine = {
  platform: `${process.platform}-${process.arch}`,
  isRoot: process.getuid?.() === 0,
  cache: fileURLToPath(new URL('../node_modules/.cache/hapax-programs', import.meta.url)),
  say: (line) => console.error(line),
  npm: (args) => npm(args, loud),
  hasApt: () => spawnSync('apt-get', ['--version'], { stdio: 'ignore' }).status === 0,
  apt: (args, env) => spawnSync('apt-get', args, { ...loud, env }),
  /** Where the system's package manager puts programs, also when the PATH does not name it. */
  systemFolder: '/usr/bin',
}

/** A program is there when it starts and ends well: a file that cannot run on this machine is none. */
function answers(path) {
  return spawnSync(path, ['--version'], { stdio: 'ignore', timeout: probeMsMax }).status === 0
}

function inFolders(row, folders) {
  for (const folder of folders) {
    for (const name of row.names) {
      const path = join(folder, name)
      if (folder !== '' && answers(path)) return path
    }
  }
  return undefined
}

const onPath = (row, env) => {
  const path = inFolders(row, (env.PATH ?? '').split(delimiter))
  return path === undefined ? { missing: 'not on the PATH' } : { path }
}

const howItEnded = (run) => run.error?.message ?? (run.status === null ? `killed by ${run.signal}` : `exit code ${run.status}`)

/** Shell text for one word. */
const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`

function fromNpm(row, env, { platform, cache, say, npm: runNpm }) {
  if (row.npm === undefined) return { missing: 'no npm package carries it' }
  const { name, version, unpack, program, libraries, fonts } = row.npm
  const spec = `${name}@${version}`
  if (platform !== row.npm.platform) return { missing: `${spec} is for ${row.npm.platform} and this is ${platform}` }
  mkdirSync(cache, { recursive: true })
  const manifest = join(cache, 'node_modules', name, 'package.json')
  const unpacked = join(cache, 'unpacked')
  if (!existsSync(manifest) || JSON.parse(readFileSync(manifest, 'utf8')).version !== version) {
    say(`${row.names[0]}: not on the PATH, installing ${spec}`)
    // Errors alone: it warns of Node 20, with which it runs all the same.
    const options = ['--prefix', cache, '--no-save', '--no-audit', '--no-fund', '--ignore-scripts', '--loglevel=error']
    const got = runNpm(['install', ...options, spec])
    if (got.status !== 0) return { missing: `npm install ${spec} failed: ${howItEnded(got)}` }
    rmSync(unpacked, { recursive: true, force: true })
  }
  const wrapper = join(cache, `run-${program}`)
  if (existsSync(unpacked) && answers(wrapper)) return { path: wrapper }
  // Also when a run was killed in the middle of it: the package takes half a file for a whole one.
  rmSync(unpacked, { recursive: true, force: true })
  mkdirSync(unpacked)
  const run = spawnSync(process.execPath, ['--input-type=module', '-e', unpack], {
    cwd: cache,
    env: { ...env, ...row.npm.env, TMPDIR: unpacked },
    encoding: 'utf8',
    timeout: installMsMax,
  })
  if (run.status !== 0) return { missing: `${spec} cannot be unpacked: ${/^\w*Error: .*$/m.exec(run.stderr)?.[0] ?? howItEnded(run)}` }
  const settings = [`LD_LIBRARY_PATH=${quoted(join(unpacked, libraries))}`]
  if (fonts !== undefined) {
    const path = join(unpacked, 'fonts-too.conf')
    const system = '<include ignore_missing="yes">/etc/fonts/fonts.conf</include>'
    const kept = `<cachedir>${join(unpacked, 'fonts-cache')}</cachedir>`
    writeFileSync(path, `<?xml version="1.0"?><fontconfig>${system}<dir>${join(unpacked, fonts)}</dir>${kept}</fontconfig>\n`)
    settings.push(`FONTCONFIG_FILE=${quoted(path)}`)
  }
  const text = `#!/bin/sh\n${[...settings, 'exec', quoted(join(unpacked, program))].join(' ')} "$@"\n`
  writeFileSync(wrapper, text, { mode: 0o755 })
  return answers(wrapper) ? { path: wrapper } : { missing: `that of ${spec} does not run here` }
}

function fromSystem(row, env, { isRoot, hasApt, apt, say, systemFolder }) {
  if (row.apt === undefined) return { missing: 'the system has no package of it' }
  const command = `apt-get install ${row.apt}`
  if (!hasApt()) return { missing: 'there is no apt-get' }
  if (!isRoot) return { missing: `only root may: ${command}` }
  say(`${row.names[0]}: not on the PATH, ${command}`)
  // Runlevel 1: a server among the packages is not started.
  const aptEnv = { ...env, DEBIAN_FRONTEND: 'noninteractive', RUNLEVEL: '1' }
  // Without fresh lists it may still work with those that are there.
  apt(['update', '-q'], aptEnv)
  const got = apt(['install', '-y', '-q', '--no-install-recommends', '-o', 'DPkg::Lock::Timeout=60', row.apt], aptEnv)
  if (got.status !== 0) return { missing: `${command} failed: ${howItEnded(got)}` }
  const path = inFolders(row, [...(env.PATH ?? '').split(delimiter), systemFolder])
  return path === undefined ? { missing: `${command} succeeded, and what it brought does not run` } : { path }
}

/** @returns `{ path }` or `{ missing }`, the reason for people. */
export async function findProgram(row, env = process.env, on = machine) {
  const given = env[row.env]
  if (given !== undefined) return answers(given) ? { path: given } : { missing: `${row.env}=${given} does not run` }
  const reasons = []
  for (const way of [onPath, fromNpm, fromSystem]) {
    try {
      const found = way(row, env, on)
      if (found.path !== undefined) return found
      reasons.push(found.missing)
    } catch (error) {
      reasons.push(error.message)
    }
  }
  return { missing: `${row.names[0]} is not to be had: ${reasons.join('; ')}` }
}
