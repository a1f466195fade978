/**
 * The snapshot of the published types: every declaration that a user can reach, without comments.
 * Invariant: `npm run types:update` writes a changed snapshot only when the Unreleased section of CHANGELOG.md changed since the last one.
 * Why text and not a syntax tree: TypeScript 7 has no stable programming interface (docs/decisions/0004).
 */
import { createHash } from 'node:crypto'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'

const root = fileURLToPath(new URL('..', import.meta.url))
export const snapshotPath = join(root, 'test/types/published-types.txt')

/** Takes comments away and leaves strings alone. */
export function withoutComments(code) {
  const stripped = code.replace(
    /("(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|`(?:\\.|[^`\\])*`)|\/\*[\s\S]*?\*\/|\/\/[^\n]*/g,
    (_match, string) => string ?? '',
  )
  return stripped
    .split('\n')
    .map((line) => line.trimEnd())
    .filter((line) => line !== '')
    .join('\n')
}

/** Where the declarations of `specifier` lie, seen from the declaration file `from`. */
const target = (from, specifier) => join(dirname(from), specifier.replace(/\.(js|ts)$/, '.d.ts'))

/** The public declarations: each entry point, then every file that one of them reaches, in order of path. */
export function publishedTypes(folder = root) {
  const { exports } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'))
  const entries = Object.entries(exports).filter(([, value]) => typeof value === 'object')
  const files = new Map()
  const queue = entries.map(([, value]) => join(folder, value.types))
  for (let path = queue.pop(); path !== undefined; path = queue.pop()) {
    if (files.has(path)) continue
    const code = withoutComments(readFileSync(path, 'utf8'))
    files.set(path, code)
    for (const [, specifier] of code.matchAll(/(?:from|import\()\s*['"](\.[^'"]*)['"]/g)) queue.push(target(path, specifier))
  }
  const lines = entries.map(([subpath, value]) => `hapax${subpath.slice(1)} = ${value.types}`)
  const bodies = [...files]
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([path, code]) => `--- ${relative(folder, path).split('\\').join('/')}\n${code}`)
  return `${lines.join('\n')}\n${bodies.join('\n')}\n`
}

/** Names the text of the Unreleased section: what a change of types must change as well. */
export function unreleasedHash(changelog) {
  const section = /^## Unreleased$([\s\S]*?)(?=^## |(?![\s\S]))/m.exec(changelog)?.[1] ?? ''
  return createHash('sha256').update(section.trim()).digest('hex').slice(0, 16)
}

/** @returns {{ changelog: string, types: string } | undefined} */
export function readSnapshot(text) {
  const match = /^changelog: ([0-9a-f]+)\n([\s\S]*)$/.exec(text)
  return match ? { changelog: match[1], types: match[2] } : undefined
}

/**
 * What to write, given what was written last.
 * @returns {{ text: string } | { refused: string } | undefined} undefined when nothing changed
 */
export function nextSnapshot(previousText, types, changelog) {
  const previous = previousText === undefined ? undefined : readSnapshot(previousText)
  if (previous?.types === types) return undefined
  const hash = unreleasedHash(changelog)
  if (previous?.changelog === hash)
    return { refused: 'the published types changed: say so in a line under "## Unreleased" of CHANGELOG.md, then run this again' }
  return { text: `changelog: ${hash}\n${types}` }
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const { build } = await import('./build.mjs')
  await build()
  const previous = existsSync(snapshotPath) ? readFileSync(snapshotPath, 'utf8') : undefined
  const next = nextSnapshot(previous, publishedTypes(), readFileSync(join(root, 'CHANGELOG.md'), 'utf8'))
  if (next === undefined) console.log('the published types have not changed')
  else if ('refused' in next) {
    console.error(next.refused)
    process.exitCode = 1
  } else {
    writeFileSync(snapshotPath, next.text)
    console.log('wrote test/types/published-types.txt')
  }
}
