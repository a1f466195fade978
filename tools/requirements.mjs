/**
 * The programs that some groups of tests need beside Node, and how each is found.
 * Invariant: a program is looked for on the PATH, then in an npm package that carries the binary, then at the system's package manager, in this order;
 * the first that answers to `probe` wins. Why a table: what a fresh machine needs is to be read in one place.
 */
import { spawnSync } from 'node:child_process'
import { mkdirSync } from 'node:fs'
import { createRequire } from 'node:module'
import { delimiter, join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { npm } from './install.mjs'

const cache = fileURLToPath(new URL('../node_modules/.cache/hapax-programs', import.meta.url))

/** An answer to `--version` takes milliseconds; an installation may take minutes on a slow mirror. */
const probeMsMax = 20_000
const installMsMax = 240_000

/**
 * `env`: where tests find the path. `names`: on the PATH. `npm`: package, version and how its path is got. `apt`: Debian's package.
 * No maintained npm package carries redis-server.
 */
export const requirements = {
  chromium: {
    env: 'HAPAX_CHROMIUM',
    names: ['chromium', 'chromium-browser', 'google-chrome-stable', 'google-chrome'],
    npm: { name: '@sparticuz/chromium', version: '153.0.0', path: (module) => module.default.executablePath() },
    apt: 'chromium',
  },
  redis: { env: 'HAPAX_REDIS_SERVER', names: ['redis-server'], apt: 'redis-server' },
}

/** A program is there when it starts and ends well: a file that cannot run on this machine is none. */
function answers(path) {
  return spawnSync(path, ['--version'], { stdio: 'ignore', timeout: probeMsMax }).status === 0
}

function onPath(row, env) {
  for (const folder of (env.PATH ?? '').split(delimiter)) {
    for (const name of row.names) {
      const path = join(folder, name)
      if (folder !== '' && answers(path)) return path
    }
  }
  return undefined
}

async function fromNpm(row) {
  if (row.npm === undefined || process.platform !== 'linux' || process.arch !== 'x64') return undefined
  mkdirSync(cache, { recursive: true })
  const got = npm(
    ['install', '--prefix', cache, '--no-save', '--no-audit', '--no-fund', '--ignore-scripts', `${row.npm.name}@${row.npm.version}`],
    {
      stdio: ['ignore', 2, 2],
      timeout: installMsMax,
    },
  )
  if (got.status !== 0) return undefined
  const entry = createRequire(join(cache, 'x.js')).resolve(row.npm.name)
  const path = await row.npm.path(await import(pathToFileURL(entry).href))
  return answers(path) ? path : undefined
}

function fromSystem(row, env) {
  if (row.apt === undefined || process.getuid?.() !== 0 || spawnSync('apt-get', ['--version'], { stdio: 'ignore' }).status !== 0)
    return undefined
  const aptEnv = { ...env, DEBIAN_FRONTEND: 'noninteractive' }
  const options = { stdio: ['ignore', 2, 2], timeout: installMsMax, env: aptEnv }
  spawnSync('apt-get', ['update', '-q'], options)
  spawnSync('apt-get', ['install', '-y', '-q', '--no-install-recommends', row.apt], options)
  return onPath(row, env)
}

/** @returns `{ path }` or `{ missing }`, the reason for people. */
export async function findProgram(row, env = process.env) {
  const given = env[row.env]
  if (given !== undefined) return answers(given) ? { path: given } : { missing: `${row.env}=${given} does not run` }
  const ways = [() => onPath(row, env), () => fromNpm(row), () => fromSystem(row, env)]
  for (const way of ways) {
    try {
      const path = await way()
      if (path !== undefined) return { path }
    } catch (error) {
      console.error(`${row.names[0]}: ${error.message}`)
    }
  }
  const systemWay = row.apt === undefined ? '' : `; as root, apt-get installs it: apt-get install ${row.apt}`
  return { missing: `${row.names[0]} is not on the PATH, in no npm package and cannot be installed${systemWay}` }
}
