/**
 * The first example of each pattern's page, as a user would paste it into an empty folder: by `import` or by `require`, on any store.
 * Invariant: the page is the only source; what is changed is the store, and how modules are loaded.
 */
import { spawnSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { transformSync } from 'esbuild'
import { snippetsOf } from '../docs/snippet.ts'
import { root } from './packed.ts'

export const patterns = ['idempotency', 'counters', 'ratelimit', 'cache-aside'] as const

/**
 * Which store an example runs on: what makes `kv`, and what ends it. The pages have `memory()`.
 * No sync of a disk and no connecting falls into an example: a rate limit waits 50 ms, and a busy machine takes longer for those.
 */
export interface Store {
  readonly begin: string
  readonly end: string
}
export const embeddedStore: Store = {
  begin: "import { embedded } from 'hapax/embedded'\nconst kv = await embedded({ dir: './data', durability: 'os' })\n",
  end: 'await kv.close()\n',
}
export const redisStore = (port: number): Store => ({
  begin: `import { Redis } from 'ioredis'\nimport { redisKv } from 'hapax/redis'\nconst redis = new Redis(${port})\nawait redis.ping()\nconst kv = redisKv(redis)\n`,
  end: 'await kv.close()\nawait redis.quit()\n',
})

const importOfMemory = "import { memory } from 'hapax'\n"

/** The first example of a pattern's page, as TypeScript. It throws when something comes out otherwise than it says. */
export function exampleOf(pattern: (typeof patterns)[number], store?: Store): string {
  const [first] = snippetsOf(pattern, readFileSync(join(root, 'docs', `${pattern}.md`), 'utf8'))
  const code = first?.code ?? ''
  for (const needed of [importOfMemory, 'kv: memory()', 'throw new Error'])
    if (!code.includes(needed)) throw new Error(`the first example of docs/${pattern}.md has no ${needed}`)
  return store === undefined ? code : store.begin + code.replace(importOfMemory, '').replace('kv: memory()', 'kv') + store.end
}

export const asModule = (code: string): string => transformSync(code, { loader: 'ts', format: 'esm', target: 'node20' }).code

/** As an old code base has it: `require`, and all that waits in a function. */
export function asCommonJs(code: string): string {
  const imports = /^import (\{[^}]*\}) from ("[^"]+");$/gm
  const plain = asModule(code).replaceAll(/^export \{.*\};$/gm, '')
  const required = [...plain.matchAll(imports)].map(
    ([, names = '', from = '']) => `const ${names.replaceAll(' as ', ': ')} = require(${from})`,
  )
  return `${required.join('\n')}\nasync function main() {\n${plain.replaceAll(imports, '')}}\nmain()\n`
}

/** An example does a few calls; one that takes longer does not end by itself. */
const runMsMax = 30_000

/** Runs a program in `folder`. @returns how it ended, and all that it said */
export function runProgram(folder: string, name: string, code: string): { readonly end: number | string | null; readonly said: string } {
  writeFileSync(join(folder, name), code)
  const run = spawnSync(process.execPath, [name], { cwd: folder, encoding: 'utf8', timeout: runMsMax, killSignal: 'SIGKILL' })
  return { end: run.status ?? run.signal, said: `${run.stdout}${run.stderr}` }
}
