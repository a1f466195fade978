/**
 * Installs the dependencies when they are missing or stale. Plain JavaScript: it runs before anything is installed.
 * Invariant: after ensureInstalled() every package that the lock asks for on this platform has the version that the lock names.
 * Why not always `npm ci`: it takes half a minute and throws away a folder that is right already.
 */
import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('..', import.meta.url))

/** A registry that stumbles once should not fail a run. */
const attemptsMax = 3

/**
 * Compares package-lock.json with npm's own record of what it installed.
 * Optional packages may be absent: npm leaves out those of other platforms.
 * @returns undefined when all is in place, else the reason to install.
 */
export function staleness(folder) {
  const installedPath = join(folder, 'node_modules/.package-lock.json')
  if (!existsSync(installedPath)) return 'node_modules is missing'
  const wanted = JSON.parse(readFileSync(join(folder, 'package-lock.json'), 'utf8')).packages
  let installed
  try {
    installed = JSON.parse(readFileSync(installedPath, 'utf8')).packages
  } catch {
    return 'node_modules is damaged'
  }
  for (const [path, entry] of Object.entries(wanted)) {
    if (path === '') continue
    const present = installed[path]
    if (present === undefined) {
      if (entry.optional || entry.devOptional || entry.peer) continue
      return `${path} is missing`
    }
    if (present.version !== entry.version) return `${path} is ${present.version}, the lock says ${entry.version}`
  }
  return undefined
}

/** The npm that stands beside this Node, whatever the PATH says. */
export function npm(args, options = {}) {
  const besideNode = process.env.npm_execpath
  const viaNode = besideNode !== undefined && besideNode.endsWith('.js')
  return spawnSync(viaNode ? process.execPath : 'npm', viaNode ? [besideNode, ...args] : args, { encoding: 'utf8', ...options })
}

/** Installs if needed. Writes to stderr alone, so that stdout stays with what is started next. */
export function ensureInstalled(folder = root) {
  const reason = staleness(folder)
  if (reason === undefined) return
  console.error(`installing the dependencies: ${reason}`)
  for (let attempt = 1; attempt <= attemptsMax; attempt += 1) {
    const run = npm(['ci', '--ignore-scripts', '--no-audit', '--no-fund'], { cwd: folder, stdio: ['ignore', 2, 2] })
    if (run.status === 0) return
    console.error(`npm ci failed (attempt ${attempt} of ${attemptsMax})`)
  }
  throw new Error('the dependencies could not be installed: see the messages of npm above')
}
