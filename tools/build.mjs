/**
 * `npm run build`: the library, the examples and the page into dist/.
 * Invariant: dist/ is replaced whole or not at all, and dist/.stamp is the hash of everything that it was made of.
 * Why a hash and not times: a checkout or a copy changes every time, and a build that is not needed costs seconds at each start.
 */
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join, relative, sep } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'

const root = fileURLToPath(new URL('..', import.meta.url))
const dist = join(root, 'dist')
const stampPath = join(dist, '.stamp')

const sourceFolders = ['core', 'patterns', 'server', 'examples']
const sourceFiles = [
  'package.json',
  'package-lock.json',
  'tsconfig.json',
  'tsconfig.build.json',
  'tools/build.mjs',
  'tools/tsconfig.examples.json',
]
const pageFolder = 'examples/payments/page'

const isTest = (path) => /\.test\.tsx?$/.test(path) || path.split(sep).includes('testdata')

function filesIn(folder) {
  if (!existsSync(folder)) return []
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((item) => item.isFile())
    .map((item) => relative(root, join(item.parentPath, item.name)))
    .sort()
}

/** The hash of all that a build reads. Tests are not part of it. */
function sourceHash() {
  const hash = createHash('sha256')
  const paths = [
    ...sourceFiles.filter((path) => existsSync(join(root, path))),
    ...sourceFolders.flatMap((folder) => filesIn(join(root, folder))),
  ]
  for (const path of paths)
    if (!isTest(path))
      hash
        .update(`${path}\0`)
        .update(readFileSync(join(root, path)))
        .update('\0')
  return hash.digest('hex')
}

function tsc(args) {
  const run = spawnSync(process.execPath, [join(root, 'node_modules/typescript/bin/tsc'), ...args], { cwd: root, encoding: 'utf8' })
  if (run.status !== 0) throw new Error(`tsc ${args.join(' ')} failed:\n${run.stdout}${run.stderr}`)
}

/** Examples keep their file structure: they start their other processes by file name. */
function buildExamples(target) {
  if (!filesIn(join(root, 'examples')).some((path) => path.endsWith('.ts') && !isTest(path))) return
  tsc(['-p', 'tools/tsconfig.examples.json', '--outDir', target])
  for (const path of filesIn(join(root, 'examples'))) {
    if (/\.tsx?$/.test(path) || path.startsWith(join(pageFolder, sep)) || isTest(path)) continue
    cpSync(join(root, path), join(target, path))
  }
}

/** One script, one style sheet, one HTML file; nothing is fetched from elsewhere. */
async function buildPage(target) {
  const entry = join(root, pageFolder, 'main.tsx')
  if (!existsSync(entry)) return
  const { build, stop } = await import('esbuild')
  const out = join(target, pageFolder)
  await build({
    entryPoints: [entry],
    outfile: join(out, 'main.js'),
    bundle: true,
    minify: true,
    format: 'esm',
    target: 'es2022',
    jsx: 'automatic',
    jsxImportSource: 'preact',
    logLevel: 'warning',
  })
  await stop()
  for (const path of filesIn(join(root, pageFolder))) {
    if (/\.tsx?$/.test(path) || path.endsWith('.html') || path.endsWith('tsconfig.json')) continue
    cpSync(join(root, path), join(target, path))
  }
  const html = readFileSync(join(root, pageFolder, 'index.html'), 'utf8')
  writeFileSync(join(out, 'index.html'), html.replaceAll('main.tsx', 'main.js'))
}

/** How long a builder waits for another one: a build takes seconds. */
const lockMsMax = 60_000

/** Runs `work` alone: two builders at once would rename each other's dist. A lock of a dead builder runs out. */
async function alone(work) {
  const lock = join(root, '.cache', 'build.lock')
  mkdirSync(dirname(lock), { recursive: true })
  const giveUpMs = Date.now() + lockMsMax
  for (;;) {
    try {
      mkdirSync(lock)
      break
    } catch (error) {
      if (error.code !== 'EEXIST') throw error
    }
    if (Date.now() > giveUpMs) rmSync(lock, { recursive: true, force: true })
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
  try {
    return await work()
  } finally {
    rmSync(lock, { recursive: true, force: true })
  }
}

/** A folder that an image of a container brought along, or that is another mount, cannot be renamed (EXDEV); it is copied then. */
export function move(from, to, rename = renameSync) {
  try {
    rename(from, to)
  } catch (error) {
    if (error.code !== 'EXDEV') throw error
    cpSync(from, to, { recursive: true })
    rmSync(from, { recursive: true })
  }
}

/** Builds when the sources differ from those of the last build. @returns whether it built. */
export const build = () => alone(buildStale)

async function buildStale() {
  const hash = sourceHash()
  if (existsSync(stampPath) && readFileSync(stampPath, 'utf8') === hash) return false
  const target = join(root, '.cache', `dist-${process.pid}`)
  rmSync(target, { recursive: true, force: true })
  mkdirSync(dirname(target), { recursive: true })
  try {
    tsc(['-p', 'tsconfig.build.json', '--outDir', target])
    buildExamples(target)
    await buildPage(target)
    const old = join(root, '.cache', `old-${process.pid}`)
    if (existsSync(dist)) move(dist, old)
    move(target, dist)
    writeFileSync(stampPath, hash) // last: a copy that was cut short is made anew
    rmSync(old, { recursive: true, force: true })
  } finally {
    rmSync(target, { recursive: true, force: true })
  }
  return true
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const startMs = Date.now()
  try {
    const built = await build()
    console.error(built ? `built dist in ${((Date.now() - startMs) / 1000).toFixed(1)} s` : 'dist is up to date')
  } catch (error) {
    console.error(error.message)
    process.exitCode = 1
  }
}
